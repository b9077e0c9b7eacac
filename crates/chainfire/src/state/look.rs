//! How the tree looks as rows, at one point of its sequence.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;
use lsm_tree::Slice;
use store::apply::State;
use store::select::{Row, Rows, Visit};
use store::{Error, Key, KeyValue, LeaseId, Revision, SortOrder, Span};

use super::disk::{Disk, Items};
use super::keys;
use super::recent::Recent;
use super::seen::Seq;
use crate::fault::damaged;
use crate::record::{self, Stored};

/// Beyond this many revisions, looking at every row of a span is taken to be cheaper than looking through the log.
const CHANGED_REVISIONS_MAX: u64 = 65_536;

#[derive(Clone, Copy)]
pub struct Look<'d> {
    pub disk: &'d dyn Disk,
    pub recent: &'d Recent,
    pub at: Seq,
    pub newest: Revision,
    pub compacted: Revision,
}

/// From whichever end.
struct Ordered {
    items: Items,
    order: SortOrder,
}

impl Ordered {
    fn next(&mut self) -> Result<Option<(Slice, Slice)>, Error> {
        let next = match self.order {
            SortOrder::Ascend => self.items.next(),
            SortOrder::Descend => self.items.next_back(),
        };
        next.transpose()
    }
}

/// An entry of the past, taken apart.
struct Old {
    entry: Slice,
    sealed: Slice,
}

impl Old {
    fn parts(&self) -> Result<(Cow<'_, [u8]>, Revision, u8), Error> {
        Ok(keys::past_of(&self.entry)?)
    }
}

