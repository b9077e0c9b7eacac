//! The state inside a writing transaction: rows that were loaded, what the requests made of them, and the difference
//! that is to be written.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use store::apply::State;
use store::select::{Row, Rows, Visit};
use store::{Error, EventKind, Key, KeyValue, LeaseId, Revision, SortOrder, Span, WatchEvent};

use crate::error::Failure;
use crate::load::Loaded;
use crate::sql;
use crate::wanted::Wanted;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    pub ttl_seconds: u64,
    pub ran_out: bool,
    /// Its time begins anew, or at all.
    renewed: bool,
}

pub struct Draft {
    /// The newest revision before the transaction.
    base: Revision,
    newest: Revision,
    compacted: (Revision, Revision),
    wanted: Wanted,
    /// Each key's rows by revision, ascending and never empty; `None` is a delete.
    rows: BTreeMap<Key, Vec<(Revision, Option<KeyValue>)>>,
    past: Vec<Vec<KeyValue>>,
    leases: BTreeMap<LeaseId, Term>,
    stored_leases: Vec<LeaseId>,
    pub difference: Difference,
}

/// Rows to write.
#[derive(Default, Debug)]
pub struct Difference {
    pub written: Vec<Written>,
    pub ended: Vec<Ended>,
    /// Rows in `written` that are the present.
    present: HashMap<Key, usize>,
    /// Stored rows of the present that are not over yet: revision, and place in it.
    stored: HashMap<Key, (Revision, i32)>,
}

/// A stored row that was the present, and since when it is over.
#[derive(Debug)]
pub struct Ended {
    pub revision: Revision,
    pub nth: i32,
    pub key: Key,
    pub at: Revision,
}

#[derive(Debug)]
pub struct Written {
    pub revision: Revision,
    pub nth: i32,
    pub kind: EventKind,
    pub kv: KeyValue,
    pub ended: Option<Revision>,
}

impl Draft {
    pub fn new(wanted: Wanted, loaded: Loaded) -> Self {
        let Loaded { newest, compacted, present, past, leases } = loaded;
        let stored = present.iter().map(|(kv, nth)| (kv.key.clone(), (kv.mod_revision, *nth))).collect();
        let rows = present.into_iter().map(|(kv, _)| (kv.key.clone(), vec![(kv.mod_revision, Some(kv))]));
        let term = |(id, ttl_seconds, ran_out)| (id, Term { ttl_seconds, ran_out, renewed: false });
        Self {
            base: newest,
            newest,
            compacted: (compacted, compacted),
            wanted,
            rows: rows.collect(),
            past,
            stored_leases: leases.iter().map(|lease| lease.0).collect(),
            leases: leases.into_iter().map(term).collect(),
            difference: Difference { stored, ..Difference::default() },
        }
    }

    /// Makes the changes of one request the next revision.
    pub fn take_revision(&mut self, events: &[WatchEvent]) -> Revision {
        self.newest = self.newest.next();
        self.difference.add(self.newest, events);
        self.newest
    }

    pub fn compact(&mut self, revision: Revision) {
        self.compacted.1 = revision;
    }

    pub fn lease(&self, id: LeaseId) -> Option<Term> {
        self.leases.get(&id).copied()
    }

    pub fn begin_lease(&mut self, id: LeaseId, ttl_seconds: u64) {
        self.leases.insert(id, Term { ttl_seconds, ran_out: false, renewed: true });
    }

