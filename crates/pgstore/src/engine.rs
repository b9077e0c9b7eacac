//! The store itself: what callers hold.

use std::sync::Arc;

use async_trait::async_trait;
use store::{
    Error, Lease, LeaseId, LeaseStatus, Range, RangeAnswer, Revision, Status, Store, Txn, TxnAnswer, WatchRequest,
    Watcher, admit, apply,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

use crate::address::Address;
use crate::draft::Draft;
use crate::error::{Failure, OpenError};
use crate::follower::Follower;
use crate::keeper::Keeper;
use crate::load::{Loaded, Stretches};
use crate::past::Past;
use crate::range;
use crate::session::Door;
use crate::shared::Shared;
use crate::sql;
use crate::wanted::Wanted;
use crate::writer::{Outcome, QUEUE_MAX, Request, TOLD_MAX, Work, Writer};

/// A store in a PostgreSQL database. Any number of them, in any number of processes, may have the same schema open.
///
/// Dropping it finishes what was asked in the background; [`Postgres::close`] waits for that. Watchers end.
pub struct Postgres {
    shared: Arc<Shared>,
    /// `None` while closing.
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    tasks: [AbortHandle; 2],
}

impl Postgres {
    /// Connects, makes the schema when it is missing, and starts what runs in the background. Needs a tokio runtime.
    ///
    /// Errors: everything that would never work is refused here, with a reason for whoever runs the database.
    pub async fn open(address: Address) -> Result<Self, OpenError> {
        let (door, newest) = Door::open(address).await?;
        let shared = Arc::new(Shared::new(Arc::new(door), newest));
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let (tell, told) = mpsc::channel(TOLD_MAX);
        let writer = tokio::spawn(Writer::new(shared.clone(), requests, tell).run());
        let follower = tokio::spawn(Follower::new(shared.clone(), told).run());
        let keeper = tokio::spawn(Keeper::new(shared.clone(), queue.downgrade()).run());
        let tasks = [follower.abort_handle(), keeper.abort_handle()];
        Ok(Self { shared, queue: Some(queue), writer: Some(writer), tasks })
    }

    /// Finishes what was asked.
    pub async fn close(mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so; there is nothing to add here.
            let _ = writer.await;
        }
    }

    async fn ask(&self, work: Work) -> Result<Outcome, Error> {
        self.shared.usable()?;
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue.try_send(Request { work, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// A transaction that cannot change anything needs no lock: one snapshot is enough.
    async fn read(&self, txn: &Txn) -> Result<TxnAnswer, Error> {
        const ACT: &str = "read in a transaction";
        self.shared.usable()?;
        let known = self.shared.feed.newest();
        let mut wanted = Wanted::default();
        wanted.txn(txn, known);
        wanted.settle();
        let stretches = Stretches::of(&wanted);
        let rows = self.shared.pool.ask(ACT, &sql::LOAD, &stretches.parameters()).await?;
        let loaded = Loaded::of(&rows, &wanted).map_err(|failure| failure.reading(ACT))?;
        self.shared.check(known, loaded.newest)?;
        Ok(apply::apply(&mut Draft::new(wanted, loaded), txn)?.answer)
    }

    async fn head(&self, act: &'static str, text: &str) -> Result<tokio_postgres::Row, Error> {
        self.shared.usable()?;
        let known = self.shared.feed.newest();
        let row = self.shared.pool.ask(act, text, &[]).await?.into_iter().next();
        let row = row.ok_or_else(|| Failure::broken("table head is empty").reading(act))?;
        let newest = sql::revision(&row, 0).map_err(|failure| failure.reading(act))?;
        self.shared.check(known, newest)?;
        Ok(row)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.feed.close();
    }
}

fn unexpected(outcome: Outcome) -> Error {
    unreachable!("the writer answers each kind of work in kind, and not with {outcome:?}")
}

#[async_trait]
impl Store for Postgres {
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        admit::range(&range)?;
        range::answer(&self.shared, &range).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        admit::txn(&txn)?;
        if admit::reads_only(&txn) {
            return self.read(&txn).await;
        }
        match self.ask(Work::Txn(txn)).await? {
            Outcome::Txn(answer) => Ok(answer),
            other => Err(unexpected(other)),
        }
    }

    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error> {
        const ACT: &str = "begin a watch";
        admit::watch(&watch)?;
        let head = self.head(ACT, sql::HEAD).await?;
        let newest = sql::revision(&head, 0).map_err(|failure| failure.reading(ACT))?;
        let compacted = sql::revision(&head, 1).map_err(|failure| failure.reading(ACT))?;
        // The feed may not have heard of the newest yet: what this caller was answered counts.
        let from = watch.from.unwrap_or(newest.next());
        if from < compacted {
            return Err(Error::Compacted { compacted });
        }
        let watch = WatchRequest { from: Some(from), ..watch };
        Ok(self.shared.feed.watch(watch, Arc::new(Past(self.shared.clone()))))
    }

    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        let ttl_seconds = admit::lease(ttl_seconds, id)?;
        // From 1 up. That two are alike does not happen, and would be refused.
        let id = id.unwrap_or_else(|| LeaseId((world::random::number() >> 1).max(1) as i64));
        match self.ask(Work::Grant { ttl_seconds, id }).await? {
            Outcome::Lease(lease) => Ok(lease),
            other => Err(unexpected(other)),
        }
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        match self.ask(Work::KeepAlive(id)).await? {
            Outcome::Lease(lease) => Ok(lease),
            other => Err(unexpected(other)),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        match self.ask(Work::Revoke(id)).await? {
            Outcome::Revision(revision) => Ok(revision),
            other => Err(unexpected(other)),
        }
    }

    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        const ACT: &str = "read a lease";
        self.shared.usable()?;
        let rows = self.shared.pool.ask(ACT, &sql::TIME_TO_LIVE, &[&id.0]).await?;
        let row = rows.first().ok_or(Error::LeaseNotFound { id })?;
        let read = || {
            let (ttl, left): (i64, i64) = (sql::column(row, 0)?, sql::column(row, 1)?);
            let keys: Vec<&[u8]> = sql::column(row, 2)?;
            Ok(LeaseStatus {
                id,
                ttl_seconds: ttl.max(0) as u64,
                remaining_seconds: left.max(0) as u64,
                keys: keys.into_iter().map(bytes::Bytes::copy_from_slice).collect(),
            })
        };
        read().map_err(|failure: Failure| failure.reading(ACT))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        const ACT: &str = "list the leases";
        self.shared.usable()?;
        let rows = self.shared.pool.ask(ACT, &sql::LEASES, &[]).await?;
        let ids = rows.iter().map(|row| sql::column(row, 0).map(LeaseId));
        ids.collect::<Result<_, Failure>>().map_err(|failure| failure.reading(ACT))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.ask(Work::Compact(revision)).await.map(drop)
    }

    async fn status(&self) -> Result<Status, Error> {
        const ACT: &str = "read the status";
        let row = self.head(ACT, sql::STATUS).await?;
        let read = || {
            Ok(Status {
                revision: sql::revision(&row, 0)?,
                compacted: sql::revision(&row, 1)?,
                db_bytes: sql::column::<i64>(&row, 2)? as u64,
                engine: "postgres",
            })
        };
        read().map_err(|failure: Failure| failure.reading(ACT))
    }
}
