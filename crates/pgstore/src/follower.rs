//! The one task of a process that tells its watchers what was committed, by this process or another.
//!
//! Revisions are taken from the writer of this process when it has just committed the next ones, else from the table:
//! when a notification names a newer one, and every now and then, so that a notification that is lost only delays.
//!
//! ```text
//!   connect, LISTEN ──▶ read up to the newest ──▶ wait: commit here, notification, timer ──▶ ...
//!       ▲                                           │ connection lost
//!       └───────────────(backoff)───────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::{Batch, Error, RangeEnd, Revision, Span};
use tokio::sync::mpsc;

use crate::error::Failure;
use crate::past::Question;
use crate::session::{Backoff, Session};
use crate::shared::Shared;
use crate::sql;

/// Between looks at the table when nothing is heard.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub struct Follower {
    shared: Arc<Shared>,
    told: mpsc::Receiver<Vec<Batch>>,
}

impl Follower {
    pub fn new(shared: Arc<Shared>, told: mpsc::Receiver<Vec<Batch>>) -> Self {
        Self { shared, told }
    }

    /// Until it is aborted, or the store is broken.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        while self.shared.usable().is_ok() {
            self.wait(&backoff).await;
            match self.listen().await {
                Ok(session) => {
                    backoff = Backoff::new();
                    if let Err(failure) = self.follow(session).await {
                        tracing::warn!(%failure, "watchers wait for PostgreSQL");
                    }
                    backoff.failed();
                }
                Err(failure) => {
                    tracing::debug!(%failure, "PostgreSQL cannot be listened to yet");
                    backoff.failed();
                }
            }
        }
    }

    /// What is committed here meanwhile is told all the same.
    async fn wait(&mut self, backoff: &Backoff) {
        let waiting = backoff.wait();
        tokio::pin!(waiting);
        loop {
            tokio::select! {
                () = &mut waiting => return,
                Some(batches) = self.told.recv() => {
                    self.publish(batches);
                }
            }
        }
    }

    async fn listen(&self) -> Result<Session, Failure> {
        let session = self.shared.door.session().await?;
        session.run(&format!("LISTEN \"{}\"", self.shared.door.channel())).await?;
        Ok(session)
    }

    async fn follow(&mut self, session: Session) -> Result<(), Failure> {
        let mut heard = session.heard.clone();
        loop {
            if self.catch_up(&session).await?.is_err() {
                return Ok(());
            }
            loop {
                let look = tokio::select! {
                    batches = self.told.recv() => match batches {
                        Some(batches) => !self.publish(batches),
                        // The writer is gone; the store is being closed.
                        None => return Ok(()),
                    },
                    changed = heard.changed() => {
                        changed.map_err(|_| Failure::gone("the connection is lost"))?;
                        *heard.borrow_and_update() > self.shared.feed.newest().0
                    }
                    () = tokio::time::sleep(LOOK_EVERY) => true,
                };
                if look {
                    break;
                }
            }
        }
    }

    /// Publishes those that come next; answers whether some before them are missing.
    fn publish(&self, batches: Vec<Batch>) -> bool {
        for batch in batches {
            let next = self.shared.feed.newest().next();
            if batch.revision > next {
                return false;
            }
            if batch.revision == next {
                self.shared.feed.publish(batch);
            }
        }
        true
    }

    /// Reads what the feed does not have yet. The inner error: the store is broken.
    async fn catch_up(&self, session: &Session) -> Result<Result<(), Error>, Failure> {
        let everything = Span::new(Bytes::new(), RangeEnd::Unbounded);
        let feed = &self.shared.feed;
        loop {
            let known = feed.newest();
            let question = Question::new(&everything, true, known.next(), Revision(u64::MAX));
            let rows = session.ask(&sql::HISTORY, &question.parameters()).await?;
            let found = question.found(&rows)?;
            if let Err(error) = self.shared.check(known, found.newest) {
                return Ok(Err(error));
            }
            if known.next() < found.compacted {
                // Others compacted what this process had not heard of yet, while it was cut off.
                feed.skip(found.compacted.before());
                continue;
            }
            for batch in found.page.batches {
                if batch.revision != feed.newest().next() {
                    let (missing, got) = (feed.newest().next(), batch.revision);
                    return Err(Failure::broken(format!("revision {missing} is missing before {got}")));
                }
                feed.publish(batch);
            }
            if feed.newest() >= found.newest {
                return Ok(Ok(()));
            }
        }
    }
}
