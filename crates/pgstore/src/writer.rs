//! The one task of a process that writes.
//!
//! It takes everything that waits and does it in one transaction of the database, each request on top of the ones before
//! it: one round trip to lock and load, one to write and commit. So however many callers there are, they share one flush
//! of the database's log, and processes take turns at the lock for two round trips each.
//!
//! ```text
//!   wait ──▶ BEGIN, lock, load ──▶ apply each ──▶ write, COMMIT, NOTIFY ──▶ feed ──▶ answers ──▶ wait
//!              │ failed: nothing was done            │ failed: undone, if the server says so; else nobody knows
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, try_join_all};
use store::apply::{self, Applied};
use store::select::Rows;
use store::{Batch, Error, Lease, LeaseId, Revision, Txn, TxnAnswer, WatchEvent, admit};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::columns::Columns;
use crate::draft::Draft;
use crate::error::{Failure, Kind};
use crate::load::{Loaded, Stretches};
use crate::session::{ANSWER_MAX, Backoff, Session};
use crate::shared::Shared;
use crate::sql;
use crate::wanted::Wanted;

/// Requests that may wait; further ones are refused.
pub const QUEUE_MAX: usize = 4096;

/// Requests in one transaction.
const BATCH_MAX: usize = 512;

/// Bytes of requests after which no more are taken into one.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Committed transactions that the follower has not taken yet; beyond that it reads them from the table.
pub const TOLD_MAX: usize = 8;

/// For locking and loading: the server gives up waiting for the lock before that.
const LOAD_MAX: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub enum Work {
    Txn(Txn),
    /// The id may have been drawn at random: then it is nobody's yet.
    Grant {
        ttl_seconds: u64,
        id: LeaseId,
    },
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    /// Revokes it if it ran out.
    Expire(LeaseId),
    Compact(Revision),
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Txn(TxnAnswer),
    Lease(Lease),
    Revision(Revision),
    Done,
}

pub struct Request {
    pub work: Work,
    pub reply: oneshot::Sender<Result<Outcome, Error>>,
}

impl Request {
    fn bytes(&self) -> usize {
        match &self.work {
            Work::Txn(txn) => admit::bytes(txn),
            Work::Grant { .. } | Work::KeepAlive(_) | Work::Revoke(_) | Work::Expire(_) | Work::Compact(_) => 0,
        }
    }

    fn answer(self, outcome: Result<Outcome, Error>) {
        // Whoever asked may have gone; that is theirs to decide.
        let _ = self.reply.send(outcome);
    }
}

pub struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Request>,
    /// The follower's: what was committed here need not be read again.
    told: mpsc::Sender<Vec<Batch>>,
    channel: String,
    session: Option<Ready>,
    backoff: Backoff,
    /// Has been said, and need not be said for every request.
    failing: bool,
}

/// A session with the statements of every batch prepared.
struct Ready {
    session: Session,
    lock: tokio_postgres::Statement,
    load: tokio_postgres::Statement,
    write: tokio_postgres::Statement,
    advance: tokio_postgres::Statement,
    notify: tokio_postgres::Statement,
}

/// How a batch ended.
enum End {
    Committed(Vec<Batch>),
    /// Nothing was done.
    Undone(Failure),
    /// Refused before anything was done, for all alike.
    Refused(Error),
    Unknown(Failure),
}

impl Writer {
    pub fn new(shared: Arc<Shared>, queue: mpsc::Receiver<Request>, told: mpsc::Sender<Vec<Batch>>) -> Self {
        let channel = shared.door.channel();
        Self { shared, queue, told, channel, session: None, backoff: Backoff::new(), failing: false }
    }

