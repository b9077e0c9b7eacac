//! What a transaction does to rows: the one place where it is decided, for every engine that keeps its own rows.
//!
//! First the comparisons of the transaction and of all nested ones are evaluated on the state before it, which fixes
//! the path. Then everything that could refuse along that path is checked. Only then are rows changed, so a refusal
//! never leaves half a transaction behind.

use std::ops::ControlFlow;

use crate::select::{self, Row, Rows};
use crate::{
    Compare, CompareOp, Error, EventKind, Keep, Key, KeyValue, LeaseId, Op, OpAnswer, Range, RangeEnd, Revision,
    SortOrder, Span, Target, Txn, TxnAnswer, Value, WatchEvent,
};

/// Rows that can be changed. An error from any of these leaves the state undefined; the engine drops it whole.
pub trait State: Rows {
    fn put(&mut self, new: &KeyValue, old: Option<&KeyValue>) -> Result<(), Error>;

    fn delete(&mut self, old: &KeyValue, revision: Revision) -> Result<(), Error>;

    fn lease_exists(&self, id: LeaseId) -> Result<bool, Error>;

    /// Keys attached to the lease, ascending.
    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Error>;
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied<A> {
    pub answer: A,
    /// With previous rows; empty when nothing changed and no revision was taken.
    pub events: Vec<WatchEvent>,
}

/// `txn` is admitted. On a refusal the state is as before.
pub fn apply(state: &mut dyn State, txn: &Txn) -> Result<Applied<TxnAnswer>, Error> {
    let path = Path::find(state, txn)?;
    path.check(state)?;
    let mut run = Run::new(state);
    let answer = run.branch(&path)?;
    Ok(Applied { answer, events: run.events })
}

/// Deletes the keys of a lease that exists; the lease itself is the caller's.
pub fn revoke(state: &mut dyn State, id: LeaseId) -> Result<Applied<Revision>, Error> {
    let keys = state.lease_keys(id)?;
    let mut run = Run::new(state);
    for key in keys {
        if let Some(old) = run.state.get(&key)? {
            run.delete(&old)?;
        }
    }
    Ok(Applied { answer: run.revision(), events: run.events })
}

/// The branch that is taken, and those of the nested transactions in it, in order.
struct Path<'t> {
    succeeded: bool,
    ops: &'t [Op],
    nested: Vec<Path<'t>>,
}

impl<'t> Path<'t> {
    fn find(state: &dyn State, txn: &'t Txn) -> Result<Self, Error> {
        let mut succeeded = true;
        for compare in &txn.when {
            if !holds(state, compare)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { &txn.then[..] } else { &txn.otherwise[..] };
        let mut nested = Vec::new();
        for op in ops {
            if let Op::Txn(txn) = op {
                nested.push(Self::find(state, txn)?);
            }
        }
        Ok(Self { succeeded, ops, nested })
    }

    /// Puts before reads, nested ones in their place: which of several refusals is told is etcd's order.
    fn check(&self, state: &dyn State) -> Result<(), Error> {
        self.check_ops(&mut |op| match op {
            Op::Put { key, keep, .. } if keep.anything() && state.get(key)?.is_none() => {
                Err(Error::KeyNotFound { key: key.clone() })
            }
            Op::Put { lease: Some(id), .. } if !state.lease_exists(*id)? => Err(Error::LeaseNotFound { id: *id }),
            Op::Put { .. } | Op::Range(_) | Op::Delete { .. } | Op::Txn(_) => Ok(()),
        })?;
        self.check_ops(&mut |op| match op {
            Op::Range(range) => select::readable(state, range.revision).map(|_| ()),
            Op::Put { .. } | Op::Delete { .. } | Op::Txn(_) => Ok(()),
        })
    }

    fn check_ops(&self, check: &mut dyn FnMut(&Op) -> Result<(), Error>) -> Result<(), Error> {
        let mut nested = self.nested.iter();
        for op in self.ops {
            match op {
                Op::Txn(_) => {
                    nested.next().expect("the path holds every nested transaction of its branch").check_ops(check)?;
                }
                Op::Put { .. } | Op::Delete { .. } | Op::Range(_) => check(op)?,
            }
        }
        Ok(())
    }
}

fn holds(state: &dyn State, compare: &Compare) -> Result<bool, Error> {
    let Compare { key, end, op, target } = compare;
    if *end == RangeEnd::Single {
        let row = state.get(key)?;
        return Ok(said_of(row.as_ref().map(Row::of), *op, target));
    }
    let (mut empty, mut all) = (true, true);
    let span = Span::new(key.clone(), end.clone());
    state.visit(&span, None, SortOrder::Ascend, &mut |row: Row<'_>| {
        empty = false;
        all = said_of(Some(row), *op, target);
        if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(if empty { said_of(None, *op, target) } else { all })
}

fn said_of(row: Option<Row<'_>>, op: CompareOp, target: &Target) -> bool {
    let (version, create, modified, lease) = row.map_or((0, Revision::ZERO, Revision::ZERO, None), |row| {
        (row.version, row.create_revision, row.mod_revision, row.lease)
    });
    match target {
        Target::Version(value) => op.holds(&version, value),
        Target::Create(value) => op.holds(&create, value),
        Target::Mod(value) => op.holds(&modified, value),
        Target::Lease(value) => op.holds(&lease, value),
        Target::Value(value) => row.is_some_and(|row| op.holds(row.value, &value[..])),
    }
}

impl CompareOp {
    fn holds<T: Ord + ?Sized>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::Less => left < right,
        }
    }
}

