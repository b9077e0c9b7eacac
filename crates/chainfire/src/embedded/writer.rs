//! The one thread that writes.
//!
//! It takes everything that waits, applies it in order in one transaction of the storage engine, each request on top
//! of the ones before it, and commits once. Only then are watchers told and callers answered, so nobody ever hears of
//! something that a power cut could take back.
//!
//! ```text
//!   wait ──▶ room on the disk? ──▶ apply each ──▶ commit (fsync) ──▶ feed ──▶ answers ──▶ wait
//!                                      │            │ failed
//!                                      └────────────┴──▶ open again, ask the disk what it has ──▶ errors as answers
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use redb::Durability;
use store::apply::{self, Applied, State};
use store::{Batch, Error, Lease, LeaseId, RangeEnd, Revision, Span, Txn, TxnAnswer, WatchEvent, admit};
use tokio::sync::{mpsc, oneshot};

use super::fault::{Fault, contained};
use super::past;
use super::place::Place;
use super::reclaim::Reclaim;
use super::room::Room;
use super::shared::Shared;
use super::tables::{Draft, META_COMPACTED, META_LEASE_LAST, mark};

/// Requests that may wait; more callers wait for a place.
pub const QUEUE_MAX: usize = 4096;

/// Requests in one commit.
const BATCH_MAX: usize = 1024;

/// Bytes of requests after which no more are taken into a commit.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

type Reply<T> = oneshot::Sender<Result<T, Error>>;

pub enum Request {
    Txn(Txn, Reply<TxnAnswer>),
    Grant { ttl_seconds: u64, id: Option<LeaseId>, reply: Reply<Lease> },
    Revoke(LeaseId, Reply<Revision>),
    Compact(Revision, Reply<()>),
}

/// A request that was applied, but not answered yet.
enum Settled {
    Txn(Reply<TxnAnswer>, Result<TxnAnswer, Error>),
    Grant(Reply<Lease>, Result<Lease, Error>),
    Revoke(LeaseId, Reply<Revision>, Result<Revision, Error>),
    Compact(Reply<()>, Result<(), Error>),
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Self::Txn(txn, _) => admit::bytes(txn),
            Self::Grant { .. } | Self::Revoke(..) | Self::Compact(..) => 0,
        }
    }

    fn fits(&self, room: Room) -> bool {
        match (room, self) {
            (Room::Enough, _) | (Room::Tight, Self::Revoke(..) | Self::Compact(..)) => true,
            (Room::Tight, Self::Grant { .. }) => false,
            (Room::Tight, Self::Txn(txn, _)) => !admit::may_put(txn),
        }
    }

    fn refuse(self, error: Error) {
        // Whoever asked may have gone; that is theirs to decide.
        match self {
            Self::Txn(_, reply) => drop(reply.send(Err(error))),
            Self::Grant { reply, .. } => drop(reply.send(Err(error))),
            Self::Revoke(_, reply) => drop(reply.send(Err(error))),
            Self::Compact(_, reply) => drop(reply.send(Err(error))),
        }
    }
}

impl Settled {
    fn fail(self, error: Error) {
        match self {
            Self::Txn(reply, _) => drop(reply.send(Err(error))),
            Self::Grant(reply, _) => drop(reply.send(Err(error))),
            Self::Revoke(_, reply, _) => drop(reply.send(Err(error))),
            Self::Compact(reply, _) => drop(reply.send(Err(error))),
        }
    }
}

