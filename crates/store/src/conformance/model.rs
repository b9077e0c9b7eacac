//! A store too plain to be wrong: a whole copy of all rows for every revision, and every question answered by looking
//! at all of them. It shares nothing with the engines but the words and the admission of requests.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Batch, Compare, CompareOp, Error, EventKind, Key, KeyValue, LeaseId, Op, OpAnswer, Range, RangeAnswer, RangeEnd,
    Revision, SortBy, SortOrder, Target, Txn, TxnAnswer, WatchEvent, WatchRequest, admit,
};

type Rows = BTreeMap<Key, KeyValue>;

pub struct Model {
    /// By revision; 0 and 1 are empty.
    past: Vec<Rows>,
    events: BTreeMap<u64, Vec<WatchEvent>>,
    compacted: Revision,
    leases: BTreeSet<LeaseId>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            past: vec![Rows::new(), Rows::new()],
            events: BTreeMap::new(),
            compacted: Revision::ZERO,
            leases: BTreeSet::new(),
        }
    }
}

fn within(start: &Key, end: &RangeEnd, key: &Key) -> bool {
    match end {
        RangeEnd::Single => key == start,
        RangeEnd::Exclusive(end) => start <= key && key < end,
        RangeEnd::Unbounded => start <= key,
    }
}

