//! The tables, and how they look as rows.
//!
//! | table | key | holds |
//! |---|---|---|
//! | current | key | the newest row of each key |
//! | history | key, revision, 0 or 1 | superseded rows (0) and deletes (1) that are not compacted |
//! | log | revision, chunk | which keys changed, in order; the last entry's revision is the newest |
//! | leases | id | seconds |
//! | attached | id, key | |
//! | meta | name | format, compacted, the last lease id chosen |
//!
//! An insert writes a row once; an update moves the old row to the history. Nothing else is kept twice.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use store::apply::State;
use store::select::{Row, Rows, Visit};
use store::{Error, Key, KeyValue, Lease, LeaseId, RangeEnd, Revision, SortOrder, Span, WatchEvent};

use super::fault::{Fault, damaged};
use crate::record::{self, Stored};

pub type HistoryKey = (&'static [u8], u64, u8);

pub const CURRENT: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("current");
pub const HISTORY: TableDefinition<'static, HistoryKey, &[u8]> = TableDefinition::new("history");
pub const LOG: TableDefinition<'static, (u64, u32), &[u8]> = TableDefinition::new("log");
pub const LEASES: TableDefinition<'static, i64, u64> = TableDefinition::new("leases");
pub const ATTACHED: TableDefinition<'static, (i64, &[u8]), ()> = TableDefinition::new("attached");
pub const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

pub const META_FORMAT: &str = "format";
pub const META_COMPACTED: &str = "compacted";
pub const META_LEASE_LAST: &str = "lease_last";

/// Third part of a history key: within one revision, a put comes before a delete of the same key.
pub const ROW: u8 = 0;
pub const GONE: u8 = 1;

/// Beyond this many revisions, looking at every row of a span is taken to be cheaper than looking through the log.
const CHANGED_REVISIONS_MAX: u64 = 65_536;

/// Events in one entry of the log, so that compaction can take a large revision in small steps.
const LOG_CHUNK_EVENTS: usize = 256;

/// All tables, in a snapshot or in the transaction of the writer.
pub struct Tables<C, H, L, S, A, M> {
    pub current: C,
    pub history: H,
    pub log: L,
    pub leases: S,
    pub attached: A,
    pub meta: M,
    /// Newest revision and the compacted one, kept at hand.
    pub newest: Revision,
    pub compacted: Revision,
    /// The open transaction has changed rows that the log does not name yet.
    unlogged: bool,
}

type Reading<K, V> = redb::ReadOnlyTable<K, V>;
type Writing<'t, K, V> = redb::Table<'t, K, V>;

pub type Snapshot = Tables<
    Reading<&'static [u8], &'static [u8]>,
    Reading<HistoryKey, &'static [u8]>,
    Reading<(u64, u32), &'static [u8]>,
    Reading<i64, u64>,
    Reading<(i64, &'static [u8]), ()>,
    Reading<&'static str, u64>,
>;

pub type Draft<'t> = Tables<
    Writing<'t, &'static [u8], &'static [u8]>,
    Writing<'t, HistoryKey, &'static [u8]>,
    Writing<'t, (u64, u32), &'static [u8]>,
    Writing<'t, i64, u64>,
    Writing<'t, (i64, &'static [u8]), ()>,
    Writing<'t, &'static str, u64>,
>;

impl Snapshot {
    pub fn open(transaction: &ReadTransaction) -> Result<Self, Error> {
        let log = transaction.open_table(LOG).fault("open the log")?;
        let meta = transaction.open_table(META).fault("open the table of marks")?;
        let newest = newest(&log)?;
        let compacted = mark(&meta, META_COMPACTED)?.map_or(Revision::ZERO, Revision);
        Ok(Self {
            current: transaction.open_table(CURRENT).fault("open the table of rows")?,
            history: transaction.open_table(HISTORY).fault("open the history")?,
            log,
            leases: transaction.open_table(LEASES).fault("open the table of leases")?,
            attached: transaction.open_table(ATTACHED).fault("open the table of leased keys")?,
            meta,
            newest,
            compacted,
            unlogged: false,
        })
    }
}

impl<'t> Draft<'t> {
    /// Creates the tables that are missing.
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, Error> {
        let log = transaction.open_table(LOG).fault("open the log")?;
        let meta = transaction.open_table(META).fault("open the table of marks")?;
        let newest = newest(&log)?;
        let compacted = mark(&meta, META_COMPACTED)?.map_or(Revision::ZERO, Revision);
        Ok(Self {
            current: transaction.open_table(CURRENT).fault("open the table of rows")?,
            history: transaction.open_table(HISTORY).fault("open the history")?,
            log,
            leases: transaction.open_table(LEASES).fault("open the table of leases")?,
            attached: transaction.open_table(ATTACHED).fault("open the table of leased keys")?,
            meta,
            newest,
            compacted,
            unlogged: false,
        })
    }

    /// Takes the next revision for what the transaction has just changed.
    pub fn log(&mut self, events: &[WatchEvent]) -> Result<Revision, Error> {
        let revision = self.newest.next();
        for (chunk, events) in (0..).zip(events.chunks(LOG_CHUNK_EVENTS)) {
            let changes = record::changes(revision, events);
            self.log.insert((revision.0, chunk), &changes[..]).fault("write the log")?;
        }
        self.newest = revision;
        self.unlogged = false;
        Ok(revision)
    }

    pub fn set_mark(&mut self, name: &str, value: u64) -> Result<(), Error> {
        self.meta.insert(name, value).fault("write a mark").map(drop)
    }
}

fn newest(log: &impl ReadableTable<(u64, u32), &'static [u8]>) -> Result<Revision, Error> {
    let last = log.last().fault("read the log")?;
    Ok(last.map_or(Revision::FIRST, |(key, _)| Revision(key.value().0)))
}

pub fn mark(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<Option<u64>, Error> {
    Ok(meta.get(name).fault("read a mark")?.map(|value| value.value()))
}

type HistoryBound<'s> = Bound<(&'s [u8], u64, u8)>;

/// Bounds of a span in the history.
fn history_bounds(span: &Span) -> (HistoryBound<'_>, HistoryBound<'_>) {
    let end = match &span.end {
        RangeEnd::Single => Bound::Included((&span.start[..], u64::MAX, u8::MAX)),
        RangeEnd::Exclusive(end) => Bound::Excluded((&end[..], 0, 0)),
        RangeEnd::Unbounded => Bound::Unbounded,
    };
    (Bound::Included((&span.start[..], 0, 0)), end)
}

impl<C, H, L, S, A, M> Tables<C, H, L, S, A, M>
where
    C: ReadableTable<&'static [u8], &'static [u8]>,
    H: ReadableTable<HistoryKey, &'static [u8]>,
    L: ReadableTable<(u64, u32), &'static [u8]>,
    S: ReadableTable<i64, u64>,
    A: ReadableTable<(i64, &'static [u8]), ()>,
{
    /// The row that a put at `revision` made.
    pub fn row_put_at(&self, key: &[u8], revision: Revision) -> Result<KeyValue, Error> {
        if let Some(kv) = self.get(key)?.filter(|kv| kv.mod_revision == revision) {
            return Ok(kv);
        }
        let found = self.history.get((key, revision.0, ROW)).fault("read the history")?;
        let found = found.ok_or_else(|| damaged("the log names a row that is missing"))?;
        Ok(record::current(key, found.value())?.to_key_value())
    }

    /// The row that the key had just before `revision`, when it is still known.
    pub fn row_before(&self, key: &[u8], revision: Revision) -> Result<Option<KeyValue>, Error> {
        if revision <= self.compacted {
            return Ok(None);
        }
        let mut older = self.history.range((key, 0, 0)..(key, revision.0, 0)).fault("read the history")?;
        let Some(found) = older.next_back() else { return Ok(None) };
        let (_, found) = found.fault("read the history")?;
        Ok(match record::stored(key, found.value())? {
            Stored::Row(row) => Some(row.to_key_value()),
            Stored::Tombstone => None,
        })
    }

    pub fn attached(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        let from = (id.0, &[][..]);
        let mut keys = Vec::new();
        for entry in self.attached.range(from..).fault("read the keys of a lease")? {
            let (key, ()) = entry.map(|(key, _)| (key, ())).fault("read the keys of a lease")?;
            let (lease, key) = key.value();
            if lease != id.0 {
                break;
            }
            keys.push(Bytes::copy_from_slice(key));
        }
        Ok(keys)
    }

    /// Every lease, ascending.
    pub fn leases(&self) -> Result<Vec<Lease>, Error> {
        let mut leases = Vec::new();
        for entry in self.leases.iter().fault("read the leases")? {
            let (id, ttl) = entry.fault("read the leases")?;
            leases.push(Lease { id: LeaseId(id.value()), ttl_seconds: ttl.value() });
        }
        Ok(leases)
    }

    fn visit_current(&self, span: &Span, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        let mut rows = self.current.range::<&[u8]>(span.bounds()).fault("read rows")?;
        loop {
            let next = match order {
                SortOrder::Ascend => rows.next(),
                SortOrder::Descend => rows.next_back(),
            };
            let Some(entry) = next else { return Ok(()) };
            let (key, value) = entry.fault("read rows")?;
            if visit(record::current(key.value(), value.value())?).is_break() {
                return Ok(());
            }
        }
    }

    /// Merges the current rows that are old enough with what the history says about the others.
    fn visit_at(&self, span: &Span, at: Revision, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        let mut rows = self.current.range::<&[u8]>(span.bounds()).fault("read rows")?;
        let mut past = self.history.range::<(&[u8], u64, u8)>(history_bounds(span)).fault("read the history")?;
        let mut next_row = || match order {
            SortOrder::Ascend => rows.next(),
            SortOrder::Descend => rows.next_back(),
        };
        let mut next_past = || match order {
            SortOrder::Ascend => past.next(),
            SortOrder::Descend => past.next_back(),
        };
        let mut row = next_row().transpose().fault("read rows")?;
        let mut old = next_past().transpose().fault("read the history")?;
        loop {
            let key = match (&row, &old) {
                (None, None) => return Ok(()),
                (Some((key, _)), None) => key.value().to_vec(),
                (None, Some((key, _))) => key.value().0.to_vec(),
                (Some((row, _)), Some((old, _))) => {
                    let (row, old) = (row.value(), old.value().0);
                    match order {
                        SortOrder::Ascend => row.min(old).to_vec(),
                        SortOrder::Descend => row.max(old).to_vec(),
                    }
                }
            };
            // The newest entry of this key that is not newer than `at`.
            let mut found: Option<KeyValue> = None;
            let mut found_at = (0, 0);
            while let Some((entry, value)) = &old {
                let (entry_key, revision, kind) = entry.value();
                if entry_key != key {
                    break;
                }
                if revision <= at.0 && (revision, kind) >= found_at {
                    found_at = (revision, kind);
                    found = match record::stored(&key, value.value())? {
                        Stored::Row(row) => Some(row.to_key_value()),
                        Stored::Tombstone => None,
                    };
                }
                old = next_past().transpose().fault("read the history")?;
            }
            if let Some((_, value)) = row.as_ref().filter(|(entry, _)| entry.value() == key) {
                let current = record::current(&key, value.value())?;
                if current.mod_revision <= at {
                    found = Some(current.to_key_value());
                }
                row = next_row().transpose().fault("read rows")?;
            }
            if let Some(kv) = found
                && visit(Row::of(&kv)).is_break()
            {
                return Ok(());
            }
        }
    }
}

impl<C, H, L, S, A, M> Rows for Tables<C, H, L, S, A, M>
where
    C: ReadableTable<&'static [u8], &'static [u8]>,
    H: ReadableTable<HistoryKey, &'static [u8]>,
    L: ReadableTable<(u64, u32), &'static [u8]>,
    S: ReadableTable<i64, u64>,
    A: ReadableTable<(i64, &'static [u8]), ()>,
{
    fn newest(&self) -> Revision {
        self.newest
    }

    fn compacted(&self) -> Revision {
        self.compacted
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        let Some(found) = self.current.get(key).fault("read a row")? else { return Ok(None) };
        Ok(Some(record::current(key, found.value())?.to_key_value()))
    }

    fn visit(&self, span: &Span, at: Option<Revision>, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        match at {
            None => self.visit_current(span, order, visit),
            Some(at) => self.visit_at(span, at, order, visit),
        }
    }

    fn changed(&self, span: &Span, since: Revision) -> Result<Option<Vec<Key>>, Error> {
        let behind = self.newest.0.saturating_sub(since.0);
        if self.unlogged || since <= self.compacted || behind > CHANGED_REVISIONS_MAX {
            return Ok(None);
        }
        let mut keys = BTreeSet::new();
        for entry in self.log.range((since.0, 0)..).fault("read the log")? {
            let (at, chunk) = entry.fault("read the log")?;
            let changes = record::changed(Revision(at.value().0), chunk.value())?;
            keys.extend(changes.into_iter().map(|change| change.key).filter(|key| span.contains(key)));
        }
        Ok(Some(keys.into_iter().collect()))
    }
}

impl State for Draft<'_> {
    fn put(&mut self, new: &KeyValue, old: Option<&KeyValue>) -> Result<(), Error> {
        self.unlogged = true;
        let key = &new.key[..];
        if let Some(old) = old {
            let past = (key, old.mod_revision.0, ROW);
            self.history.insert(past, &record::row(old)[..]).fault("write the history")?;
        }
        self.current.insert(key, &record::row(new)[..]).fault("write a row")?;
        let lease_old = old.and_then(|old| old.lease);
        if lease_old != new.lease {
            self.detach(key, lease_old)?;
            if let Some(id) = new.lease {
                self.attached.insert((id.0, key), ()).fault("write the keys of a lease")?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, old: &KeyValue, revision: Revision) -> Result<(), Error> {
        self.unlogged = true;
        let key = &old.key[..];
        let past = (key, old.mod_revision.0, ROW);
        self.history.insert(past, &record::row(old)[..]).fault("write the history")?;
        let gone = (key, revision.0, GONE);
        self.history.insert(gone, &record::tombstone(key)[..]).fault("write the history")?;
        self.current.remove(key).fault("remove a row")?;
        self.detach(key, old.lease)
    }

    fn lease_exists(&self, id: LeaseId) -> Result<bool, Error> {
        Ok(self.leases.get(id.0).fault("read a lease")?.is_some())
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        self.attached(id)
    }
}

impl Draft<'_> {
    fn detach(&mut self, key: &[u8], lease: Option<LeaseId>) -> Result<(), Error> {
        let Some(id) = lease else { return Ok(()) };
        self.attached.remove((id.0, key)).fault("write the keys of a lease").map(drop)
    }
}

/// A snapshot as a state, for transactions of which no branch changes anything.
impl State for Snapshot {
    fn put(&mut self, _new: &KeyValue, _old: Option<&KeyValue>) -> Result<(), Error> {
        unreachable!("only transactions without puts are read from a snapshot")
    }

    fn delete(&mut self, _old: &KeyValue, _revision: Revision) -> Result<(), Error> {
        unreachable!("only transactions without deletes are read from a snapshot")
    }

    fn lease_exists(&self, id: LeaseId) -> Result<bool, Error> {
        Ok(self.leases.get(id.0).fault("read a lease")?.is_some())
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        self.attached(id)
    }
}
