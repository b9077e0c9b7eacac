//! The log as Raft sees it: what was asked is true at once, the disk follows in the same order.

use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::fault::Failure;
use super::index::Index;
use super::marks::{Id, Marks, Vote};
use super::medium::{Medium, Pace};
use super::meter::Meter;
use super::scan::Recovered;
use super::tail::{Entry, Kept, Tail};
use super::{ENTRY_BYTES_MAX, Options, Room};
use crate::member::types::Types;

pub struct Shared {
    core: Mutex<Core>,
    /// Something waits for the writer.
    wake: Notify,
    /// The writer took what waited.
    taken: Notify,
    /// The writer is gone.
    pub ended: watch::Sender<bool>,
    pub meter: Meter,
    pub options: Options,
    pub pace: Pace,
    /// Until the log ended.
    medium: Mutex<Option<Arc<dyn Medium>>>,
}

pub struct Core {
    /// As asked.
    pub marks: Marks,
    /// The first entry that is there, or the next one.
    pub begin: u64,
    pub tail: Tail,
    /// As written; behind what was asked. Below the tail's first entry both are the same.
    pub index: Index,
    /// Entries of the tail below are in the index.
    pub written: u64,
    /// Counts truncations: what was asked for before the newest one says nothing about the entries of the tail.
    pub epoch: u64,
    waiting: Vec<Order>,
    waiting_bytes: usize,
    /// Another one than the writer knows of.
    committed_waits: bool,
    /// The writer looks again by itself before long.
    dozing: bool,
    pub room: Room,
    pub segments: usize,
    pub disk_bytes: u64,
    state: State,
}

#[derive(Clone)]
enum State {
    Open,
    Closing,
    Ended(Failure),
}

/// What the writer does, in the order in which it was asked.
pub struct Order {
    pub what: What,
    pub done: Done,
}

pub enum What {
    Append { entries: Vec<Arc<Kept>>, epoch: u64 },
    Mark { marks: Marks, sync: bool },
}

/// Whoever waits for an order. Told exactly once, also when the order is dropped.
pub struct Done(Option<Waiter>);

enum Waiter {
    Flushed(IOFlushed<Types>),
    Reply(oneshot::Sender<io::Result<()>>),
}

impl Done {
    pub fn tell(mut self, result: Result<(), &Failure>) {
        self.answer(result);
    }

    fn answer(&mut self, result: Result<(), &Failure>) {
        let result = result.map_err(Failure::to_io);
        match self.0.take() {
            Some(Waiter::Flushed(flushed)) => flushed.io_completed(result),
            // Whoever asked may have gone.
            Some(Waiter::Reply(reply)) => drop(reply.send(result)),
            None => {}
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.answer(Err(&Failure::abandoned()));
    }
}

/// What the writer found when it looked.
pub struct Batch {
    pub orders: Vec<Order>,
    pub committed: Option<Id>,
    pub closing: bool,
    /// Nothing came in time.
    pub late: bool,
}

/// Where the entries of a range are.
pub struct Plan {
    pub disk: Vec<super::index::Run>,
    pub memory: Vec<Arc<Kept>>,
}

impl Shared {
    /// Takes the index away from what was recovered.
    pub fn new(medium: Arc<dyn Medium>, options: Options, recovered: &mut Recovered) -> Self {
        let index = std::mem::take(&mut recovered.index);
        let marks = recovered.marks.clone();
        let next = marks.next();
        let again = recovered.again.first().map(|entry| entry.log_id.index);
        let core = Core {
            begin: index.first().or(again).unwrap_or(next).max(marks.first()),
            marks,
            tail: Tail::starting(next),
            index,
            written: next,
            epoch: 0,
            waiting: Vec::new(),
            waiting_bytes: 0,
            committed_waits: false,
            dozing: false,
            room: Room::Enough,
            segments: 0,
            disk_bytes: 0,
            state: State::Open,
        };
        Self {
            core: Mutex::new(core),
            wake: Notify::new(),
            taken: Notify::new(),
            ended: watch::Sender::new(false),
            meter: Meter::default(),
            options,
            pace: medium.pace(),
            medium: Mutex::new(Some(medium)),
        }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut Core) -> T) -> T {
        look(&mut self.core.lock())
    }