impl Model {
    pub fn newest(&self) -> Revision {
        Revision(self.past.len() as u64 - 1)
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    fn now(&self) -> Rows {
        self.past.last().cloned().unwrap_or_default()
    }

    fn check(&self, range: &Range) -> Result<(), Error> {
        let Some(asked) = range.revision.filter(|revision| revision.0 > 0) else { return Ok(()) };
        if asked > self.newest() {
            return Err(Error::FutureRevision { asked, newest: self.newest() });
        }
        if asked < self.compacted {
            return Err(Error::Compacted { compacted: self.compacted });
        }
        Ok(())
    }

    pub fn range(&self, range: &Range) -> Result<RangeAnswer, Error> {
        admit::range(range)?;
        self.check(range)?;
        Ok(self.look(range, &self.now(), self.newest()))
    }

    fn look(&self, range: &Range, now: &Rows, newest: Revision) -> RangeAnswer {
        let rows = match range.revision {
            Some(revision) if revision.0 > 0 => &self.past[revision.0 as usize],
            _ => now,
        };
        let mut found: Vec<KeyValue> =
            rows.values().filter(|kv| within(&range.start, &range.end, &kv.key)).cloned().collect();
        let count = found.len() as u64;
        found.retain(|kv| {
            kv.mod_revision >= range.min_mod_revision.unwrap_or(Revision::ZERO)
                && kv.mod_revision <= range.max_mod_revision.unwrap_or(Revision(u64::MAX))
                && kv.create_revision >= range.min_create_revision.unwrap_or(Revision::ZERO)
                && kv.create_revision <= range.max_create_revision.unwrap_or(Revision(u64::MAX))
        });
        if let Some(sort) = range.sort {
            match sort.by {
                SortBy::Key => found.sort_by_key(|kv| kv.key.clone()),
                SortBy::Version => found.sort_by_key(|kv| kv.version),
                SortBy::Create => found.sort_by_key(|kv| kv.create_revision),
                SortBy::Mod => found.sort_by_key(|kv| kv.mod_revision),
                SortBy::Value => found.sort_by_key(|kv| kv.value.clone()),
            }
            if sort.order == SortOrder::Descend {
                match sort.by {
                    SortBy::Key => found.reverse(),
                    SortBy::Version => found.sort_by_key(|kv| std::cmp::Reverse(kv.version)),
                    SortBy::Create => found.sort_by_key(|kv| std::cmp::Reverse(kv.create_revision)),
                    SortBy::Mod => found.sort_by_key(|kv| std::cmp::Reverse(kv.mod_revision)),
                    SortBy::Value => found.sort_by_key(|kv| std::cmp::Reverse(kv.value.clone())),
                }
            }
        }
        if range.count_only {
            found.clear();
        }
        let more = range.limit > 0 && found.len() > range.limit;
        if more {
            found.truncate(range.limit);
        }
        if range.keys_only {
            for kv in &mut found {
                kv.value.clear();
            }
        }
        RangeAnswer { revision: newest, items: found, count, more }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let now = self.now();
        let mut rows: Vec<_> =
            now.values().filter(|kv| within(&compare.key, &compare.end, &kv.key)).map(Some).collect();
        if rows.is_empty() {
            rows.push(None);
        }
        rows.into_iter().all(|row| Self::said_of(row, compare))
    }

    fn said_of(row: Option<&KeyValue>, compare: &Compare) -> bool {
        let some = row.cloned().unwrap_or_default();
        let order = match &compare.target {
            Target::Version(value) => some.version.cmp(value),
            Target::Create(value) => some.create_revision.cmp(value),
            Target::Mod(value) => some.mod_revision.cmp(value),
            Target::Lease(value) => some.lease.map_or(0, |id| id.0).cmp(&value.map_or(0, |id| id.0)),
            Target::Value(value) => match row {
                None => return false,
                Some(row) => row.value.cmp(value),
            },
        };
        match compare.op {
            CompareOp::Equal => order.is_eq(),
            CompareOp::NotEqual => order.is_ne(),
            CompareOp::Greater => order.is_gt(),
            CompareOp::Less => order.is_lt(),
        }
    }

    fn taken<'t>(&self, txn: &'t Txn) -> (bool, &'t [Op]) {
        let succeeded = txn.when.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.then } else { &txn.otherwise })
    }

    /// Puts first, then reads; what is nested, where it stands.
    fn refuses(&self, txn: &Txn) -> Result<(), Error> {
        let mut ops = Vec::new();
        self.flat(txn, &mut ops);
        for op in &ops {
            if let Op::Put { key, lease, keep, .. } = op {
                if keep.anything() && !self.now().contains_key(key) {
                    return Err(Error::KeyNotFound { key: key.clone() });
                }
                if let Some(id) = lease.filter(|id| !self.leases.contains(id)) {
                    return Err(Error::LeaseNotFound { id });
                }
            }
        }
        for op in &ops {
            if let Op::Range(range) = op {
                self.check(range)?;
            }
        }
        Ok(())
    }

    /// The operations that are done, of all depths.
    fn flat<'t>(&self, txn: &'t Txn, flat: &mut Vec<&'t Op>) {
        let (_, ops) = self.taken(txn);
        for op in ops {
            match op {
                Op::Txn(nested) => self.flat(nested, flat),
                Op::Put { .. } | Op::Delete { .. } | Op::Range(_) => flat.push(op),
            }
        }
    }

    pub fn txn(&mut self, txn: &Txn) -> Result<TxnAnswer, Error> {
        admit::txn(txn)?;
        self.refuses(txn)?;
        let mut rows = self.now();
        let mut events = Vec::new();
        let answer = self.play(txn, &mut rows, &mut events);
        self.commit(rows, events);
        Ok(answer)
    }

    fn commit(&mut self, rows: Rows, events: Vec<WatchEvent>) {
        if !events.is_empty() {
            self.past.push(rows);
            self.events.insert(self.newest().0, events);
        }
    }

    fn play(&self, txn: &Txn, rows: &mut Rows, events: &mut Vec<WatchEvent>) -> TxnAnswer {
        let (succeeded, ops) = self.taken(txn);
        let mut answers = Vec::new();
        for op in ops {
            let newest = if events.is_empty() { self.newest() } else { self.newest().next() };
            answers.push(match op {
                Op::Put { key, value, lease, keep } => {
                    let previous = rows.get(key).cloned();
                    let had = previous.clone().unwrap_or_default();
                    let value = if keep.value { &had.value } else { value };
                    let lease = if keep.lease { &had.lease } else { lease };
                    let at = self.newest().next();
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: previous.as_ref().map_or(at, |kv| kv.create_revision),
                        mod_revision: at,
                        version: previous.as_ref().map_or(0, |kv| kv.version) + 1,
                        lease: *lease,
                    };
                    rows.insert(key.clone(), kv.clone());
                    events.push(self.event(EventKind::Put, kv));
                    OpAnswer::Put { previous }
                }
                Op::Delete { range } => {
                    let previous: Vec<KeyValue> =
                        rows.values().filter(|kv| within(&range.start, &range.end, &kv.key)).cloned().collect();
                    for kv in &previous {
                        self.remove(&kv.key, rows, events);
                    }
                    OpAnswer::Delete { deleted: previous.len() as u64, previous }
                }
                Op::Range(range) => OpAnswer::Range(self.look(range, rows, newest)),
                Op::Txn(nested) => OpAnswer::Txn(self.play(nested, rows, events)),
            });
        }
        let revision = if events.is_empty() { self.newest() } else { self.newest().next() };
        TxnAnswer { revision, succeeded, answers }
    }

    fn event(&self, kind: EventKind, kv: KeyValue) -> WatchEvent {
        WatchEvent { kind, previous: self.now().get(&kv.key).cloned(), kv }
    }

    fn remove(&self, key: &Key, rows: &mut Rows, events: &mut Vec<WatchEvent>) {
        rows.remove(key);
        let gone = KeyValue { key: key.clone(), mod_revision: self.newest().next(), ..KeyValue::default() };
        events.push(self.event(EventKind::Delete, gone));
    }

    pub fn grant(&mut self, id: LeaseId) -> Result<(), Error> {
        if self.leases.insert(id) { Ok(()) } else { Err(Error::LeaseExists { id }) }
    }

    pub fn revoke(&mut self, id: LeaseId) -> Result<Revision, Error> {
        if !self.leases.remove(&id) {
            return Err(Error::LeaseNotFound { id });
        }
        let mut rows = self.now();
        let mut events = Vec::new();
        for kv in self.now().values().filter(|kv| kv.lease == Some(id)) {
            self.remove(&kv.key, &mut rows, &mut events);
        }
        self.commit(rows, events);
        Ok(self.newest())
    }

    /// Keys attached to the lease.
    pub fn attached(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        if !self.leases.contains(&id) {
            return Err(Error::LeaseNotFound { id });
        }
        Ok(self.now().values().filter(|kv| kv.lease == Some(id)).map(|kv| kv.key.clone()).collect())
    }

    pub fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        if revision > self.newest() {
            return Err(Error::FutureRevision { asked: revision, newest: self.newest() });
        }
        if revision <= self.compacted {
            return Err(Error::Compacted { compacted: self.compacted });
        }
        self.compacted = revision;
        Ok(())
    }

    /// Everything that a watch from the past sees up to now.
    pub fn watch(&self, request: &WatchRequest) -> Result<Vec<Batch>, Error> {
        admit::watch(request)?;
        let from = request.from.unwrap_or(self.newest().next());
        if from < self.compacted {
            return Err(Error::Compacted { compacted: self.compacted });
        }
        let mut batches = Vec::new();
        for (revision, events) in self.events.range(from.0..) {
            let seen = events.iter().filter(|event| within(&request.start, &request.end, &event.kv.key));
            let mut events: Vec<WatchEvent> = seen.cloned().collect();
            if !request.previous {
                for event in &mut events {
                    event.previous = None;
                }
            }
            if !events.is_empty() {
                batches.push(Batch { revision: Revision(*revision), events });
            }
        }
        Ok(batches)
    }
}
