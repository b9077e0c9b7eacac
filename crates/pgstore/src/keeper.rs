//! Keeps the house for all processes, in one of them: the one whose session holds an advisory lock.
//!
//! Leases that ran out are handed to the writer, which looks again under the lock. Rows that a compaction gave up are
//! deleted in small steps, each a transaction of its own; their space is the database's vacuum to reuse.

use std::sync::Arc;
use std::time::Duration;

use store::{Error, LeaseId, Revision};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::ToSql;

use crate::error::Failure;
use crate::session::{ANSWER_MAX, Backoff, Session};
use crate::shared::Shared;
use crate::sql;
use crate::writer::{Request, Work};

/// Between looks; a lease ends at most about this much late.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Leases ended at one look.
const LEASES_MAX: i64 = 256;

/// Rows deleted in one step: some milliseconds of work.
const RECLAIM_ROWS: i64 = 2000;

/// Between steps, so that callers come first.
const RECLAIM_PAUSE: Duration = Duration::from_millis(10);

pub struct Keeper {
    shared: Arc<Shared>,
    /// Not kept alive by this task: the writer ends when the store is closed.
    queue: mpsc::WeakSender<Request>,
}

impl Keeper {
    pub fn new(shared: Arc<Shared>, queue: mpsc::WeakSender<Request>) -> Self {
        Self { shared, queue }
    }

    /// Until it is aborted, or the store is closed or broken.
    pub async fn run(self) {
        let mut backoff = Backoff::new();
        while self.shared.usable().is_ok() {
            backoff.wait().await;
            match self.shared.door.session().await {
                Ok(session) => {
                    backoff = Backoff::new();
                    match self.keep(&session).await {
                        Ok(()) => return,
                        Err(failure) => tracing::debug!(%failure, "leases and space wait for PostgreSQL"),
                    }
                }
                Err(failure) => tracing::debug!(%failure, "leases and space wait for PostgreSQL"),
            }
            backoff.failed();
        }
    }

    async fn keep(&self, session: &Session) -> Result<(), Failure> {
        // Another process may have left off in the middle, whatever it began with.
        let mut reclaimed = Revision::ZERO;
        let mut ours = false;
        loop {
            if !ours {
                let rows = session.ask(sql::KEEP_HOUSE, &[]).await?;
                ours = sql::column(sql::first(&rows)?, 0)?;
            }
            if ours {
                if self.end_leases(session).await?.is_none() {
                    return Ok(());
                }
                let rows = session.ask(sql::HEAD, &[]).await?;
                let compacted = sql::revision(sql::first(&rows)?, 1)?;
                if compacted > reclaimed {
                    if self.reclaim(session, compacted).await? {
                        tokio::time::sleep(RECLAIM_PAUSE).await;
                        continue;
                    }
                    reclaimed = compacted;
                }
            }
            tokio::select! {
                () = self.shared.compacted.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// `None`: the store was closed.
    async fn end_leases(&self, session: &Session) -> Result<Option<()>, Failure> {
        let rows = session.ask(&sql::RAN_OUT, &[&LEASES_MAX]).await?;
        let mut answers = Vec::with_capacity(rows.len());
        for row in &rows {
            let id = LeaseId(sql::column(row, 0)?);
            let Some(queue) = self.queue.upgrade() else { return Ok(None) };
            let (reply, answer) = oneshot::channel();
            if queue.try_send(Request { work: Work::Expire(id), reply }).is_err() {
                break;
            }
            answers.push((id, answer));
        }
        for (id, answer) in answers {
            match tokio::time::timeout(ANSWER_MAX, answer).await {
                Ok(Ok(Ok(_) | Err(Error::LeaseNotFound { .. }))) => {}
                Ok(Ok(Err(error))) => {
                    tracing::warn!(%id, %error, "the keys of a lease that ran out could not be deleted yet");
                }
                Ok(Err(_)) => return Ok(None),
                Err(_) => return Err(Failure::timed_out()),
            }
        }
        Ok(Some(()))
    }

    /// One step; answers whether there may be more.
    async fn reclaim(&self, session: &Session, compacted: Revision) -> Result<bool, Failure> {
        let statement = session.prepared(sql::RECLAIM).await?;
        let compacted = sql::number(compacted.0);
        let parameters: [&(dyn ToSql + Sync); 2] = [&compacted, &RECLAIM_ROWS];
        let deleting = session.execute(&statement, &parameters);
        let deleted = tokio::time::timeout(ANSWER_MAX, deleting).await.map_err(|_| Failure::timed_out())??;
        Ok(deleted == RECLAIM_ROWS as u64)
    }
}
