//! Watches of one stretch of keys, and the store's watcher that they share.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use store::{Advance, Batch, Error, Revision, Span, Store, WatchRequest, Watcher};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::chunk::{Chunk, Recipient};
use super::hub::Hub;
use super::queue::{Out, Queue, Serial};
use crate::door::refusal;

/// Revisions that are told together when they are there already, and their bytes.
const TOGETHER_MAX: usize = 256;
const TOGETHER_BYTES_MAX: usize = 64 * 1024;

pub type StreamId = u64;

/// Up to where has everything been told? The answer comes in the queue, behind what it is about.
pub struct Ask {
    pub queue: Arc<Queue>,
    pub ticket: u64,
}

pub struct Group {
    pub span: Span,
    state: Mutex<State>,
    asked: Notify,
}

struct State {
    /// The last revision that was told.
    told: Revision,
    streams: HashMap<StreamId, Listening>,
    asks: Vec<Ask>,
    /// The task that feeds it; `None` before it is started and after it has ended.
    pump: Option<AbortHandle>,
    ended: bool,
}

struct Listening {
    queue: Arc<Queue>,
    watches: Vec<Recipient>,
}

/// What a watch wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Everything from now on; this revision, the newest known, has been.
    After(Revision),
    /// Everything from this revision on.
    At(Revision),
}

/// Whether a watch is in a group now.
pub enum Joined {
    In,
    /// The group is past the revision from which the watch wants everything.
    Missed,
    Ended,
}

impl Group {
    /// Watches from `from` on; the caller has made sure that nobody needs anything before it.
    pub fn new(span: Span, from: Revision) -> Arc<Self> {
        let told = from.before();
        let state = State { told, streams: HashMap::new(), asks: Vec::new(), pump: None, ended: false };
        Arc::new(Self { span, state: Mutex::new(state), asked: Notify::new() })
    }

    pub fn start(self: &Arc<Self>, store: Arc<dyn Store>, watcher: Watcher, hub: Weak<Hub>) {
        let task = tokio::spawn(pump(self.clone(), store, watcher, hub));
        self.state.lock().pump = Some(task.abort_handle());
    }

    /// `created` makes what the client is told first: the watch is there, and begins after this revision.
    pub fn join(
        &self,
        stream: StreamId,
        queue: &Arc<Queue>,
        mut to: Recipient,
        start: Start,
        created: impl FnOnce(Revision) -> Option<Out>,
    ) -> Joined {
        let state = &mut *self.state.lock();
        if state.ended {
            return Joined::Ended;
        }
        match start {
            Start::After(newest) => to.from = state.told.max(newest).next(),
            Start::At(from) if from <= state.told => return Joined::Missed,
            Start::At(from) => to.from = from,
        }
        // Under the lock, so that no event comes before it.
        if let Some(created) = created(to.from.before()) {
            queue.say(created);
        }
        let listening = state.streams.entry(stream);
        let listening = listening.or_insert_with(|| Listening { queue: queue.clone(), watches: Vec::new() });
        listening.watches.push(to);
        Joined::In
    }

    pub fn leave(&self, stream: StreamId, serial: Serial) {
        let state = &mut *self.state.lock();
        if let Some(listening) = state.streams.get_mut(&stream) {
            if let Some(at) = listening.watches.iter().position(|to| to.serial == serial) {
                listening.watches.swap_remove(at);
            }
            if listening.watches.is_empty() {
                state.streams.remove(&stream);
            }
        }
    }

    pub fn leave_all(&self, stream: StreamId) {
        self.state.lock().streams.remove(&stream);
    }

    /// Ends the group when nobody is in it.
    pub fn end_if_empty(&self) -> bool {
        let state = &mut *self.state.lock();
        if !state.streams.is_empty() {
            return false;
        }
        state.ended = true;
        if let Some(pump) = state.pump.take() {
            pump.abort();
        }
        true
    }

    pub fn stop(&self) {
        if let Some(pump) = self.state.lock().pump.take() {
            pump.abort();
        }
    }

    pub fn ask(&self, ask: Ask) {
        self.state.lock().asks.push(ask);
        self.asked.notify_one();
    }

