//! Recent revisions in memory, and who waits for them.
//!
//! A watcher is a cursor, not a queue: it owns no buffer that could overflow. It takes revisions from the feed while the
//! feed has them and from the engine's history when it has not.
//!
//! ```text
//!   engine ── publish ──▶ feed (the last few thousand revisions) ──┐
//!     │                     └─ wakes the watchers it touches       ├──▶ cursor ──▶ caller
//!     └────── history (until compacted) ───────────────────────────┘
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::limits::{FEED_BATCHES_MAX, FEED_BYTES_MAX};
use crate::{Advance, Batch, Error, Key, RangeEnd, Revision, Span, WatchEvent, WatchRequest, WatchSource, Watcher};

/// Revisions that a cursor takes from the feed at once.
const TAKE_MAX: usize = 256;

/// Revisions that are no longer in the feed.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// Batches of `span` from revision `from` up to `to`, both inclusive, and the revision to go on with. May stop
    /// early at a limit of its own, but makes progress. Errors: [`Error::Compacted`], [`Error::Closed`].
    async fn read(&self, span: &Span, previous: bool, from: Revision, to: Revision) -> Result<Page, Error>;
}

#[derive(Debug)]
pub struct Page {
    pub batches: Vec<Batch>,
    pub next: Revision,
}

pub struct Feed {
    inner: Mutex<Inner>,
}

struct Inner {
    newest: Revision,
    /// Without gaps, the last one is `newest`; may be empty.
    recent: VecDeque<Arc<Batch>>,
    bytes: usize,
    closed: bool,
    watchers: HashMap<u64, Waiting>,
    single: HashMap<Key, Vec<u64>>,
    wide: Vec<u64>,
    next_id: u64,
}

struct Waiting {
    span: Span,
    /// First revision that touches the span and that the cursor has not taken. Everything before it may be skipped.
    pending: Option<Revision>,
    wake: Arc<Notify>,
}

enum Taken {
    Batches(Vec<Arc<Batch>>, Revision),
    /// Read history from the first to the second.
    Behind(Revision, Revision),
    Wait,
    Closed,
}

fn weight(batch: &Batch) -> usize {
    const EVENT_BYTES: usize = 256;
    let bytes = |event: &WatchEvent| {
        EVENT_BYTES + event.kv.key.len() + event.kv.value.len() + event.previous.as_ref().map_or(0, |kv| kv.value.len())
    };
    batch.events.iter().map(bytes).sum()
}

/// What `span` sees of a revision; `None` when nothing.
pub fn narrow(batch: &Batch, span: &Span, previous: bool) -> Option<Batch> {
    let seen = batch.events.iter().filter(|event| span.contains(&event.kv.key));
    let events: Vec<WatchEvent> = seen
        .map(|event| WatchEvent {
            kind: event.kind,
            kv: event.kv.clone(),
            previous: event.previous.clone().filter(|_| previous),
        })
        .collect();
    (!events.is_empty()).then_some(Batch { revision: batch.revision, events })
}