impl Look<'_> {
    fn range(&self, (from, to): (Vec<u8>, Vec<u8>), order: SortOrder) -> Ordered {
        Ordered { items: self.disk.range(&from, &to, self.at), order }
    }

    /// The sealed record of the current row.
    pub fn raw(&self, key: &[u8]) -> Result<Option<Slice>, Error> {
        let place = keys::current(key);
        if let Some(sealed) = self.recent.get(&place)
            && record::put_at(&sealed).is_some_and(|revision| revision <= self.newest)
        {
            return Ok(Some(sealed));
        }
        self.disk.get(&place, self.at)
    }

    /// The row that a put at `revision` made.
    pub fn row_put_at(&self, key: &[u8], revision: Revision) -> Result<KeyValue, Error> {
        if let Some(kv) = self.get(key)?.filter(|kv| kv.mod_revision == revision) {
            return Ok(kv);
        }
        let found = self.disk.get(&keys::past(key, revision, keys::ROW), self.at)?;
        let found = found.ok_or_else(|| damaged("the log names a row that is missing"))?;
        Ok(record::current(key, &found)?.to_key_value())
    }

    /// The row put at `before` that a change at `revision` superseded, when it is still known.
    pub fn row_before(&self, key: &[u8], before: Revision, revision: Revision) -> Result<Option<KeyValue>, Error> {
        if before == Revision::ZERO || revision <= self.compacted {
            return Ok(None);
        }
        let found = self.disk.get(&keys::past(key, before, keys::ROW), self.at)?;
        let found = found.ok_or_else(|| damaged("the log names a row that is missing"))?;
        Ok(Some(record::current(key, &found)?.to_key_value()))
    }

    /// Entries of the log from `from`, up to `to`, both included.
    pub fn log(&self, from: Revision, to: Revision) -> Items {
        self.disk.range(&keys::log(from, 0), &keys::log(to.next(), 0), self.at)
    }

    pub fn attached(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        let (from, to) = keys::attached_to(id);
        let mut found = Vec::new();
        for item in self.disk.range(&from, &to, self.at) {
            let (key, sealed) = item?;
            record::plainly(&key, &sealed)?;
            found.push(Bytes::copy_from_slice(keys::attached_key(&key)?));
        }
        Ok(found)
    }

    fn visit_current(&self, span: &Span, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        let mut rows = self.range(keys::current_span(span), order);
        while let Some((key, sealed)) = rows.next()? {
            if visit(record::current(&key[1..], &sealed)?).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Merges the current rows that are old enough with what the past says about the others.
    fn visit_at(&self, span: &Span, at: Revision, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        let mut walk = self.versions(span, order)?;
        let mut versions = Vec::new();
        while let Some(key) = walk.next(&mut versions)? {
            let newest = versions.iter().filter(|version| version.revision <= at).max_by_key(|version| version.place());
            if let Some(newest) = newest.filter(|version| version.kind == keys::ROW)
                && visit(newest.row(&key)?).is_break()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The keys of `span`, each with everything that is known of it.
    fn versions(&self, span: &Span, order: SortOrder) -> Result<Versions, Error> {
        let (rows, past) = (keys::current_span(span), keys::past_span(span));
        let range = |(from, to): (Vec<u8>, Vec<u8>)| self.disk.range(&from, &to, self.at);
        Versions::new(range(rows), range(past), order)
    }

    /// As [`Look::versions`] of every key in ascending order; the moment may be closed while it goes on.
    pub fn frozen_versions(&self) -> Result<Versions, Error> {
        let range = |letter| {
            let (from, to) = keys::all(letter);
            self.disk.frozen(&from, &to, self.at)
        };
        Versions::new(range(keys::CURRENT), range(keys::PAST), SortOrder::Ascend)
    }
}

/// Keys in order, each with everything that is known of it.
pub struct Versions {
    rows: Ordered,
    past: Ordered,
    row: Option<(Slice, Slice)>,
    old: Option<Old>,
    order: SortOrder,
}

impl Versions {
    fn new(rows: Items, past: Items, order: SortOrder) -> Result<Self, Error> {
        let (mut rows, mut past) = (Ordered { items: rows, order }, Ordered { items: past, order });
        let (row, old) = (rows.next()?, next_old(&mut past)?);
        Ok(Self { rows, past, row, old, order })
    }

    /// The next key; what is known of it is put into `versions`, in no order.
    pub fn next(&mut self, versions: &mut Vec<Version>) -> Result<Option<Vec<u8>>, Error> {
        let key = {
            let row = self.row.as_ref().map(|(key, _)| &key[1..]);
            let old = self.old.as_ref().map(Old::parts).transpose()?.map(|(key, _, _)| key);
            match (row, old) {
                (None, None) => return Ok(None),
                (Some(row), None) => row.to_vec(),
                (None, Some(old)) => old.into_owned(),
                (Some(row), Some(old)) => match self.order {
                    SortOrder::Ascend => row.min(&old[..]).to_vec(),
                    SortOrder::Descend => row.max(&old[..]).to_vec(),
                },
            }
        };
        versions.clear();
        while let Some(entry) = &self.old {
            let (entry_key, revision, kind) = entry.parts()?;
            if *entry_key != key[..] {
                break;
            }
            versions.push(Version { revision, kind, sealed: entry.sealed.clone() });
            self.old = next_old(&mut self.past)?;
        }
        if let Some((_, sealed)) = self.row.as_ref().filter(|(entry, _)| entry[1..] == key[..]) {
            let revision = record::current(&key, sealed)?.mod_revision;
            versions.push(Version { revision, kind: keys::ROW, sealed: sealed.clone() });
            self.row = self.rows.next()?;
        }
        Ok(Some(key))
    }
}

fn next_old(past: &mut Ordered) -> Result<Option<Old>, Error> {
    Ok(past.next()?.map(|(entry, sealed)| Old { entry, sealed }))
}

/// What a key became at a revision.
pub struct Version {
    pub revision: Revision,
    pub kind: u8,
    pub sealed: Slice,
}

impl Version {
    /// Where it comes among the versions of its key.
    pub fn place(&self) -> (Revision, u8) {
        (self.revision, self.kind)
    }

    pub fn row<'v>(&'v self, key: &'v [u8]) -> Result<Row<'v>, Error> {
        match record::stored(key, &self.sealed)? {
            Stored::Row(row) => Ok(row),
            Stored::Tombstone => Err(damaged("a row of the past is a tombstone")),
        }
    }
}

impl Rows for Look<'_> {
    fn newest(&self) -> Revision {
        self.newest
    }

    fn compacted(&self) -> Revision {
        self.compacted
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        let Some(found) = self.raw(key)? else { return Ok(None) };
        Ok(Some(record::current(key, &found)?.to_key_value()))
    }

    fn visit(&self, span: &Span, at: Option<Revision>, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        match at {
            None => self.visit_current(span, order, visit),
            Some(at) => self.visit_at(span, at, order, visit),
        }
    }

    fn changed(&self, span: &Span, since: Revision) -> Result<Option<Vec<Key>>, Error> {
        let behind = self.newest.0.saturating_sub(since.0);
        if since <= self.compacted || behind > CHANGED_REVISIONS_MAX {
            return Ok(None);
        }
        let mut found = BTreeSet::new();
        for item in self.log(since, self.newest) {
            let (key, sealed) = item?;
            let (revision, _) = keys::log_of(&key)?;
            let changes = record::trace(revision, &sealed)?;
            found.extend(changes.into_iter().map(|change| change.key).filter(|key| span.contains(key)));
        }
        Ok(Some(found.into_iter().collect()))
    }
}

/// For transactions of which no branch changes anything.
impl State for Look<'_> {
    fn put(&mut self, _new: &KeyValue, _old: Option<&KeyValue>) -> Result<(), Error> {
        unreachable!("only transactions without puts are read from one moment")
    }

    fn delete(&mut self, _old: &KeyValue, _revision: Revision) -> Result<(), Error> {
        unreachable!("only transactions without deletes are read from one moment")
    }

    fn lease_exists(&self, id: LeaseId) -> Result<bool, Error> {
        Ok(self.disk.get(&keys::term(id), self.at)?.is_some())
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        self.attached(id)
    }
}
