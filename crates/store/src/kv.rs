//! Keys, revisions, and what a range asks and answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::LeaseId;
use crate::span::prefix_end;

/// 1 to [`crate::limits::KEY_BYTES_MAX`] bytes, ordered as unsigned bytes.
pub type Key = Bytes;
/// May be empty.
pub type Value = Bytes;

/// A point in the one order of all changes. An empty store is at 1, so 0 never names a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl Revision {
    /// "Never": the create and mod revision of a key that does not exist.
    pub const ZERO: Revision = Revision(0);
    /// The revision of a store that was never written to.
    pub const FIRST: Revision = Revision(1);

    #[must_use]
    pub const fn next(self) -> Revision {
        Revision(self.0 + 1)
    }

    #[must_use]
    pub const fn before(self) -> Revision {
        Revision(self.0.saturating_sub(1))
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct KeyValue {
    pub key: Key,
    pub value: Value,
    /// When this life of the key began; a delete ends it.
    pub create_revision: Revision,
    /// When it was last put; for a delete event, the revision of the delete.
    pub mod_revision: Revision,
    /// Number of puts in this life of the key, from 1; 0 in a delete event.
    pub version: u64,
    pub lease: Option<LeaseId>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum RangeEnd {
    /// The start alone.
    #[default]
    Single,
    /// From the start up to this key, without it.
    Exclusive(Key),
    /// From the start to the end of the key space.
    Unbounded,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum SortBy {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum SortOrder {
    #[default]
    Ascend,
    Descend,
}

/// Equal rows stay in ascending key order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Sort {
    pub by: SortBy,
    pub order: SortOrder,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Range {
    pub start: Key,
    pub end: RangeEnd,
    /// Read as of this revision; `None` reads the newest.
    pub revision: Option<Revision>,
    /// Rows at most; 0 for all.
    pub limit: usize,
    /// `None` is ascending key order.
    pub sort: Option<Sort>,
    /// Answer the count and no rows.
    pub count_only: bool,
    /// Leave values empty.
    pub keys_only: bool,
    /// Bounds on the rows answered, both inclusive. They do not change [`RangeAnswer::count`].
    pub min_mod_revision: Option<Revision>,
    pub max_mod_revision: Option<Revision>,
    pub min_create_revision: Option<Revision>,
    pub max_create_revision: Option<Revision>,
    /// The caller has no use for [`RangeAnswer::count`]: a limited read may stop at its limit.
    pub uncounted: bool,
    /// A replicated engine may answer from what this member has, which may be behind the others.
    pub serializable: bool,
}

impl Range {
    pub fn key(key: impl Into<Key>) -> Self {
        Self { start: key.into(), ..Self::default() }
    }

    /// Every key that begins with `prefix`; the empty prefix is the whole key space.
    pub fn prefix(prefix: impl Into<Key>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self { start, end, ..Self::default() }
    }

    /// Keys in `start..end`.
    pub fn between(start: impl Into<Key>, end: impl Into<Key>) -> Self {
        Self { start: start.into(), end: RangeEnd::Exclusive(end.into()), ..Self::default() }
    }

    /// `start` and every key after it.
    pub fn from(start: impl Into<Key>) -> Self {
        Self { start: start.into(), end: RangeEnd::Unbounded, ..Self::default() }
    }

    pub fn all() -> Self {
        Self::from(Key::new())
    }

    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = rows;
        self
    }

    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    #[must_use]
    pub fn count_only(mut self) -> Self {
        self.count_only = true;
        self
    }

    #[must_use]
    pub fn uncounted(mut self) -> Self {
        self.uncounted = true;
        self
    }

    #[must_use]
    pub fn serializable(mut self) -> Self {
        self.serializable = true;
        self
    }

    #[must_use]
    pub fn min_create(mut self, revision: Revision) -> Self {
        self.min_create_revision = Some(revision);
        self
    }

    #[must_use]
    pub fn max_create(mut self, revision: Revision) -> Self {
        self.max_create_revision = Some(revision);
        self
    }

    #[must_use]
    pub fn min_mod(mut self, revision: Revision) -> Self {
        self.min_mod_revision = Some(revision);
        self
    }

    #[must_use]
    pub fn max_mod(mut self, revision: Revision) -> Self {
        self.max_mod_revision = Some(revision);
        self
    }

    #[must_use]
    pub fn sort(mut self, by: SortBy, order: SortOrder) -> Self {
        self.sort = Some(Sort { by, order });
        self
    }

    /// Start and end alone count for a delete; this says whether anything else was asked.
    pub(crate) fn is_plain(&self) -> bool {
        let Self { start, end, .. } = self;
        *self == Self { start: start.clone(), end: end.clone(), ..Self::default() }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RangeAnswer {
    /// The newest revision when the answer was made, also for a read at an older one.
    pub revision: Revision,
    /// Sorted as asked; keys are unique.
    pub items: Vec<KeyValue>,
    /// Keys in the range at the revision read, whatever the limit and the revision bounds. After
    /// [`Range::uncounted`] it is a lower bound.
    pub count: u64,
    /// The limit cut rows off.
    pub more: bool,
}

impl RangeAnswer {
    /// The row of a single-key range.
    pub fn first(&self) -> Option<&KeyValue> {
        self.items.first()
    }
}
