//! All groups.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use store::{Error, Key, RangeEnd, Revision, Span, Store, WatchRequest};

use super::chunk::Recipient;
use super::group::{Group, Joined, Start, StreamId};
use super::queue::{Out, Queue};

/// Times that a group is opened anew because it ended, or its start was compacted, while it was opened.
const TRIES_MAX: usize = 16;

pub struct Hub {
    store: Arc<dyn Store>,
    groups: Mutex<HashMap<(Key, RangeEnd), Arc<Group>>>,
    streams: AtomicU64,
    itself: Weak<Hub>,
}

impl Hub {
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            store,
            groups: Mutex::default(),
            streams: AtomicU64::new(0),
            itself: itself.clone(),
        })
    }

    pub fn next_stream(&self) -> StreamId {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a watch into the group of its keys, which is opened when there is none. `None`: the group is past its start
    /// already. `created` is called once at most, and only when the watch is in the group.
    pub async fn join(
        &self,
        span: &Span,
        stream: StreamId,
        queue: &Arc<Queue>,
        to: Recipient,
        start: Start,
        created: impl Fn(Revision) -> Option<Out>,
    ) -> Result<Option<Arc<Group>>, Error> {
        let key = (span.start.clone(), span.end.clone());
        for _ in 0..TRIES_MAX {
            let known = self.groups.lock().get(&key).cloned();
            if let Some(group) = known {
                match group.join(stream, queue, to, start, &created) {
                    Joined::In => return Ok(Some(group)),
                    Joined::Missed => return Ok(None),
                    Joined::Ended => self.forget(&group),
                }
            }
            let next = self.store.status().await?.revision.next();
            let from = match start {
                Start::After(newest) => next.max(newest.next()),
                Start::At(from) => from.min(next),
            };
            let request =
                WatchRequest { start: span.start.clone(), end: span.end.clone(), from: Some(from), previous: true };
            let watcher = match self.store.watch(request).await {
                Ok(watcher) => watcher,
                Err(Error::Compacted { .. }) if matches!(start, Start::After(_)) => continue,
                Err(error) => return Err(error),
            };
            let group = Group::new(span.clone(), from);
            // It is joined before anybody else can see it, so that it is not empty when they do.
            if !matches!(group.join(stream, queue, to, start, |_| None), Joined::In) {
                continue;
            }
            let mut groups = self.groups.lock();
            if groups.contains_key(&key) {
                continue;
            }
            if let Some(created) = created(from.before()) {
                queue.say(created);
            }
            group.start(self.store.clone(), watcher, self.itself.clone());
            groups.insert(key, group.clone());
            return Ok(Some(group));
        }
        Err(Error::Overloaded)
    }

    /// Ends the group when nobody is in it.
    pub fn sweep(&self, group: &Arc<Group>) {
        let key = (group.span.start.clone(), group.span.end.clone());
        let mut groups = self.groups.lock();
        if group.end_if_empty() && groups.get(&key).is_some_and(|known| Arc::ptr_eq(known, group)) {
            groups.remove(&key);
        }
    }

    fn forget(&self, group: &Arc<Group>) {
        let key = (group.span.start.clone(), group.span.end.clone());
        let mut groups = self.groups.lock();
        if groups.get(&key).is_some_and(|known| Arc::ptr_eq(known, group)) {
            groups.remove(&key);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for group in self.groups.lock().values() {
            group.stop();
        }
    }
}
