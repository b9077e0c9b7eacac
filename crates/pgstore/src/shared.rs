//! What the tasks of one store have in common.

use std::sync::{Arc, OnceLock};

use store::feed::Feed;
use store::{Error, Revision};
use tokio::sync::Notify;

use crate::error::Failure;
use crate::pool::Pool;
use crate::session::Door;

pub struct Shared {
    pub door: Arc<Door>,
    pub pool: Pool,
    pub feed: Arc<Feed>,
    /// Wakes the keeper: something was compacted.
    pub compacted: Notify,
    broken: OnceLock<Error>,
}

impl Shared {
    pub fn new(door: Arc<Door>, newest: Revision) -> Self {
        let pool = Pool::new(door.clone());
        Self { door, pool, feed: Feed::new(newest), compacted: Notify::new(), broken: OnceLock::new() }
    }

    /// `known` was read from the feed before `newest` was from the database. A database that went back, because a
    /// backup was restored or a standby that lacked commits took over, has another history than the one that was told
    /// to callers and watchers: this store ends rather than tell them both.
    pub fn check(&self, known: Revision, newest: Revision) -> Result<(), Error> {
        self.usable()?;
        if newest >= known {
            return Ok(());
        }
        let failure = Failure::broken(format!("the database went back from revision {known} to {newest}"));
        tracing::error!(%failure, "the store ends");
        let error = self.broken.get_or_init(|| failure.before("go on with this database")).clone();
        self.feed.close();
        Err(error)
    }

    pub fn usable(&self) -> Result<(), Error> {
        self.broken.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}