pub struct Writer {
    shared: Arc<Shared>,
    place: Box<dyn Place>,
    queue: mpsc::Receiver<Request>,
    reclaim: Reclaim,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, place: Box<dyn Place>, queue: mpsc::Receiver<Request>, reclaim: Reclaim) -> Self {
        Self { shared, place, queue, reclaim }
    }

    /// Until every sender is gone and all they sent is done.
    pub fn run(mut self) {
        loop {
            let first = if self.reclaim.pending() {
                match self.queue.try_recv() {
                    Ok(request) => Some(request),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    Err(mpsc::error::TryRecvError::Disconnected) => break,
                }
            } else {
                match self.queue.blocking_recv() {
                    Some(request) => Some(request),
                    None => break,
                }
            };
            self.batch(first);
        }
        self.shared.feed.close();
        *self.shared.database.write() = Err(Error::Closed);
    }

    fn take(&mut self, first: Option<Request>) -> Vec<Request> {
        let mut requests: Vec<_> = first.into_iter().collect();
        let mut bytes: usize = requests.iter().map(Request::bytes).sum();
        while requests.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(request) = self.queue.try_recv() else { break };
            bytes += request.bytes();
            requests.push(request);
        }
        requests
    }

    fn batch(&mut self, first: Option<Request>) {
        let requests = self.take(first);
        let room = self.place.room();
        let (fitting, refused): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| request.fits(room));
        for request in refused {
            request.refuse(Error::DiskFull);
        }
        if fitting.is_empty() && !self.reclaim.pending() {
            return;
        }
        let mut requests = VecDeque::from(fitting);
        let mut settled = Vec::with_capacity(requests.len());
        let committed = self
            .reopen_if_failed()
            .and_then(|()| contained(&self.shared.path, || self.commit(&mut requests, &mut settled)));
        match committed {
            Ok(Committed { batches, reclaim }) => {
                self.reclaim = reclaim;
                for batch in batches {
                    self.shared.feed.publish(batch);
                }
                for settled in settled {
                    self.answer(settled);
                }
            }
            Err(error) => {
                // The next compaction or restart takes it up again.
                self.reclaim = Reclaim::default();
                let error = self.recover(error);
                for settled in settled {
                    settled.fail(error.clone());
                }
                for request in requests {
                    request.refuse(error.clone());
                }
            }
        }
    }

    /// Moves requests to `settled` as it applies them, then commits. After an error nothing was applied, unless it was
    /// the commit itself that failed: then only the disk knows.
    fn commit(&self, requests: &mut VecDeque<Request>, settled: &mut Vec<Settled>) -> Result<Committed, Error> {
        let database = self.shared.database.read();
        let database = database.as_ref().map_err(Error::clone)?;
        let mut transaction = database.begin_write().fault("begin to write")?;
        transaction.set_durability(Durability::Immediate).fault("ask for durability")?;
        let mut committed = Committed { batches: Vec::new(), reclaim: self.reclaim };
        let mut changed = false;
        let mut draft = Draft::open(&transaction)?;
        while let Some(request) = requests.pop_front() {
            changed |= settle(&mut draft, request, settled, &mut committed.batches)?;
        }
        if settled.iter().any(|settled| matches!(settled, Settled::Compact(_, Ok(())))) {
            committed.reclaim.start();
        }
        if committed.reclaim.pending() {
            committed.reclaim = committed.reclaim.step(&mut draft)?;
            changed = true;
        }
        drop(draft);
        if changed {
            transaction.commit().fault("commit")?;
        } else {
            transaction.abort().fault("end a transaction that changed nothing")?;
        }
        Ok(committed)
    }

    fn answer(&self, settled: Settled) {
        // Whoever asked may have gone; that is theirs to decide.
        match settled {
            Settled::Txn(reply, answer) => drop(reply.send(answer)),
            Settled::Grant(reply, answer) => {
                if let Ok(lease) = &answer {
                    self.shared.lessor.insert(*lease);
                }
                drop(reply.send(answer));
            }
            Settled::Revoke(id, reply, answer) => {
                if matches!(answer, Ok(_) | Err(Error::LeaseNotFound { .. })) {
                    self.shared.lessor.remove(id);
                }
                drop(reply.send(answer));
            }
            Settled::Compact(reply, answer) => drop(reply.send(answer)),
        }
    }

    /// After a failed batch. A storage engine that met an I/O error refuses everything from then on, so it is opened
    /// anew, and the disk says what became of the batch. Answers the error for the callers.
    fn recover(&self, error: Error) -> Error {
        if matches!(error, Error::Corrupt { .. } | Error::Closed) {
            return error;
        }
        tracing::warn!(%error, "a commit failed; opening the database again");
        *self.shared.database.write() = Err(error.clone());
        let before = self.shared.feed.newest();
        match self.reopen_if_failed() {
            Ok(()) if self.shared.feed.newest() == before => error,
            // It happened after all, or nobody can tell: not a refusal.
            Ok(()) | Err(_) => Error::storage("say whether a commit happened", error),
        }
    }

    fn reopen_if_failed(&self) -> Result<(), Error> {
        let error = match &*self.shared.database.read() {
            Ok(_) => return Ok(()),
            Err(error) => error.clone(),
        };
        if matches!(error, Error::Closed) {
            return Err(error);
        }
        let database = self.place.open()?;
        *self.shared.database.write() = Ok(database);
        self.catch_up()
    }

    /// Tells watchers and leases what the disk has and they have not heard of.
    fn catch_up(&self) -> Result<(), Error> {
        let everything = Span::new(Bytes::new(), RangeEnd::Unbounded);
        self.shared.snapshot(|snapshot| {
            let mut next = self.shared.feed.newest().next();
            while next <= snapshot.newest {
                let page = past::read(snapshot, &everything, true, next, snapshot.newest)?;
                for batch in page.batches {
                    self.shared.feed.publish(batch);
                }
                next = page.next;
            }
            self.shared.lessor.replace(snapshot.leases()?);
            Ok(())
        })
    }
}