    pub fn end_lease(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// Whether the head moves.
    pub fn moved(&self) -> bool {
        self.newest != self.base || self.compacted.0 != self.compacted.1
    }

    /// Leases whose time begins now, and leases that are gone.
    pub fn lease_changes(&self) -> (Vec<(LeaseId, u64)>, Vec<LeaseId>) {
        let renewed = self.leases.iter().filter(|(_, term)| term.renewed).map(|(id, term)| (*id, term.ttl_seconds));
        let gone = self.stored_leases.iter().filter(|id| !self.leases.contains_key(id)).copied();
        (renewed.collect(), gone.collect())
    }

    /// Everything a request touches was loaded; anything else would be a mistake in [`Wanted`], and no key may ever be
    /// taken for missing because of one.
    fn loaded(&self, start: &[u8], end: &[u8]) -> Result<(), Error> {
        if self.wanted.holds(start, end) {
            return Ok(());
        }
        let told = format!("keys from {} on were not loaded", start.escape_ascii());
        Err(Failure::broken(told).before("apply a transaction"))
    }
}

impl Difference {
    fn add(&mut self, revision: Revision, events: &[WatchEvent]) {
        for (nth, event) in events.iter().enumerate() {
            let key = &event.kv.key;
            let kind = event.kind;
            if let Some(written) = self.present.remove(key) {
                self.written[written].ended = Some(revision);
            } else if let Some((stored, nth)) = self.stored.remove(key) {
                self.ended.push(Ended { revision: stored, nth, key: key.clone(), at: revision });
            }
            let ended = match kind {
                EventKind::Put => {
                    self.present.insert(key.clone(), self.written.len());
                    None
                }
                EventKind::Delete => Some(revision),
            };
            self.written.push(Written { revision, nth: nth as i32, kind, kv: event.kv.clone(), ended });
        }
    }
}

impl Rows for Draft {
    fn newest(&self) -> Revision {
        self.newest
    }

    fn compacted(&self) -> Revision {
        self.compacted.1
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        match self.rows.get(key) {
            Some(rows) => Ok(rows.last().and_then(|(_, row)| row.clone())),
            None => self.loaded(key, &[key, b"\0"].concat()).map(|()| None),
        }
    }

    fn visit(&self, span: &Span, at: Option<Revision>, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        if let Some(at) = at.filter(|at| *at < self.base) {
            let nth = self.wanted.past.iter().position(|(past, revision)| past == span && *revision == at);
            let rows = nth.and_then(|nth| self.past.get(nth));
            let rows = rows.ok_or_else(|| Failure::broken("a past range was not loaded").before("apply"))?;
            let mut visit = |kv: &KeyValue| visit(Row::of(kv));
            let _: ControlFlow<()> = match order {
                SortOrder::Ascend => rows.iter().try_for_each(&mut visit),
                SortOrder::Descend => rows.iter().rev().try_for_each(&mut visit),
            };
            return Ok(());
        }
        let (start, end) = sql::stretch(&span.start, &span.end);
        self.loaded(&start, &end)?;
        let mut visit = |rows: &Vec<(Revision, Option<KeyValue>)>| {
            let known = at.map_or(rows.len(), |at| rows.partition_point(|(revision, _)| *revision <= at));
            match rows[..known].last() {
                Some((_, Some(kv))) => visit(Row::of(kv)),
                Some((_, None)) | None => ControlFlow::Continue(()),
            }
        };
        let mut rows = self.rows.range::<[u8], _>(span.bounds()).map(|(_, rows)| rows);
        let _: ControlFlow<()> = match order {
            SortOrder::Ascend => rows.try_for_each(&mut visit),
            SortOrder::Descend => rows.rev().try_for_each(&mut visit),
        };
        Ok(())
    }
}

impl State for Draft {
    fn put(&mut self, new: &KeyValue, _old: Option<&KeyValue>) -> Result<(), Error> {
        self.rows.entry(new.key.clone()).or_default().push((new.mod_revision, Some(new.clone())));
        Ok(())
    }

    fn delete(&mut self, old: &KeyValue, revision: Revision) -> Result<(), Error> {
        self.rows.entry(old.key.clone()).or_default().push((revision, None));
        Ok(())
    }

    fn lease_exists(&self, id: LeaseId) -> Result<bool, Error> {
        Ok(self.leases.contains_key(&id))
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        if !self.wanted.attached.contains(&id) {
            return Err(Failure::broken("the keys of a lease were not loaded").before("revoke a lease"));
        }
        let last = self.rows.values().filter_map(|rows| rows.last().and_then(|(_, row)| row.as_ref()));
        Ok(last.filter(|kv| kv.lease == Some(id)).map(|kv| kv.key.clone()).collect())
    }
}