    /// Until every sender is gone and all they sent is done.
    pub async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            let requests = self.take(first);
            // One of them may be what the database cannot do; the others must not fail with it.
            for request in self.batch(requests).await {
                self.batch(vec![request]).await;
            }
        }
    }

    fn take(&mut self, first: Request) -> Vec<Request> {
        let mut bytes = first.bytes();
        let mut requests = vec![first];
        while requests.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(request) = self.queue.try_recv() else { break };
            bytes += request.bytes();
            requests.push(request);
        }
        // Nobody waits for these any more, and nothing was done for them.
        requests.retain(|request| !request.reply.is_closed());
        requests
    }

    /// Answers the requests, or gives them back to be tried one by one: several of which nothing was done.
    async fn batch(&mut self, requests: Vec<Request>) -> Vec<Request> {
        if requests.is_empty() {
            return Vec::new();
        }
        let mut outcomes = Vec::with_capacity(requests.len());
        let end = match self.ready().await {
            Ok(ready) => self.commit(&ready, &requests, &mut outcomes).await.keep(&mut self.session, ready),
            Err(failure) => End::Undone(failure),
        };
        let error = match end {
            End::Committed(batches) => {
                self.backoff = Backoff::new();
                if std::mem::take(&mut self.failing) {
                    tracing::info!("PostgreSQL takes requests again");
                }
                if requests.iter().any(|request| matches!(request.work, Work::Compact(_))) {
                    self.shared.compacted.notify_one();
                }
                if !batches.is_empty() {
                    // When it is full, the follower reads the table.
                    let _ = self.told.try_send(batches);
                }
                for (request, outcome) in requests.into_iter().zip(outcomes) {
                    request.answer(outcome);
                }
                return Vec::new();
            }
            End::Undone(failure) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%failure, "PostgreSQL does not take requests; nothing is done");
                }
                if requests.len() > 1 && failure.spares_session() && failure.kind == Kind::Refused {
                    return requests;
                }
                failure.before("write")
            }
            End::Refused(error) => error,
            End::Unknown(failure) => {
                tracing::warn!(%failure, "nobody knows whether {} requests were committed", requests.len());
                failure.after("hear whether it was committed")
            }
        };
        for request in requests {
            request.answer(Err(error.clone()));
        }
        Vec::new()
    }

    /// The session, or a new one. Requests wait for the attempt: they are refused only when it fails.
    async fn ready(&mut self) -> Result<Ready, Failure> {
        if let Some(ready) = self.session.take().filter(|ready| !ready.session.is_closed()) {
            return Ok(ready);
        }
        self.backoff.wait().await;
        let connecting = async {
            let session = self.shared.door.session().await?;
            let texts = [sql::LOCK, &sql::LOAD, sql::WRITE, sql::ADVANCE, sql::NOTIFY];
            let statements = try_join_all(texts.map(|text| session.prepared(text))).await?;
            let Ok([lock, load, write, advance, notify]) = <[_; 5]>::try_from(statements) else {
                return Err(Failure::broken("a statement was not prepared"));
            };
            Ok(Ready { session, lock, load, write, advance, notify })
        };
        let ready = timeout(ANSWER_MAX, connecting).await.unwrap_or_else(|_| Err(Failure::timed_out()));
        ready.inspect_err(|_| self.backoff.failed())
    }

    async fn commit(&self, ready: &Ready, requests: &[Request], outcomes: &mut Vec<Result<Outcome, Error>>) -> End {
        if let Err(error) = self.shared.usable() {
            return End::Refused(error);
        }
        let known = self.shared.feed.newest();
        let wanted = wanted(requests, known);
        let loading = timeout(LOAD_MAX, ready.load(&wanted)).await;
        let loaded = match loading.unwrap_or_else(|_| Err(Failure::timed_out())) {
            Ok((format, identity, loaded)) => match self.shared.door.check(format, &identity) {
                Ok(()) => loaded,
                Err(failure) => return End::Undone(failure),
            },
            Err(failure) => return self.undo(ready, failure).await,
        };
        if let Err(error) = self.shared.check(known, loaded.newest) {
            return End::Refused(error);
        }
        let mut draft = Draft::new(wanted, loaded);
        let mut batches = Vec::new();
        for request in requests {
            match settle(&mut draft, &request.work, &mut batches) {
                Err(error) if !error.is_refusal() => return End::Refused(error),
                outcome => outcomes.push(outcome),
            }
        }
        match timeout(ANSWER_MAX, ready.write(&draft, &self.channel)).await {
            Ok(Ok(())) => End::Committed(batches),
            Ok(Err(Failed::Undone(failure))) => self.undo(ready, failure).await,
            Ok(Err(Failed::Unknown(failure))) => End::Unknown(failure),
            Err(_) => End::Unknown(Failure::timed_out()),
        }
    }

    /// Ends a transaction that failed, so that the session can be used again.
    async fn undo(&self, ready: &Ready, failure: Failure) -> End {
        if failure.spares_session() {
            // When this fails too, the session turns out to be closed.
            let _ = timeout(ANSWER_MAX, ready.session.run("ROLLBACK")).await;
        }
        End::Undone(failure)
    }
}

impl End {
    /// Keeps the session unless it is in a state that nobody knows.
    fn keep(self, place: &mut Option<Ready>, ready: Ready) -> Self {
        let good = match &self {
            Self::Committed(_) => true,
            Self::Undone(failure) => failure.spares_session(),
            Self::Refused(_) | Self::Unknown(_) => false,
        };
        *place = good.then_some(ready);
        self
    }
}

