//! The only writer of rows and events; and readers of the log.

use model::{Code, Error, Event, Id, Row, Scope};
use serde::{Deserialize, Serialize};
use store::{LeaseId, Op, Range, Revision, SortBy, SortOrder, Store, Txn};

use crate::command::{Origin, Receipt};
use crate::draft::Draft;
use crate::keys;
use crate::rows::from_store;

/// How long an answer is kept for its idempotency key.
const ONCE_HOURS: u64 = 24;
const HOUR_MS: u64 = 3_600_000;

/// The answer to a command, kept for its idempotency key.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    digest: String,
    rows: Vec<Row>,
}

/// The answer that this idempotency key had before; `None` for a new key.
pub(crate) async fn answered(store: &dyn Store, origin: &Origin, digest: &str) -> Result<Option<Receipt>, Error> {
    let Some(key) = &origin.idempotency_key else { return Ok(None) };
    let range = Range::key(keys::once(&origin.actor.id, key));
    let found = store.range(range).await.map_err(from_store)?;
    let Some(item) = found.items.into_iter().next() else { return Ok(None) };
    let answer: Answer = serde_json::from_slice(&item.value).map_err(|error| Error::internal(error.to_string()))?;
    if answer.digest != digest {
        let message = format!("idempotency key `{key}` was used for another request");
        return Err(Error::new(Code::IdempotencyKeyReuse, message).hint("use a new key for a new request"));
    }
    Ok(Some(Receipt { rows: answer.rows, sequence: item.mod_revision.0, replayed: true }))
}

/// Writes a draft in one transaction. `None` when another command was faster and this one must be decided again.
pub(crate) async fn commit(store: &dyn Store, draft: Draft<'_>, digest: &str) -> Result<Option<Receipt>, Error> {
    let (mut when, mut then) = (draft.when, draft.then);
    if let Some(key) = &draft.origin.idempotency_key {
        let lease = once_lease(store, draft.now_ms).await?;
        let answer = Answer { digest: digest.to_owned(), rows: draft.rows.clone() };
        let value = serde_json::to_vec(&answer).map_err(|error| Error::internal(error.to_string()))?;
        let key = keys::once(&draft.origin.actor.id, key);
        when.push(store::Compare::missing(key.clone()));
        then.push(Op::put_leased(key, value, lease));
    }
    if then.is_empty() {
        // Not the store's newest: that may be about other keys, and a view of rows would wait for it in vain.
        return Ok(Some(Receipt { rows: draft.rows, sequence: draft.read.0, replayed: false }));
    }
    let answer = store.txn(Txn::when(when).then(then)).await.map_err(|error| match error {
        store::Error::RequestTooLarge { .. } | store::Error::TooManyOps { .. } => {
            Error::new(Code::TooLarge, "the command is too large for one transaction").why(error.to_string())
        }
        other => from_store(other),
    })?;
    if answer.succeeded {
        return Ok(Some(Receipt { rows: draft.rows, sequence: answer.revision.0, replayed: false }));
    }
    for claim in &draft.claims {
        let held = store.range(Range::key(keys::claim(claim))).await.map_err(from_store)?;
        if held.items.is_empty() {
            continue;
        }
        // Numbers and addresses are chosen by admission, which chooses again. A name was chosen by a person, and so was
        // the text of a token.
        if ["name/", "host/", "token/"].iter().any(|chosen| claim.starts_with(chosen)) {
            let taken = claim.rsplit('/').next().unwrap_or(claim);
            return Err(Error::new(Code::Conflict, format!("`{taken}` is taken")).hint("choose another name"));
        }
    }
    Ok(None)
}

/// One lease for all keys of an hour, so that a busy cloud does not hold a lease for each request.
async fn once_lease(store: &dyn Store, now_ms: u64) -> Result<LeaseId, Error> {
    let id = LeaseId((now_ms / HOUR_MS) as i64 + 1);
    match store.lease_grant((ONCE_HOURS + 2) * 3600, Some(id)).await {
        Ok(_) | Err(store::Error::LeaseExists { .. }) => Ok(id),
        Err(error) => Err(from_store(error)),
    }
}

/// Events of one command: no more than a transaction has operations.
const COMMAND_EVENTS_MAX: usize = store::limits::TXN_OPS_MAX;

/// One page of events.
#[derive(Debug)]
pub struct Page {
    /// In order of sequence; those of one command in order of row.
    pub events: Vec<Event>,
    /// Ask on from this sequence.
    pub next: u64,
}

/// Reads an event; its sequence is the revision at which it was written.
pub fn read(value: &[u8], written: Revision) -> Result<Event, serde_json::Error> {
    let mut event: Event = serde_json::from_slice(value)?;
    event.sequence = written.0;
    Ok(event)
}

async fn events(store: &dyn Store, range: Range) -> Result<Vec<Event>, Error> {
    let answer = store.range(range).await.map_err(from_store)?;
    // An event that this program cannot read is left out here; replay names it.
    Ok(answer.items.iter().filter_map(|item| read(&item.value, item.create_revision).ok()).collect())
}

/// Events at `scope` and below from sequence `from` on. `limit` is rounded up to whole commands.
pub async fn since(store: &dyn Store, scope: &Scope, from: u64, limit: usize) -> Result<Page, Error> {
    let range = Range::prefix(keys::log_below(scope)).min_create(Revision(from)).uncounted();
    let range = range.sort(SortBy::Create, SortOrder::Ascend).limit(limit.saturating_add(COMMAND_EVENTS_MAX));
    let mut found = events(store, range).await?;
    if let Some(last) = found.get(limit.saturating_sub(1)).map(|event| event.sequence) {
        found.retain(|event| event.sequence <= last);
    }
    let next = found.last().map_or(from, |event| event.sequence + 1);
    Ok(Page { events: found, next })
}

/// The newest `limit` events at `scope` and below, in order of sequence.
pub async fn newest(store: &dyn Store, scope: &Scope, limit: usize) -> Result<Page, Error> {
    let range = Range::prefix(keys::log_below(scope)).uncounted().sort(SortBy::Create, SortOrder::Descend).limit(limit);
    let mut found = events(store, range).await?;
    found.reverse();
    let next = found.last().map_or(0, |event| event.sequence + 1);
    Ok(Page { events: found, next })
}

/// All events of one row, in order of version.
pub async fn of_row(store: &dyn Store, scope: &Scope, id: &Id) -> Result<Vec<Event>, Error> {
    events(store, Range::prefix(keys::log_of(scope, id))).await
}