impl Feed {
    pub fn new(newest: Revision) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                newest,
                recent: VecDeque::new(),
                bytes: 0,
                closed: false,
                watchers: HashMap::new(),
                single: HashMap::new(),
                wide: Vec::new(),
                next_id: 0,
            }),
        })
    }

    pub fn newest(&self) -> Revision {
        self.inner.lock().newest
    }

    pub fn watchers(&self) -> usize {
        self.inner.lock().watchers.len()
    }

    /// Batches come in order, one for each revision, with previous rows.
    pub fn publish(&self, batch: Batch) {
        let inner = &mut *self.inner.lock();
        assert_eq!(batch.revision, inner.newest.next(), "revisions are published in order, none left out");
        inner.newest = batch.revision;
        inner.wake(&batch);
        inner.bytes += weight(&batch);
        inner.recent.push_back(Arc::new(batch));
        while inner.bytes > FEED_BYTES_MAX || inner.recent.len() > FEED_BATCHES_MAX {
            let Some(oldest) = inner.recent.pop_front() else { break };
            inner.bytes -= weight(&oldest);
        }
    }

    /// Goes on after `newest`, for an engine that was cut off while others went on and can no longer tell everything up
    /// to there. Watchers that had taken everything turn to history, which knows whether they missed something.
    pub fn skip(&self, newest: Revision) {
        let inner = &mut *self.inner.lock();
        let next = inner.newest.next();
        if newest < next {
            return;
        }
        inner.newest = newest;
        inner.recent.clear();
        inner.bytes = 0;
        for watcher in inner.watchers.values_mut() {
            watcher.pending.get_or_insert(next);
            watcher.wake.notify_one();
        }
    }

    /// Watchers that have taken everything end.
    pub fn close(&self) {
        let inner = &mut *self.inner.lock();
        inner.closed = true;
        for watcher in inner.watchers.values() {
            watcher.wake.notify_one();
        }
    }

    /// `request` is admitted, and its start is not compacted.
    pub fn watch(self: &Arc<Self>, request: WatchRequest, history: Arc<dyn History>) -> Watcher {
        let WatchRequest { start, end, from, previous } = request;
        let span = Span::new(start, end);
        let inner = &mut *self.inner.lock();
        let next = from.unwrap_or(inner.newest.next()).max(Revision::FIRST);
        let id = inner.next_id;
        inner.next_id += 1;
        match span.end {
            RangeEnd::Single => inner.single.entry(span.start.clone()).or_default().push(id),
            RangeEnd::Exclusive(_) | RangeEnd::Unbounded => inner.wide.push(id),
        }
        let wake = Arc::new(Notify::new());
        let pending = (next <= inner.newest).then_some(next);
        inner.watchers.insert(id, Waiting { span: span.clone(), pending, wake: wake.clone() });
        Watcher::new(Cursor {
            feed: self.clone(),
            history,
            id,
            span,
            previous,
            next,
            ready: VecDeque::new(),
            wake,
            ended: false,
        })
    }

    fn take(&self, id: u64, next: Revision) -> Taken {
        let inner = &mut *self.inner.lock();
        let Some(watcher) = inner.watchers.get_mut(&id) else { return Taken::Closed };
        let Some(pending) = watcher.pending else {
            return if inner.closed { Taken::Closed } else { Taken::Wait };
        };
        let next = next.max(pending);
        if next > inner.newest {
            watcher.pending = None;
            return if inner.closed { Taken::Closed } else { Taken::Wait };
        }
        let oldest = inner.recent.front().map_or(inner.newest.next(), |batch| batch.revision);
        if next < oldest {
            return Taken::Behind(next, oldest.before());
        }
        let skip = (next.0 - oldest.0) as usize;
        let batches: Vec<_> = inner.recent.iter().skip(skip).take(TAKE_MAX).cloned().collect();
        let next = Revision(next.0 + batches.len() as u64);
        watcher.pending = (next <= inner.newest).then_some(next);
        Taken::Batches(batches, next)
    }

    /// The newest revision, when nothing waits to be taken by the watcher, which has taken everything before `next`.
    fn idle(&self, id: u64, next: Revision) -> Option<Revision> {
        let inner = &mut *self.inner.lock();
        let watcher = inner.watchers.get_mut(&id)?;
        if next > inner.newest {
            watcher.pending = None;
        }
        watcher.pending.is_none().then_some(inner.newest)
    }

    fn forget(&self, id: u64) {
        let inner = &mut *self.inner.lock();
        let Some(watcher) = inner.watchers.remove(&id) else { return };
        if watcher.span.end == RangeEnd::Single {
            if let Some(ids) = inner.single.get_mut(&watcher.span.start) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    inner.single.remove(&watcher.span.start);
                }
            }
        } else {
            inner.wide.retain(|other| *other != id);
        }
    }
}

impl Inner {
    fn wake(&mut self, batch: &Batch) {
        let Self { watchers, single, wide, .. } = self;
        let mut touch = |id: &u64, events: &[WatchEvent]| {
            if let Some(watcher) = watchers.get_mut(id)
                && watcher.pending.is_none()
                && events.iter().any(|event| watcher.span.contains(&event.kv.key))
            {
                watcher.pending = Some(batch.revision);
                watcher.wake.notify_one();
            }
        };
        for event in &batch.events {
            if let Some(ids) = single.get(&event.kv.key) {
                for id in ids {
                    touch(id, std::slice::from_ref(event));
                }
            }
        }
        for id in wide.iter() {
            touch(id, &batch.events);
        }
    }
}

struct Cursor {
    feed: Arc<Feed>,
    history: Arc<dyn History>,
    id: u64,
    span: Span,
    previous: bool,
    /// First revision not yet in `ready`.
    next: Revision,
    ready: VecDeque<Batch>,
    wake: Arc<Notify>,
    ended: bool,
}

#[async_trait]
impl WatchSource for Cursor {
    async fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            match self.take().await? {
                Some(Advance::Batch(batch)) => return Ok(Some(batch)),
                Some(Advance::Closed) => return Ok(None),
                Some(Advance::CaughtUp(_)) => self.wake.notified().await,
                None => {}
            }
        }
    }

    fn progress(&mut self) -> Option<Revision> {
        if self.ended || !self.ready.is_empty() {
            return None;
        }
        let newest = self.feed.idle(self.id, self.next)?;
        // A watch from a future revision has not come to its start yet; what it was told so far is still everything.
        self.next = self.next.max(newest.next());
        Some(newest)
    }

    async fn advance(&mut self) -> Result<Advance, Error> {
        loop {
            if let Some(advance) = self.take().await? {
                return Ok(advance);
            }
        }
    }
}

impl Cursor {
    /// One step; `None` when another one shows what there is. Cancel safe.
    async fn take(&mut self) -> Result<Option<Advance>, Error> {
        if let Some(batch) = self.ready.pop_front() {
            return Ok(Some(Advance::Batch(batch)));
        }
        if self.ended {
            return Ok(Some(Advance::Closed));
        }
        match self.feed.take(self.id, self.next) {
            Taken::Batches(batches, next) => {
                let seen = batches.iter().filter_map(|batch| narrow(batch, &self.span, self.previous));
                self.ready.extend(seen);
                self.next = next;
            }
            Taken::Behind(from, to) => match self.history.read(&self.span, self.previous, from, to).await {
                Ok(page) => {
                    self.ready.extend(page.batches);
                    self.next = page.next;
                }
                Err(Error::Closed) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            },
            Taken::Wait => return Ok(self.progress().map(Advance::CaughtUp)),
            Taken::Closed => self.ended = true,
        }
        Ok(None)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.feed.forget(self.id);
    }
}