struct Run<'s> {
    state: &'s mut dyn State,
    before: Revision,
    events: Vec<WatchEvent>,
}

impl<'s> Run<'s> {
    fn new(state: &'s mut dyn State) -> Self {
        let before = state.newest();
        Self { state, before, events: Vec::new() }
    }

    /// The newest revision, this transaction's own once it has changed something.
    fn revision(&self) -> Revision {
        if self.events.is_empty() { self.before } else { self.before.next() }
    }

    fn branch(&mut self, path: &Path<'_>) -> Result<TxnAnswer, Error> {
        let mut answers = Vec::with_capacity(path.ops.len());
        let mut nested = path.nested.iter();
        for op in path.ops {
            answers.push(match op {
                Op::Put { key, value, lease, keep } => {
                    let previous = self.put(key, value, *lease, *keep)?;
                    OpAnswer::Put { previous }
                }
                Op::Delete { range } => self.delete_range(range)?,
                Op::Range(range) => OpAnswer::Range(select::answer(&*self.state, range, self.revision())?),
                Op::Txn(_) => {
                    let path = nested.next().expect("the path holds every nested transaction of its branch");
                    OpAnswer::Txn(self.branch(path)?)
                }
            });
        }
        Ok(TxnAnswer { revision: self.revision(), succeeded: path.succeeded, answers })
    }

    fn put(&mut self, key: &Key, value: &Value, lease: Option<LeaseId>, keep: Keep) -> Result<Option<KeyValue>, Error> {
        let revision = self.before.next();
        let old = self.state.get(key)?;
        let (value, lease) = match &old {
            Some(old) => (if keep.value { &old.value } else { value }, if keep.lease { old.lease } else { lease }),
            None if keep.anything() => unreachable!("it was there, and admission lets no key be deleted and then put"),
            None => (value, lease),
        };
        let new = KeyValue {
            key: key.clone(),
            value: value.clone(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(1, |old| old.version + 1),
            lease,
        };
        self.state.put(&new, old.as_ref())?;
        self.events.push(WatchEvent { kind: EventKind::Put, kv: new, previous: old.clone() });
        Ok(old)
    }

    fn delete(&mut self, old: &KeyValue) -> Result<(), Error> {
        let revision = self.before.next();
        self.state.delete(old, revision)?;
        // "Previous" is from before the revision, not from before the operation.
        let previous = if old.mod_revision == revision {
            self.events.iter().rev().find(|event| event.kv.key == old.key).and_then(|event| event.previous.clone())
        } else {
            Some(old.clone())
        };
        self.events.push(WatchEvent {
            kind: EventKind::Delete,
            kv: KeyValue { key: old.key.clone(), mod_revision: revision, ..KeyValue::default() },
            previous,
        });
        Ok(())
    }

    fn delete_range(&mut self, range: &Range) -> Result<OpAnswer, Error> {
        let mut previous = Vec::new();
        let span = Span::new(range.start.clone(), range.end.clone());
        self.state.visit(&span, None, SortOrder::Ascend, &mut |row: Row<'_>| {
            previous.push(row.to_key_value());
            ControlFlow::Continue(())
        })?;
        for old in &previous {
            self.delete(old)?;
        }
        Ok(OpAnswer::Delete { deleted: previous.len() as u64, previous })
    }
}