    fn is_asked(&self) -> bool {
        !self.state.lock().asks.is_empty()
    }

    /// Everything up to `revision` has been told.
    fn answer(&self, revision: Revision) {
        let state = &mut *self.state.lock();
        let revision = revision.max(state.told);
        for Ask { queue, ticket } in state.asks.drain(..) {
            queue.say(Out::Progress { ticket, revision });
        }
    }

    /// Answers whether somebody is left.
    fn tell(&self, batches: Vec<Batch>) -> bool {
        let state = &mut *self.state.lock();
        let Some(chunk) = Chunk::new(batches).map(Arc::new) else { return true };
        state.told = chunk.last;
        state.streams.retain(|_, listening| {
            let taken = listening.queue.offer(&chunk, &listening.watches);
            listening.watches.truncate(taken);
            !listening.watches.is_empty()
        });
        !state.streams.is_empty()
    }

    /// The watcher has come to an end, and with it the group.
    fn end(&self, error: Option<&Error>) {
        let state = &mut *self.state.lock();
        state.ended = true;
        for listening in state.streams.values() {
            match error {
                Some(Error::Compacted { compacted }) => {
                    for to in &listening.watches {
                        listening.queue.say(Out::Compacted { serial: to.serial, compacted: *compacted });
                    }
                }
                Some(error) => listening.queue.say(Out::End(refusal::of(error.clone()))),
                None => listening.queue.say(Out::End(refusal::STOPPED.into())),
            }
        }
        state.streams.clear();
    }
}

async fn pump(group: Arc<Group>, store: Arc<dyn Store>, mut watcher: Watcher, hub: Weak<Hub>) {
    loop {
        let next = if group.is_asked() {
            let next = watcher.advance().await;
            if let Ok(Advance::CaughtUp(revision)) = next {
                group.answer(revision);
                continue;
            }
            next
        } else {
            tokio::select! {
                next = waiting(&mut watcher) => next,
                () = group.asked.notified() => continue,
            }
        };
        let Told { batches, ended } = together(next, &mut watcher).await;
        if !group.tell(batches)
            && let Some(hub) = hub.upgrade()
        {
            // Everybody was too slow. When somebody has come since, this goes on.
            hub.sweep(&group);
        }
        let error = match ended {
            None => continue,
            Some(Ended::Closed) => None,
            Some(Ended::Failed(Error::WatchLagged { resume })) => {
                let Span { start, end, .. } = group.span.clone();
                let request = WatchRequest { start, end, from: Some(resume), previous: true };
                match store.watch(request).await {
                    Ok(new) => {
                        watcher = new;
                        continue;
                    }
                    Err(error) => Some(error),
                }
            }
            Some(Ended::Failed(error)) => Some(error),
        };
        group.end(error.as_ref());
        if let Some(hub) = hub.upgrade() {
            hub.sweep(&group);
        }
        return;
    }
}

/// What a watcher had to tell at once.
pub struct Told {
    pub batches: Vec<Batch>,
    pub ended: Option<Ended>,
}

pub enum Ended {
    Closed,
    Failed(Error),
}

pub async fn waiting(watcher: &mut Watcher) -> Result<Advance, Error> {
    Ok(watcher.next().await?.map_or(Advance::Closed, Advance::Batch))
}

/// With what the watcher answered just now and those revisions after it that are there already.
pub async fn together(mut next: Result<Advance, Error>, watcher: &mut Watcher) -> Told {
    let mut told = Told { batches: Vec::new(), ended: None };
    let mut bytes = 0;
    loop {
        match next {
            Ok(Advance::Batch(batch)) => {
                bytes += batch.events.iter().map(|event| event.kv.key.len() + event.kv.value.len()).sum::<usize>();
                told.batches.push(batch);
            }
            Ok(Advance::CaughtUp(_)) => return told,
            Ok(Advance::Closed) => {
                told.ended = Some(Ended::Closed);
                return told;
            }
            Err(error) => {
                told.ended = Some(Ended::Failed(error));
                return told;
            }
        }
        if told.batches.len() >= TOGETHER_MAX || bytes >= TOGETHER_BYTES_MAX {
            return told;
        }
        next = watcher.advance().await;
    }
}
