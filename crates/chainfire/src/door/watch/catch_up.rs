//! A watch on its own: it starts in the past, or was too slow for its group.

use std::sync::Arc;

use store::{Advance, Error, Revision, Store, WatchRequest, Watcher};

use super::group::{Ended, Told, together};
use super::queue::Serial;

pub enum From {
    Request(WatchRequest),
    Watcher(Watcher),
}

pub struct Step {
    pub serial: Serial,
    pub outcome: Outcome,
}

pub enum Outcome {
    /// Everything up to the revision has been taken; the group can go on.
    CaughtUp(Watcher, Revision),
    Told(Watcher, Told),
    Refused(Error),
}

/// One step forward. A step takes no more than is told at once, and the next is only made when that has been sent.
pub async fn step(store: Arc<dyn Store>, serial: Serial, from: From) -> Step {
    Step { serial, outcome: take(store, from).await.unwrap_or_else(Outcome::Refused) }
}

async fn take(store: Arc<dyn Store>, from: From) -> Result<Outcome, Error> {
    let mut watcher = match from {
        From::Request(request) => store.watch(request).await?,
        From::Watcher(watcher) => watcher,
    };
    let first = watcher.advance().await;
    if let Ok(Advance::CaughtUp(revision)) = first {
        return Ok(Outcome::CaughtUp(watcher, revision));
    }
    let told = together(first, &mut watcher).await;
    if let (true, Some(Ended::Failed(error))) = (told.batches.is_empty(), &told.ended) {
        return Err(error.clone());
    }
    Ok(Outcome::Told(watcher, told))
}