struct Committed {
    batches: Vec<Batch>,
    reclaim: Reclaim,
}

/// Whether an error leaves the draft as it was before the request.
fn is_clean(error: &Error) -> bool {
    error.is_refusal() && !matches!(error, Error::DiskFull)
}

/// Applies one request. Answers whether anything changed; an error means that the draft is lost.
fn settle(
    draft: &mut Draft<'_>,
    request: Request,
    settled: &mut Vec<Settled>,
    batches: &mut Vec<Batch>,
) -> Result<bool, Error> {
    let count = batches.len();
    let mut keep = |draft: &mut Draft<'_>, events: Vec<WatchEvent>| -> Result<(), Error> {
        if !events.is_empty() {
            let revision = draft.log(&events)?;
            batches.push(Batch { revision, events });
        }
        Ok(())
    };
    let (failure, written) = match request {
        Request::Txn(txn, reply) => {
            let answer = apply::apply(draft, &txn).and_then(|Applied { answer, events }| {
                keep(draft, events)?;
                Ok(answer)
            });
            let failure = answer.as_ref().err().cloned();
            settled.push(Settled::Txn(reply, answer));
            (failure, false)
        }
        Request::Grant { ttl_seconds, id, reply } => {
            let answer = grant(draft, ttl_seconds, id);
            let failure = answer.as_ref().err().cloned();
            settled.push(Settled::Grant(reply, answer));
            (failure, true)
        }
        Request::Revoke(id, reply) => {
            let answer = revoke(draft, id).and_then(|Applied { answer, events }| {
                keep(draft, events)?;
                Ok(answer)
            });
            let failure = answer.as_ref().err().cloned();
            settled.push(Settled::Revoke(id, reply, answer));
            (failure, true)
        }
        Request::Compact(revision, reply) => {
            let answer = compact(draft, revision);
            let failure = answer.as_ref().err().cloned();
            settled.push(Settled::Compact(reply, answer));
            (failure, true)
        }
    };
    match failure {
        Some(error) if is_clean(&error) => Ok(false),
        Some(error) => Err(error),
        None => Ok(written || batches.len() > count),
    }
}

fn grant(draft: &mut Draft<'_>, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
    let id = match id {
        Some(id) if draft.lease_exists(id)? => return Err(Error::LeaseExists { id }),
        Some(id) => id,
        None => {
            let mut last = mark(&draft.meta, META_LEASE_LAST)?.unwrap_or(0);
            let id = loop {
                last = if last >= i64::MAX as u64 { 1 } else { last + 1 };
                if !draft.lease_exists(LeaseId(last as i64))? {
                    break LeaseId(last as i64);
                }
            };
            draft.set_mark(META_LEASE_LAST, last)?;
            id
        }
    };
    draft.leases.insert(id.0, ttl_seconds).fault("write a lease")?;
    Ok(Lease { id, ttl_seconds })
}

fn revoke(draft: &mut Draft<'_>, id: LeaseId) -> Result<Applied<Revision>, Error> {
    if !draft.lease_exists(id)? {
        return Err(Error::LeaseNotFound { id });
    }
    let applied = apply::revoke(draft, id)?;
    draft.leases.remove(id.0).fault("remove a lease")?;
    Ok(applied)
}

fn compact(draft: &mut Draft<'_>, revision: Revision) -> Result<(), Error> {
    let (newest, compacted) = (draft.newest, draft.compacted);
    if revision > newest {
        return Err(Error::FutureRevision { asked: revision, newest });
    }
    if revision <= compacted {
        return Err(Error::Compacted { compacted });
    }
    draft.set_mark(META_COMPACTED, revision.0)?;
    draft.compacted = revision;
    Ok(())
}
