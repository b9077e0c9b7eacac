//! What a watch asks for and how its events arrive.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Error, Key, KeyValue, Range, RangeEnd, Revision};

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WatchRequest {
    pub start: Key,
    pub end: RangeEnd,
    /// First revision to deliver, may be in the future; `None` is the one after the newest. An engine may refuse the
    /// compacted revision itself like those below it.
    pub from: Option<Revision>,
    /// Carry each key's row from before the revision, where it had one that is not compacted.
    pub previous: bool,
}

impl WatchRequest {
    pub fn key(key: impl Into<Key>) -> Self {
        Self { start: key.into(), ..Self::default() }
    }

    pub fn prefix(prefix: impl Into<Key>) -> Self {
        let Range { start, end, .. } = Range::prefix(prefix);
        Self { start, end, ..Self::default() }
    }

    #[must_use]
    pub fn from(mut self, revision: Revision) -> Self {
        self.from = Some(revision);
        self
    }

    #[must_use]
    pub fn previous(mut self) -> Self {
        self.previous = true;
        self
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum EventKind {
    Put,
    Delete,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchEvent {
    pub kind: EventKind,
    /// For a delete: the key, the delete's revision as `mod_revision`, everything else empty.
    pub kv: KeyValue,
    pub previous: Option<KeyValue>,
}

/// All events of one revision that the watch asked for; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    pub revision: Revision,
    /// In the order the transaction made them.
    pub events: Vec<WatchEvent>,
}

/// Where an engine's watch gets its batches.
#[async_trait]
pub trait WatchSource: Send + 'static {
    /// As [`Watcher::next`].
    async fn next(&mut self) -> Result<Option<Batch>, Error>;

    /// As [`Watcher::progress`].
    fn progress(&mut self) -> Option<Revision>;

    /// As [`Watcher::advance`]. This one looks every now and then whether something is still waiting.
    async fn advance(&mut self) -> Result<Advance, Error> {
        let mut wait = ADVANCE_LOOK_FIRST;
        loop {
            if let Some(revision) = self.progress() {
                return Ok(Advance::CaughtUp(revision));
            }
            if let Ok(next) = tokio::time::timeout(wait, self.next()).await {
                return Ok(next?.map_or(Advance::Closed, Advance::Batch));
            }
            // A read of history that takes longer than this wait must not be cut off for ever.
            wait *= 2;
        }
    }
}

/// The first of the looks of [`WatchSource::advance`]; each later one comes after twice the time.
const ADVANCE_LOOK_FIRST: Duration = Duration::from_millis(5);

/// What a watcher has at the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Advance {
    Batch(Batch),
    /// Nothing at or below the revision will ever come.
    CaughtUp(Revision),
    /// The store was closed.
    Closed,
}

/// Whole revisions, in commit order, each once, none skipped. Dropping it ends the watch.
pub struct Watcher {
    source: Box<dyn WatchSource>,
}

impl Watcher {
    pub fn new(source: impl WatchSource) -> Self {
        Self { source: Box::new(source) }
    }

    /// Waits for the next revision that touches the watched keys. `None`: the store was closed.
    ///
    /// A watcher may read as slowly as it likes: what is no longer in memory is read from history. Only when that was
    /// compacted too does it end, with [`Error::Compacted`] (read the range anew and watch from there); an engine that
    /// cannot go back ends it with [`Error::WatchLagged`] (watch again from `resume`). After an error it stays ended.
    ///
    /// Cancel safe: a batch is taken only when it is returned.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        self.source.next().await
    }

    /// As [`Watcher::next`], but does not wait for something to happen: when everything has been taken it says up to
    /// where. Cancel safe.
    pub async fn advance(&mut self) -> Result<Advance, Error> {
        self.source.advance().await
    }

    /// The newest revision up to which everything has been taken with [`Watcher::next`], so that nothing at or below it
    /// will ever come; `None` while something is waiting to be taken, or may be: what is waiting has to be read before
    /// it shows whether it is for this watcher. [`Watcher::advance`] reads it.
    pub fn progress(&mut self) -> Option<Revision> {
        self.source.progress()
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}