    fn ask(&self, change: impl FnOnce(&mut Core) -> io::Result<Order>) -> io::Result<()> {
        let mut core = self.core.lock();
        core.open()?;
        let order = change(&mut core)?;
        core.waiting.push(order);
        drop(core);
        self.wake.notify_one();
        Ok(())
    }

    /// Waits while too much waits already. The entries can be read when this returns.
    pub async fn append(&self, entries: Vec<Entry>, flushed: IOFlushed<Types>) -> io::Result<()> {
        let entries: Vec<_> = entries.into_iter().map(|entry| Arc::new(Kept::new(entry))).collect();
        let bytes: usize = entries.iter().map(|kept| kept.bytes).sum();
        if let Some(kept) = entries.iter().find(|kept| kept.bytes > ENTRY_BYTES_MAX) {
            let reason = format!("an entry has {} bytes, at most {ENTRY_BYTES_MAX} are allowed", kept.bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        loop {
            let taken = self.taken.notified();
            if self.with(|core| core.state.is_ended() || core.waiting_bytes < self.options.queue_bytes) {
                break;
            }
            taken.await;
        }
        self.ask(|core| {
            let mut marks = core.marks.clone();
            for kept in &entries {
                let id = kept.entry.log_id;
                marks.append(id).map_err(|hole| {
                    let reason = format!("entry {} would leave a hole, the next one is {}", id.index, hole.next);
                    io::Error::new(io::ErrorKind::InvalidInput, reason)
                })?;
            }
            if let (None, Some(first)) = (core.marks.last, entries.first()) {
                core.begin = first.entry.log_id.index;
            }
            core.marks = marks;
            for kept in &entries {
                core.tail.push(kept.clone());
            }
            core.waiting_bytes += bytes;
            let epoch = core.epoch;
            Ok(Order { what: What::Append { entries, epoch }, done: Done(Some(Waiter::Flushed(flushed))) })
        })
    }

    pub async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(|core| {
            core.marks.vote = Some(vote);
            let what = What::Mark { marks: core.marks.clone(), sync: true };
            Ok(Order { what, done: Done(Some(Waiter::Reply(reply))) })
        })?;
        answer.await.unwrap_or_else(|_| Err(Failure::abandoned().to_io()))
    }

    /// Written with the next flush, or before long.
    pub fn save_committed(&self, committed: Option<Id>) -> io::Result<()> {
        let mut core = self.core.lock();
        core.open()?;
        core.marks.committed = committed;
        core.committed_waits = true;
        if !core.dozing {
            drop(core);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Written before anything that is asked later; a sync would add nothing, as nobody is told of it.
    pub fn truncate(&self, last: Option<Id>) -> io::Result<()> {
        self.ask(|core| {
            core.marks.truncate(last);
            let end = core.marks.next();
            core.tail.truncate(end);
            core.written = core.written.min(end);
            core.begin = core.begin.min(end);
            core.epoch += 1;
            Ok(core.mark())
        })
    }

    pub fn purge(&self, id: Id) -> io::Result<()> {
        self.ask(|core| {
            core.marks.purge(id);
            core.tail.purge(core.marks.first());
            core.begin = core.begin.max(core.marks.first());
            Ok(core.mark())
        })
    }

    /// What of the range is there.
    pub fn clip(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        self.with(|core| core.clip(range))
    }

    /// No more than `bytes_max`, roughly, but at least one entry.
    pub fn plan(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Plan> {
        self.with(|core| core.plan(core.clip(range), bytes_max))
    }

    /// Waits for orders, for another committed entry or for the end, no longer than `patience`.
    pub async fn next(&self, patience: Option<Duration>) -> Batch {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut late = false;
        loop {
            if let Some(batch) = self.with(|core| core.take(late, deadline.is_some())) {
                self.taken.notify_waiters();
                return batch;
            }
            match deadline {
                None => self.wake.notified().await,
                Some(deadline) => late = timeout_at(deadline, self.wake.notified()).await.is_err(),
            }
        }
    }

    pub fn is_closing(&self) -> bool {
        self.with(|core| !matches!(core.state, State::Open))
    }

    pub fn start_closing(&self) {
        self.with(|core| {
            if matches!(core.state, State::Open) {
                core.state = State::Closing;
            }
        });
        self.wake.notify_one();
    }

    /// From now on everything is refused, what waits included.
    pub fn end(&self, failure: Failure) {
        let orders = self.with(|core| {
            if !core.state.is_ended() {
                core.state = State::Ended(failure.clone());
            }
            core.waiting_bytes = 0;
            std::mem::take(&mut core.waiting)
        });
        for order in orders {
            order.done.tell(Err(&failure));
        }
        self.taken.notify_waiters();
        *self.medium.lock() = None;
        self.ended.send_replace(true);
    }

    /// Room on the disk beside what is reserved; `None` when nobody knows.
    pub fn free_bytes(&self) -> Option<u64> {
        self.medium.lock().as_ref()?.free_bytes().ok()
    }

    /// Why the log does not go on; `None` while it does.
    pub fn failure(&self) -> Option<Failure> {
        self.with(|core| match &core.state {
            State::Open | State::Closing => None,
            State::Ended(failure) => Some(failure.clone()),
        })
    }
}

impl State {
    fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

impl Core {
    fn open(&self) -> io::Result<()> {
        match &self.state {
            State::Open => Ok(()),
            State::Closing => Err(Failure::closed().to_io()),
            State::Ended(failure) => Err(failure.to_io()),
        }
    }

    fn mark(&self) -> Order {
        Order { what: What::Mark { marks: self.marks.clone(), sync: false }, done: Done(None) }
    }

    fn take(&mut self, late: bool, patient: bool) -> Option<Batch> {
        let closing = matches!(self.state, State::Closing);
        if !(late || closing || !self.waiting.is_empty() || (self.committed_waits && !patient)) {
            self.dozing = patient;
            return None;
        }
        self.dozing = false;
        self.committed_waits = false;
        self.waiting_bytes = 0;
        Some(Batch { orders: std::mem::take(&mut self.waiting), committed: self.marks.committed, closing, late })
    }

    fn clip(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        start.max(self.begin)..end.min(self.marks.next())
    }

    fn plan(&self, wanted: Range<u64>, bytes_max: usize) -> io::Result<Plan> {
        let mut left = bytes_max;
        let mut plan = Plan { disk: Vec::new(), memory: Vec::new() };
        if wanted.is_empty() {
            return Ok(plan);
        }
        let mut at = wanted.start;
        for mut run in self.index.locate(wanted.start..wanted.end.min(self.tail.first())) {
            if run.first != at {
                break;
            }
            let fitting = run.fitting(left).max(usize::from(plan.disk.is_empty()));
            let whole = fitting >= run.offsets.len();
            run.shorten(fitting);
            left = left.saturating_sub(run.bytes());
            at += run.offsets.len() as u64;
            plan.disk.push(run);
            if !whole || left == 0 {
                return Ok(plan);
            }
        }
        if at < wanted.end && at < self.tail.first() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("entry {at} of the log is nowhere")));
        }
        for kept in self.tail.range(at..wanted.end) {
            if left == 0 && !(plan.memory.is_empty() && plan.disk.is_empty()) {
                break;
            }
            left = left.saturating_sub(kept.bytes);
            plan.memory.push(kept.clone());
        }
        Ok(plan)
    }
}
