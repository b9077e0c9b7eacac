//! Rows that were written or superseded not long ago, as they lie in the tree.
//!
//! A block of a table holds a dozen rows of which most often one is asked for; here each row stands for itself. The
//! writer alone fills it: it always holds what a key is now, or nothing. Readers at an older moment see by the revision
//! that a row is too new for them.

use lsm_tree::Slice;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// Larger rows are read from the tree.
const ROW_BYTES_MAX: usize = 16 * 1024;

/// What an entry costs beside its bytes.
const ENTRY_BYTES: u64 = 128;

/// To guess how many entries there will be.
const ROW_BYTES_TYPICAL: u64 = 512;

#[derive(Clone)]
struct Bytes;

impl Weighter<Slice, Slice> for Bytes {
    fn weight(&self, key: &Slice, sealed: &Slice) -> u64 {
        ENTRY_BYTES + (key.len() + sealed.len()) as u64
    }
}

pub struct Recent {
    rows: Option<Cache<Slice, Slice, Bytes>>,
}

impl Recent {
    /// None at all for 0 bytes.
    pub fn new(bytes: u64) -> Self {
        let rows = (bytes > 0).then(|| Cache::with_weighter((bytes / ROW_BYTES_TYPICAL).max(1) as usize, bytes, Bytes));
        Self { rows }
    }

    /// The sealed row under a key of the tree.
    pub fn get(&self, key: &Slice) -> Option<Slice> {
        self.rows.as_ref()?.get(key)
    }

    pub fn put(&self, key: Slice, sealed: Slice) {
        let Some(rows) = &self.rows else { return };
        if sealed.len() > ROW_BYTES_MAX {
            rows.remove(&key);
        } else {
            rows.insert(key, sealed);
        }
    }

    pub fn remove(&self, key: &Slice) {
        if let Some(rows) = &self.rows {
            rows.remove(key);
        }
    }
}
