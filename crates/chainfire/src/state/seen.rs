//! What readers may see, and what they still look at.
//!
//! Everything that is written carries a sequence number. A batch becomes visible as a whole, together with the marks it
//! led to, when its number is published; a reader sees everything below the number that was published when it came.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::marks::Marks;

/// Of writes, ascending.
pub type Seq = u64;

pub struct Seen {
    inner: Mutex<Inner>,
}

struct Inner {
    /// Writes below it are visible.
    visible: Seq,
    marks: Arc<Marks>,
    /// How many readers look at each point.
    open: BTreeMap<Seq, usize>,
}

impl Seen {
    pub fn new(visible: Seq, marks: Marks) -> Self {
        Self { inner: Mutex::new(Inner { visible, marks: Arc::new(marks), open: BTreeMap::new() }) }
    }

    pub fn publish(&self, visible: Seq, marks: Arc<Marks>) {
        let inner = &mut *self.inner.lock();
        inner.visible = visible;
        inner.marks = marks;
    }

    /// To be closed again.
    pub fn open(&self) -> (Seq, Arc<Marks>) {
        let inner = &mut *self.inner.lock();
        *inner.open.entry(inner.visible).or_default() += 1;
        (inner.visible, inner.marks.clone())
    }

    pub fn close(&self, at: Seq) {
        let inner = &mut *self.inner.lock();
        if let Some(readers) = inner.open.get_mut(&at) {
            *readers -= 1;
            if *readers == 0 {
                inner.open.remove(&at);
            }
        }
    }

    pub fn marks(&self) -> Arc<Marks> {
        self.inner.lock().marks.clone()
    }

    /// The oldest point that anybody looks at or may come to look at.
    pub fn oldest(&self) -> Seq {
        let inner = self.inner.lock();
        inner.open.first_key_value().map_or(inner.visible, |(at, _)| *at)
    }
}
