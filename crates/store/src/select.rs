//! What a range answers, given rows in key order.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{Error, Key, KeyValue, LeaseId, Range, RangeAnswer, RangeEnd, Revision, Sort, SortBy, SortOrder, Span};

/// A row where it lies, not yet copied out.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub create_revision: Revision,
    pub mod_revision: Revision,
    pub version: u64,
    pub lease: Option<LeaseId>,
}

impl<'a> Row<'a> {
    pub fn of(kv: &'a KeyValue) -> Self {
        Self {
            key: &kv.key,
            value: &kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }

    pub fn to_key_value(self) -> KeyValue {
        self.copy(true)
    }

    fn copy(self, with_value: bool) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(self.key),
            value: if with_value { Bytes::copy_from_slice(self.value) } else { Bytes::new() },
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }
}

pub type Visit<'v> = &'v mut dyn FnMut(Row<'_>) -> ControlFlow<()>;

/// Rows as an engine holds them: one consistent state, or the state inside a transaction.
pub trait Rows {
    /// The newest committed revision; inside a transaction, the one before it.
    fn newest(&self) -> Revision;

    fn compacted(&self) -> Revision;

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error>;

    /// Calls `visit` with the rows of `span` in key order until it breaks: the current rows, or those as of `at`.
    fn visit(&self, span: &Span, at: Option<Revision>, order: SortOrder, visit: Visit<'_>) -> Result<(), Error>;

    /// Keys of `span` that changed at or after `since`, ascending and unique, perhaps with some more; `None` when
    /// finding them is no cheaper than a visit.
    fn changed(&self, _span: &Span, _since: Revision) -> Result<Option<Vec<Key>>, Error> {
        Ok(None)
    }
}

/// Checks that `at` can be read; answers `None` when the current rows are meant.
pub fn readable(rows: &(impl Rows + ?Sized), at: Option<Revision>) -> Result<Option<Revision>, Error> {
    let Some(at) = at.filter(|at| *at != Revision::ZERO) else { return Ok(None) };
    let newest = rows.newest();
    if at > newest {
        return Err(Error::FutureRevision { asked: at, newest });
    }
    let compacted = rows.compacted();
    if at < compacted {
        return Err(Error::Compacted { compacted });
    }
    Ok(Some(at))
}

/// `revision` goes into the answer; `range` is admitted and readable.
pub fn answer(rows: &(impl Rows + ?Sized), range: &Range, revision: Revision) -> Result<RangeAnswer, Error> {
    let at = readable(rows, range.revision)?;
    let at = at.filter(|at| *at != revision);
    let mut selection = Selection::new(range);
    let span = Span::new(range.start.clone(), range.end.clone());
    if range.end == RangeEnd::Single && at.is_none() {
        if let Some(kv) = rows.get(&range.start)? {
            let _ = selection.take(Row::of(&kv));
        }
    } else if let Some(keys) = recent(rows, range, &span, at)? {
        for key in &keys {
            if let Some(kv) = rows.get(key)?
                && selection.take(Row::of(&kv)).is_break()
            {
                break;
            }
        }
    } else {
        rows.visit(&span, at, selection.order, &mut |row| selection.take(row))?;
    }
    Ok(selection.finish(revision))
}

/// The keys to look at when only rows changed since some revision are asked for and nobody wants a count.
fn recent(
    rows: &(impl Rows + ?Sized),
    range: &Range,
    span: &Span,
    at: Option<Revision>,
) -> Result<Option<Vec<Key>>, Error> {
    let since = range.min_create_revision.max(range.min_mod_revision);
    match since {
        Some(since) if range.uncounted && at.is_none() => {
            let mut keys = rows.changed(span, since)?;
            if let (Some(keys), SortOrder::Descend) = (&mut keys, Selection::new(range).order) {
                keys.reverse();
            }
            Ok(keys)
        }
        _ => Ok(None),
    }
}

struct Selection<'r> {
    range: &'r Range,
    /// In which order rows should be visited.
    order: SortOrder,
    /// A sort that the visiting order does not give: all rows are collected first.
    sort: Option<Sort>,
    items: Vec<KeyValue>,
    count: u64,
    more: bool,
}

impl<'r> Selection<'r> {
    fn new(range: &'r Range) -> Self {
        let (order, sort) = match range.sort {
            None => (SortOrder::Ascend, None),
            Some(Sort { by: SortBy::Key, order }) => (order, None),
            Some(sort) => (SortOrder::Ascend, Some(sort)),
        };
        Self { range, order, sort, items: Vec::new(), count: 0, more: false }
    }

    fn take(&mut self, row: Row<'_>) -> ControlFlow<()> {
        self.count += 1;
        let range = self.range;
        if range.count_only || !bounded(range, &row) {
            return ControlFlow::Continue(());
        }
        if self.sort.is_none() && range.limit > 0 && self.items.len() == range.limit {
            self.more = true;
            return if range.uncounted { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        }
        let by_value = self.sort.is_some_and(|sort| sort.by == SortBy::Value);
        self.items.push(row.copy(!range.keys_only || by_value));
        ControlFlow::Continue(())
    }

    fn finish(mut self, revision: Revision) -> RangeAnswer {
        if let Some(sort) = self.sort {
            // Stable, so that equal rows stay in key order in both directions.
            self.items.sort_by(|a, b| match sort.order {
                SortOrder::Ascend => compare(sort.by, a, b),
                SortOrder::Descend => compare(sort.by, b, a),
            });
            let limit = self.range.limit;
            if limit > 0 && self.items.len() > limit {
                self.items.truncate(limit);
                self.more = true;
            }
            if self.range.keys_only {
                for kv in &mut self.items {
                    kv.value = Bytes::new();
                }
            }
        }
        RangeAnswer { revision, items: self.items, count: self.count, more: self.more }
    }
}

fn bounded(range: &Range, row: &Row<'_>) -> bool {
    range.min_mod_revision.is_none_or(|min| row.mod_revision >= min)
        && range.max_mod_revision.is_none_or(|max| row.mod_revision <= max)
        && range.min_create_revision.is_none_or(|min| row.create_revision >= min)
        && range.max_create_revision.is_none_or(|max| row.create_revision <= max)
}

fn compare(by: SortBy, a: &KeyValue, b: &KeyValue) -> Ordering {
    match by {
        SortBy::Key => a.key.cmp(&b.key),
        SortBy::Version => a.version.cmp(&b.version),
        SortBy::Create => a.create_revision.cmp(&b.create_revision),
        SortBy::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortBy::Value => a.value.cmp(&b.value),
    }
}
