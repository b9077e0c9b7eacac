//! What clients did and heard, in the order in which they did and heard it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Key, KeyValue, Revision};
use bytes::Bytes;
use parking_lot::Mutex;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// Values are unique over a whole history.
    Put {
        key: Key,
        value: Bytes,
    },
    Delete {
        key: Key,
    },
    /// Put when the key was last put at `expected` (zero: is not there).
    Swap {
        key: Key,
        expected: Revision,
        value: Bytes,
    },
    /// Both keys are put when both have the mod revisions given; otherwise both are read.
    Both {
        keys: [Key; 2],
        expected: [Revision; 2],
        value: Bytes,
    },
    /// One key, linearizable.
    Get {
        key: Key,
    },
    /// Every key, linearizable.
    All,
    /// One key as some member has it.
    Stale {
        key: Key,
    },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// Changed something at this revision.
    Wrote(Revision),
    /// Changed nothing, seen at this revision: a comparison that failed, or a delete of nothing.
    Held(Revision),
    /// The rows that were asked for, at this revision.
    Read(Revision, Vec<KeyValue>),
    /// Surely did not happen.
    Refused,
    /// May have happened, may still happen.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Op {
    pub client: usize,
    pub call: Call,
    /// Place of the call and of the answer in the one order of all calls and answers.
    pub called: u64,
    pub heard_at: u64,
    pub heard: Heard,
}

#[derive(Clone, Default)]
pub struct History {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    clock: AtomicU64,
    ops: Mutex<Vec<Op>>,
}

impl History {
    /// A call whose client ends before it hears is one of unknown outcome.
    pub async fn record(&self, client: usize, call: Call, act: impl Future<Output = Heard>) -> Heard {
        let called = self.inner.clock.fetch_add(1, Ordering::SeqCst);
        // Whenever it happens, it is after nothing that was called later.
        let op = Op { client, call, called, heard_at: u64::MAX, heard: Heard::Unknown };
        let mut open = Open { history: self, op: Some(op) };
        let heard = act.await;
        if let Some(op) = &mut open.op
            && !matches!(heard, Heard::Unknown)
        {
            op.heard_at = self.inner.clock.fetch_add(1, Ordering::SeqCst);
            op.heard = heard.clone();
        }
        heard
    }

    pub fn ops(&self) -> Vec<Op> {
        self.inner.ops.lock().clone()
    }
}

/// A call that is written down when it ends, however it does.
struct Open<'a> {
    history: &'a History,
    op: Option<Op>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.history.inner.ops.lock().extend(self.op.take());
    }
}
