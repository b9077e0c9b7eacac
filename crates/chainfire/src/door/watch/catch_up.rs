//! A watch on its own: it starts in the past, or was too slow for its group.

use std::sync::Arc;

use store::{Error, Revision, Store, WatchRequest, Watcher};

use super::group::{Ended, Told, together};
use super::queue::Serial;

pub enum From {
    Request(WatchRequest),
    /// Takes what comes next, waiting for it.
    Watcher(Watcher),
    /// Looks first whether everything has been taken.
    Idle(Watcher),
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

async fn take(store: Arc<dyn Store>, mut from: From) -> Result<Outcome, Error> {
    loop {
        let mut watcher = match from {
            From::Request(request) => {
                from = From::Idle(store.watch(request).await?);
                continue;
            }
            From::Idle(mut watcher) => match watcher.progress() {
                Some(revision) => return Ok(Outcome::CaughtUp(watcher, revision)),
                None => watcher,
            },
            From::Watcher(watcher) => watcher,
        };
        let next = watcher.next().await;
        let told = together(next, &mut watcher).await;
        if let (true, Some(Ended::Failed(error))) = (told.batches.is_empty(), &told.ended) {
            return Err(error.clone());
        }
        return Ok(Outcome::Told(watcher, told));
    }
}
