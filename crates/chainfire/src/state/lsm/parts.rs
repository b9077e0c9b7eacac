//! What is in memory and what is in tables, to look one key up in.
//!
//! The tree's own way goes through a lock that is held while a new manifest is synced; neither applying nor reading a
//! row should wait for that. So the parts in memory and the tables of the newest manifest are held here too, and changed
//! together when a part has become a table.
//!
//! Looking a key up in an ordered map of a hundred thousand costs more than looking at the filters of all tables, and
//! most keys are not there. So each part in memory has a bitmap of hashes: a key without its bits is not in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm_tree::table::filter::standard_bloom::Builder as Filter;
use lsm_tree::{AbstractTree, AnyTree, InternalValue, Memtable, Slice, ValueType};
use parking_lot::{Mutex, RwLock};

use crate::state::seen::Seq;

/// Of one part: half a mebibyte. Even with as many keys as 32 MiB hold, one in a hundred is looked up in vain.
const BITS: u64 = 1 << 22;

struct Bits(Box<[AtomicU64]>);

impl Bits {
    fn new() -> Self {
        Self((0..BITS / 64).map(|_| AtomicU64::new(0)).collect())
    }

    fn places(hash: u64) -> [u64; 2] {
        [hash % BITS, (hash >> 32) % BITS]
    }

    fn add(&self, hash: u64) {
        for place in Self::places(hash) {
            let (word, bit) = (&self.0[(place / 64) as usize], 1 << (place % 64));
            // The one writer sets bits; whoever may see what was written under them comes after it was published.
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    fn may_have(&self, hash: u64) -> bool {
        let set = |place: u64| self.0[(place / 64) as usize].load(Ordering::Relaxed) & (1 << (place % 64)) != 0;
        Self::places(hash).into_iter().all(set)
    }
}

struct Part {
    bits: Bits,
    memory: Arc<Memtable>,
}

/// Looks a key with this hash up in the tables of one manifest.
type Tables = dyn Fn(&[u8], Seq, u64) -> lsm_tree::Result<Option<InternalValue>> + Send + Sync;

struct Inner {
    /// The one that is written to last.
    parts: Vec<Part>,
    tables: Arc<Tables>,
}

pub struct Parts {
    inner: RwLock<Inner>,
    /// Held from looking for the newest manifest until it is in use here, so that no older one follows.
    turning: Mutex<()>,
}

fn tables(tree: &AnyTree) -> Arc<Tables> {
    let version = tree.current_version();
    Arc::new(move |key, at, hash| {
        let runs = version.iter_levels().flat_map(|level| level.iter());
        for table in runs.filter_map(|run| run.get_for_key(key)) {
            if let Some(item) = table.get(key, at, hash)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    })
}

impl Parts {
    pub fn new(tree: &AnyTree) -> Self {
        let part = Part { bits: Bits::new(), memory: tree.active_memtable() };
        let inner = Inner { parts: vec![part], tables: tables(tree) };
        Self { inner: RwLock::new(inner), turning: Mutex::new(()) }
    }

    pub fn get(&self, key: &[u8], at: Seq) -> lsm_tree::Result<Option<Slice>> {
        let hash = Filter::get_hash(key);
        let tables = {
            let inner = self.inner.read();
            let mut parts = inner.parts.iter().rev().filter(|part| part.bits.may_have(hash));
            match parts.find_map(|part| part.memory.get(key, at)) {
                Some(item) => return Ok(value(item)),
                None => inner.tables.clone(),
            }
        };
        Ok(tables(key, at, hash)?.and_then(value))
    }

    /// `None` removes. Answers the bytes of the part that is written to.
    pub fn write(&self, key: Slice, value: Option<Slice>, seq: Seq) -> u64 {
        let hash = Filter::get_hash(&key);
        let inner = self.inner.read();
        let part = inner.parts.last().expect("there is always one to write to");
        part.bits.add(hash);
        let item = match value {
            Some(value) => InternalValue::from_components(key, value, seq, ValueType::Value),
            None => InternalValue::new_tombstone(key, seq),
        };
        part.memory.insert(item).1
    }

    /// After the tree sealed the part that is written to.
    pub fn seal(&self, tree: &AnyTree) {
        let part = Part { bits: Bits::new(), memory: tree.active_memtable() };
        self.inner.write().parts.push(part);
    }

    /// After tables changed: the oldest `gone` parts are among them now.
    pub fn turn(&self, tree: &AnyTree, gone: usize) {
        let _turning = self.turning.lock();
        let tables = tables(tree);
        let inner = &mut *self.inner.write();
        inner.tables = tables;
        inner.parts.drain(..gone);
    }
}

fn value(item: InternalValue) -> Option<Slice> {
    if item.is_tombstone() { None } else { Some(item.value) }
}