fn wanted(requests: &[Request], known: Revision) -> Wanted {
    let mut wanted = Wanted::default();
    for request in requests {
        match &request.work {
            Work::Txn(txn) => wanted.txn(txn, known),
            Work::Grant { id, .. } | Work::KeepAlive(id) => drop(wanted.leases.insert(*id)),
            Work::Revoke(id) | Work::Expire(id) => {
                wanted.leases.insert(*id);
                wanted.attached.insert(*id);
            }
            Work::Compact(_) => {}
        }
    }
    wanted.settle();
    wanted
}

/// Applies one request to the draft. A refusal leaves it as it was.
fn settle(draft: &mut Draft, work: &Work, batches: &mut Vec<Batch>) -> Result<Outcome, Error> {
    let mut keep = |draft: &mut Draft, events: Vec<WatchEvent>| {
        if !events.is_empty() {
            let revision = draft.take_revision(&events);
            batches.push(Batch { revision, events });
        }
    };
    match work {
        Work::Txn(txn) => {
            let Applied { answer, events } = apply::apply(draft, txn)?;
            keep(draft, events);
            Ok(Outcome::Txn(answer))
        }
        Work::Grant { id, .. } if draft.lease(*id).is_some() => Err(Error::LeaseExists { id: *id }),
        Work::Grant { ttl_seconds, id } => {
            draft.begin_lease(*id, *ttl_seconds);
            Ok(Outcome::Lease(Lease { id: *id, ttl_seconds: *ttl_seconds }))
        }
        Work::KeepAlive(id) => {
            let alive = draft.lease(*id).filter(|term| !term.ran_out).ok_or(Error::LeaseNotFound { id: *id })?;
            draft.begin_lease(*id, alive.ttl_seconds);
            Ok(Outcome::Lease(Lease { id: *id, ttl_seconds: alive.ttl_seconds }))
        }
        Work::Revoke(id) | Work::Expire(id) => {
            let term = draft.lease(*id).ok_or(Error::LeaseNotFound { id: *id })?;
            if matches!(work, Work::Expire(_)) && !term.ran_out {
                return Ok(Outcome::Done);
            }
            let Applied { answer, events } = apply::revoke(draft, *id)?;
            keep(draft, events);
            draft.end_lease(*id);
            Ok(Outcome::Revision(answer))
        }
        Work::Compact(revision) => {
            let (newest, compacted) = (draft.newest(), draft.compacted());
            if *revision > newest {
                return Err(Error::FutureRevision { asked: *revision, newest });
            }
            if *revision <= compacted {
                return Err(Error::Compacted { compacted });
            }
            draft.compact(*revision);
            Ok(Outcome::Done)
        }
    }
}

/// How writing failed.
enum Failed {
    Undone(Failure),
    Unknown(Failure),
}

impl Ready {
    /// Begins the transaction, and answers the head's format and identity, and what was wanted.
    async fn load(&self, wanted: &Wanted) -> Result<(i64, String, Loaded), Failure> {
        let stretches = Stretches::of(wanted);
        let stretches = stretches.parameters();
        let leases: Vec<i64> = wanted.leases.iter().map(|id| id.0).collect();
        let attached: Vec<i64> = wanted.attached.iter().map(|id| id.0).collect();
        let terms = if leases.is_empty() { None } else { Some(self.session.prepared(&sql::TERMS).await?) };
        let held = if attached.is_empty() { None } else { Some(self.session.prepared(&sql::ATTACHED).await?) };
        let (begun, locked, rows, terms, held) = tokio::join!(
            biased;
            self.session.run(sql::BEGIN),
            self.session.query(&self.lock, &[]),
            self.session.query(&self.load, &stretches),
            async {
                match &terms {
                    Some(statement) => self.session.query(statement, &[&leases]).await,
                    None => Ok(Vec::new()),
                }
            },
            async {
                match &held {
                    Some(statement) => self.session.query(statement, &[&attached]).await,
                    None => Ok(Vec::new()),
                }
            },
        );
        begun?;
        let locked = locked?;
        let head = sql::first(&locked)?;
        let mut loaded = Loaded::of(&rows?, wanted)?;
        for row in held? {
            if let Some(kv) = sql::key_value(&row, 0)? {
                loaded.present.push((kv, sql::column(&row, 6)?));
            }
        }
        for row in terms? {
            let (id, ttl): (i64, i64) = (sql::column(&row, 0)?, sql::column(&row, 1)?);
            loaded.leases.push((LeaseId(id), ttl.max(0) as u64, sql::column(&row, 2)?));
        }
        Ok((sql::column(head, 0)?, sql::column(head, 1)?, loaded))
    }

