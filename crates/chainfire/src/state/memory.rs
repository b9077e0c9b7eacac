//! A tree in memory, for simulation: no threads, no files, and what is not sealed is lost by a crash all the same.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_tree::Slice;
use parking_lot::{Mutex, RwLock};
use store::Error;
use tokio::sync::watch;

use super::disk::{Disk, Items, Usage};
use super::seen::{Seen, Seq};

/// What survives: the state as it was sealed last.
#[derive(Clone, Default)]
pub struct Image(Arc<Mutex<Arc<BTreeMap<Slice, Slice>>>>);

impl Image {
    pub fn items(&self) -> Arc<BTreeMap<Slice, Slice>> {
        self.0.lock().clone()
    }

    pub fn replace(&self, items: BTreeMap<Slice, Slice>) {
        *self.0.lock() = Arc::new(items);
    }
}

/// Of one key by sequence number, ascending and never empty; `None` is a removal.
type Versions = Vec<(Seq, Option<Slice>)>;
type Tree = Arc<RwLock<BTreeMap<Slice, Versions>>>;

pub struct Memory {
    tree: Tree,
    next: AtomicU64,
    seen: Arc<Seen>,
    image: Image,
    durable: watch::Sender<u64>,
    gather_bytes: u64,
    /// Since the last seal.
    gathered: AtomicU64,
}

/// Below any write.
const FIRST: Seq = 1;

impl Memory {
    /// The first point that sees everything there was.
    pub const VISIBLE: Seq = FIRST + 1;

    pub fn open(image: Image, gather_bytes: u64, seen: Arc<Seen>, durable: watch::Sender<u64>) -> Self {
        let items = image.items();
        let tree = items.iter().map(|(key, value)| (key.clone(), vec![(FIRST, Some(value.clone()))])).collect();
        Self {
            tree: Arc::new(RwLock::new(tree)),
            next: AtomicU64::new(FIRST + 1),
            seen,
            image,
            durable,
            gather_bytes,
            gathered: AtomicU64::new(0),
        }
    }

    fn write(&self, key: Slice, value: Option<Slice>, seq: Seq) {
        let bytes = key.len() + value.as_ref().map_or(0, |value| value.len());
        self.gathered.fetch_add(bytes as u64, Ordering::Relaxed);
        let oldest = self.seen.oldest();
        let mut tree = self.tree.write();
        let versions = tree.entry(key).or_default();
        versions.retain(|(at, _)| *at != seq);
        versions.push((seq, value));
        forget(versions, oldest);
    }
}

/// A version is needed while somebody may look at a point above it and at or below the one after it.
fn forget(versions: &mut Versions, oldest: Seq) {
    let kept = versions.iter().rposition(|(at, _)| *at < oldest).unwrap_or(0);
    versions.drain(..kept);
}

fn visible(versions: &Versions, at: Seq) -> Option<&Slice> {
    versions.iter().rev().find(|(seq, _)| *seq < at)?.1.as_ref()
}

impl Disk for Memory {
    fn get(&self, key: &[u8], at: Seq) -> Result<Option<Slice>, Error> {
        Ok(self.tree.read().get(key).and_then(|versions| visible(versions, at).cloned()))
    }

    fn range(&self, from: &[u8], to: &[u8], at: Seq) -> Items {
        let (from, to) = (Bound::Included(Slice::from(from)), Bound::Excluded(Slice::from(to)));
        Box::new(Walk { tree: self.tree.clone(), from, to, at })
    }

    fn frozen(&self, from: &[u8], to: &[u8], at: Seq) -> Items {
        Box::new(self.range(from, to, at).collect::<Vec<_>>().into_iter())
    }

    fn next_seq(&self) -> Seq {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn put(&self, key: Slice, value: Slice, seq: Seq) {
        self.write(key, Some(value), seq);
    }

    fn remove(&self, key: Slice, seq: Seq) {
        self.write(key, None, seq);
    }

    fn is_full(&self) -> bool {
        self.gathered.load(Ordering::Relaxed) >= self.gather_bytes
    }

    fn seal(&self, index: u64) {
        let mut tree = self.tree.write();
        let oldest = self.seen.oldest();
        self.gathered.store(0, Ordering::Relaxed);
        tree.retain(|_, versions| {
            forget(versions, oldest);
            !matches!(&versions[..], [(at, None)] if *at < oldest)
        });
        let newest = |versions: &Versions| versions.last().and_then(|(_, value)| value.clone());
        let items = tree.iter().filter_map(|(key, versions)| Some((key.clone(), newest(versions)?)));
        self.image.replace(items.collect());
        self.durable.send_replace(index);
    }

    fn is_pressed(&self) -> bool {
        false
    }

    fn relieve(&self) {}

    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    fn usage(&self) -> Usage {
        let tree = self.tree.read();
        let bytes = tree.iter().map(|(key, versions)| {
            key.len() + versions.iter().filter_map(|(_, value)| value.as_ref()).map(|value| value.len()).sum::<usize>()
        });
        Usage { disk_bytes: 0, memory_bytes: bytes.sum::<usize>() as u64 }
    }

    fn retire(&self) {}

    fn problem(&self) -> Option<Error> {
        None
    }
}

/// Looks the next key up each time, so that nobody waits for a reader.
struct Walk {
    tree: Tree,
    from: Bound<Slice>,
    to: Bound<Slice>,
    at: Seq,
}

impl Walk {
    fn is_over(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
            _ => false,
        }
    }
}

impl Iterator for Walk {
    type Item = Result<(Slice, Slice), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over() {
            return None;
        }
        let tree = self.tree.read();
        let mut items = tree.range((self.from.clone(), self.to.clone()));
        let found = items.find_map(|(key, versions)| Some((key.clone(), visible(versions, self.at)?.clone())));
        self.from = match &found {
            Some((key, _)) => Bound::Excluded(key.clone()),
            None => match &self.to {
                Bound::Excluded(to) | Bound::Included(to) => Bound::Included(to.clone()),
                Bound::Unbounded => Bound::Unbounded,
            },
        };
        found.map(Ok)
    }
}

impl DoubleEndedIterator for Walk {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.is_over() {
            return None;
        }
        let tree = self.tree.read();
        let mut items = tree.range((self.from.clone(), self.to.clone())).rev();
        let found = items.find_map(|(key, versions)| Some((key.clone(), visible(versions, self.at)?.clone())))?;
        self.to = Bound::Excluded(found.0.clone());
        Some(Ok(found))
    }
}
