//! The only door for intent and for reports.
//!
//! ```text
//! submit(origin, verbs)
//!   idempotency key seen?  same body: the stored answer; another body: refused
//!   each verb:  read the row -> check -> admit (kind) -> event -> fold -> row      draft.rs
//!   one store transaction: events + rows + index + claims + sealed + answer        log.rs
//!   lost a race?  read again and decide again, at most RACES_MAX times
//! ```

use std::sync::Arc;

use model::event::{Actor, ActorKind};
use model::{Code, Error, Id, Reason, Row, Scope};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::Store;
use world::Clock;

use crate::draft::Draft;
use crate::kind::{Admission, Registry};
use crate::{log, rows};

/// How often a command is decided anew after another one was faster.
const RACES_MAX: usize = 32;

/// Who asks, in which request, and what led to it.
#[derive(Clone, Debug)]
pub struct Origin {
    pub actor: Actor,
    pub request_id: Id,
    /// From the caller: the same key with the same body has one effect and one answer.
    pub idempotency_key: Option<String>,
    /// The request that started it all; this one, where it is the first.
    pub correlation: Option<Id>,
    /// The event that led here.
    pub causation: Option<Id>,
}

impl Origin {
    /// The product itself, following up on `row`'s last event.
    pub fn following(row: &Row, actor: &str) -> Self {
        Self {
            correlation: Some(row.correlation.clone()),
            causation: Some(row.last_event.clone()),
            ..Self::system(actor)
        }
    }

    /// The product itself, of its own accord.
    pub fn system(actor: &str) -> Self {
        Self {
            actor: Actor { kind: ActorKind::System, id: actor.to_owned() },
            request_id: Id::new(model::id::REQUEST),
            idempotency_key: None,
            correlation: None,
            causation: None,
        }
    }
}

/// One thing to do to one row.
#[derive(Clone, Debug)]
pub enum Verb {
    Create {
        kind: String,
        scope: Scope,
        name: String,
        spec: Value,
        owner: Option<Id>,
    },
    /// Replaces the wish. A spec equal to the present one changes nothing.
    SetSpec {
        id: Id,
        spec: Value,
        if_version: Option<u64>,
    },
    Assign {
        id: Id,
        node: Id,
    },
    /// A report. One that says nothing new changes nothing.
    Observe {
        id: Id,
        generation: u64,
        phase: String,
        reason: Option<Reason>,
        status: Value,
    },
    /// Asks the row to go. Asking twice changes nothing.
    Delete {
        id: Id,
        if_version: Option<u64>,
    },
    /// The row is gone: nothing is left to remove.
    Remove {
        id: Id,
    },
}

/// Verbs that are accepted together or not at all. Each is about another row.
#[derive(Clone, Debug)]
pub struct Command {
    pub origin: Origin,
    pub verbs: Vec<Verb>,
}

/// What became of an accepted command.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The rows after it, in the order of the verbs. A removed row stands here as it last was.
    pub rows: Vec<Row>,
    /// The revision of its transaction; when nothing changed, the one of the newest row that was looked at.
    pub sequence: u64,
    /// True when an earlier request with the same idempotency key had this answer.
    pub replayed: bool,
}

impl Receipt {
    /// The row of a command with one verb.
    pub fn row(self) -> Row {
        self.rows.into_iter().next().expect("every verb leaves a row")
    }
}

/// The door. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    store: Arc<dyn Store>,
    registry: Registry,
    clock: Clock,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Door {
    pub fn new(store: Arc<dyn Store>, registry: Registry, clock: Clock) -> Self {
        Self { store, registry, clock }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The row with this id, as it is now.
    pub async fn get(&self, id: &Id) -> Result<Option<Row>, Error> {
        Ok(rows::get(&*self.store, id).await?.map(|stored| stored.row))
    }

    /// The encrypted content that was admitted for a row at `version`.
    pub async fn sealed(&self, id: &Id, version: u64) -> Result<Option<Vec<u8>>, Error> {
        let range = store::Range::key(crate::keys::sealed(id, version));
        let answer = self.store.range(range).await.map_err(rows::from_store)?;
        Ok(answer.items.into_iter().next().map(|item| item.value.to_vec()))
    }

    /// The row that holds the claimed name.
    pub async fn claim(&self, name: &str) -> Result<Option<Id>, Error> {
        let range = store::Range::key(crate::keys::claim(name));
        let answer = self.store.range(range).await.map_err(rows::from_store)?;
        Ok(answer.first().and_then(|item| std::str::from_utf8(&item.value).ok()?.parse().ok()))
    }

    /// The names that are claimed below `prefix`, in order, each with the row that holds it.
    pub async fn claims(&self, prefix: &str) -> Result<Vec<(String, Id)>, Error> {
        let range = store::Range::prefix(crate::keys::claim(prefix));
        let answer = self.store.range(range).await.map_err(rows::from_store)?;
        let name = |key: &[u8]| String::from_utf8_lossy(key).trim_start_matches(crate::keys::CLAIMS).to_owned();
        let holder = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        Ok(answer.items.iter().filter_map(|item| Some((name(&item.key), holder(&item.value)?))).collect())
    }

    /// Accepts one verb; see [`Door::submit`].
    pub async fn one(&self, origin: Origin, verb: Verb) -> Result<Receipt, Error> {
        self.submit(Command { origin, verbs: vec![verb] }).await
    }

    /// Accepts a command, durably, or refuses it before anything changes.
    ///
    /// Errors: what the kinds' admission says; `not_found`; `version_conflict` for `If-Match`; `conflict` for a
    /// taken name or claim; `idempotency_key_reuse`; `unavailable` when the store does not answer, in which case
    /// the command may have been accepted and asking again with the same idempotency key tells.
    pub async fn submit(&self, command: Command) -> Result<Receipt, Error> {
        let digest = digest(&command);
        for _ in 0..RACES_MAX {
            if let Some(answer) = log::answered(&*self.store, &command.origin, &digest).await? {
                return Ok(answer);
            }
            let admission = Admission { door: self, now_ms: self.clock.now_ms() };
            let mut draft = Draft::new(admission, &command.origin);
            for verb in &command.verbs {
                draft.add(verb).await?;
            }
            if let Some(receipt) = log::commit(&*self.store, draft, &digest).await? {
                return Ok(receipt);
            }
        }
        Err(Error::new(Code::Unavailable, "too many changes at once to the same rows").hint("ask again"))
    }
}

/// A digest of what is asked, to tell a repeated request from another one with the same key.
fn digest(command: &Command) -> String {
    use base64::Engine as _;
    let mut hash = Sha256::new();
    for verb in &command.verbs {
        hash.update(format!("{verb:?}\n"));
    }
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash.finalize())
}