    /// Writes the difference and commits.
    async fn write(&self, draft: &Draft, channel: &str) -> Result<(), Failed> {
        let (renewed, gone) = draft.lease_changes();
        let leases = !renewed.is_empty() || !gone.is_empty();
        if !leases && !draft.moved() {
            // What the answers tell was committed before, by others.
            return self.session.run("ROLLBACK").await.map_err(Failed::Undone);
        }
        let terms =
            if leases { Some(self.session.prepared(sql::TERMS_WRITE).await.map_err(Failed::Undone)?) } else { None };
        let (renewed_ids, renewed_ttls): (Vec<i64>, Vec<i64>) =
            renewed.iter().map(|(id, ttl)| (id.0, sql::number(*ttl))).unzip();
        let gone: Vec<i64> = gone.iter().map(|id| id.0).collect();
        let columns = Columns::of(&draft.difference);
        let (newest, compacted) = (sql::number(draft.newest().0), sql::number(draft.compacted().0));
        let (terms, written, advanced, committed, ()) = tokio::join!(
            biased;
            async {
                match &terms {
                    Some(statement) => self.session.query(statement, &[&renewed_ids, &renewed_ttls, &gone]).await,
                    None => Ok(Vec::new()),
                }
            },
            async {
                if columns.is_empty() {
                    return Ok(0);
                }
                self.session.execute(&self.write, &columns.parameters()).await
            },
            async {
                if draft.moved() {
                    return self.session.execute(&self.advance, &[&newest, &compacted]).await;
                }
                Ok(0)
            },
            self.session.run("COMMIT"),
            async {
                if !columns.is_empty() {
                    // Sent, and not waited for: one that is lost only delays.
                    let told = newest.to_string();
                    drop(self.session.query(&self.notify, &[&channel, &told]).now_or_never());
                }
            },
        );
        // The first of them to fail says what became of the transaction; the ones after it only follow.
        if let Some(failure) = terms.err().or(written.err()).or(advanced.err()) {
            // The server refused one statement: so it undid the transaction, and COMMIT found nothing to commit.
            return Err(if failure.from_server { Failed::Undone(failure) } else { Failed::Unknown(failure) });
        }
        // A server that stops while it commits may have done so.
        committed.map_err(
            |failure| if failure.spares_session() { Failed::Undone(failure) } else { Failed::Unknown(failure) },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LeaseId = LeaseId(7);

    fn draft(ran_out: bool) -> Draft {
        let wanted = wanted(&[Request { work: Work::Expire(ID), reply: oneshot::channel().0 }], Revision::FIRST);
        let leases = vec![(ID, 10, ran_out)];
        Draft::new(wanted, Loaded { newest: Revision::FIRST, leases, ..Loaded::default() })
    }

    #[test]
    fn a_lease_that_was_kept_alive_meanwhile_does_not_end() {
        let mut alive = draft(false);
        assert!(matches!(settle(&mut alive, &Work::Expire(ID), &mut Vec::new()), Ok(Outcome::Done)));
        assert!(alive.lease(ID).is_some() && alive.lease_changes() == (vec![], vec![]));
        let mut over = draft(true);
        assert!(matches!(settle(&mut over, &Work::KeepAlive(ID), &mut Vec::new()), Err(Error::LeaseNotFound { .. })));
        assert!(matches!(settle(&mut over, &Work::Expire(ID), &mut Vec::new()), Ok(Outcome::Revision(_))));
        assert_eq!(over.lease_changes(), (vec![], vec![ID]));
    }

    #[test]
    fn one_batch_may_grant_and_revoke_the_same_lease() {
        let mut draft = draft(false);
        let mut does = |work: Work| settle(&mut draft, &work, &mut Vec::new());
        assert!(matches!(does(Work::Grant { ttl_seconds: 5, id: ID }), Err(Error::LeaseExists { .. })));
        assert!(matches!(does(Work::Revoke(ID)), Ok(Outcome::Revision(_))));
        assert!(matches!(does(Work::KeepAlive(ID)), Err(Error::LeaseNotFound { .. })));
        assert!(matches!(does(Work::Grant { ttl_seconds: 5, id: ID }), Ok(Outcome::Lease(_))));
        assert_eq!(draft.lease_changes(), (vec![(ID, 5)], vec![]));
    }
}
