//! Admission: is a request well formed and within the limits. Pure; says nothing about what the store holds.

use std::collections::HashSet;

use bytes::Bytes;

use crate::limits::{KEY_BYTES_MAX, LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN, REQUEST_BYTES_MAX, TXN_OPS_MAX};
use crate::{Error, LeaseId, Op, Range, RangeEnd, Span, Target, Txn, WatchRequest};

fn key(key: &[u8]) -> Result<(), Error> {
    if key.is_empty() {
        return Err(Error::KeyEmpty);
    }
    key_bytes(key)
}

fn key_bytes(key: &[u8]) -> Result<(), Error> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::KeyTooLarge { bytes: key.len(), max: KEY_BYTES_MAX });
    }
    Ok(())
}

/// An empty start is allowed where the end is open: the whole key space, or everything before a key.
fn span(start: &[u8], end: &RangeEnd) -> Result<(), Error> {
    match end {
        RangeEnd::Single => key(start),
        RangeEnd::Unbounded => key_bytes(start),
        RangeEnd::Exclusive(end) => {
            key_bytes(start)?;
            key_bytes(end)?;
            if end[..] < *start { Err(Error::RangeInverted) } else { Ok(()) }
        }
    }
}

pub fn range(range: &Range) -> Result<(), Error> {
    span(&range.start, &range.end)
}

pub fn watch(watch: &WatchRequest) -> Result<(), Error> {
    span(&watch.start, &watch.end)?;
    match &watch.end {
        // Such a watch could never deliver anything.
        RangeEnd::Exclusive(end) if *end == watch.start => Err(Error::RangeInverted),
        _ => Ok(()),
    }
}

/// Answers the time granted, in seconds.
pub fn lease(ttl_seconds: u64, id: Option<LeaseId>) -> Result<u64, Error> {
    if let Some(id) = id.filter(|id| id.0 <= 0) {
        return Err(Error::LeaseIdInvalid { id });
    }
    if ttl_seconds > LEASE_TTL_SECONDS_MAX {
        return Err(Error::LeaseTtl { seconds: ttl_seconds, max: LEASE_TTL_SECONDS_MAX });
    }
    Ok(ttl_seconds.max(LEASE_TTL_SECONDS_MIN))
}

pub fn txn(txn: &Txn) -> Result<(), Error> {
    form(txn, TXN_OPS_MAX)?;
    changes(&txn.then)?;
    changes(&txn.otherwise)?;
    let bytes = bytes(txn);
    if bytes > REQUEST_BYTES_MAX {
        return Err(Error::RequestTooLarge { bytes, max: REQUEST_BYTES_MAX });
    }
    Ok(())
}

/// Each nested transaction takes at least one operation of its parent's, so the depth is bounded by the count.
fn form(txn: &Txn, ops_max: usize) -> Result<(), Error> {
    let ops = txn.when.len().max(txn.then.len()).max(txn.otherwise.len());
    if ops > ops_max {
        return Err(Error::TooManyOps { max: TXN_OPS_MAX });
    }
    for compare in &txn.when {
        span(&compare.key, &compare.end)?;
    }
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Put { key: put, value, lease, keep } => {
                key(put)?;
                if keep.value && !value.is_empty() {
                    return Err(Error::KeptAndGiven { what: "value" });
                }
                if keep.lease && lease.is_some() {
                    return Err(Error::KeptAndGiven { what: "lease" });
                }
            }
            Op::Range(read) => range(read)?,
            Op::Delete { range: delete } => {
                range(delete)?;
                if !delete.is_plain() {
                    return Err(Error::DeleteOptions);
                }
            }
            Op::Txn(nested) => form(nested, ops_max - ops)?,
        }
    }
    Ok(())
}

/// Bytes of keys and values.
pub fn bytes(txn: &Txn) -> usize {
    let when = txn.when.iter().map(|compare| {
        compare.key.len()
            + match &compare.target {
                Target::Value(value) => value.len(),
                Target::Version(_) | Target::Create(_) | Target::Mod(_) | Target::Lease(_) => 0,
            }
    });
    let ops = txn.then.iter().chain(&txn.otherwise).map(|op| match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Delete { range } | Op::Range(range) => {
            let end = if let RangeEnd::Exclusive(end) = &range.end { end.len() } else { 0 };
            range.start.len() + end
        }
        Op::Txn(nested) => bytes(nested),
    });
    when.chain(ops).sum()
}

/// What one branch may change.
#[derive(Default)]
struct Changes {
    puts: HashSet<Bytes>,
    deletes: Vec<Span>,
}

impl Changes {
    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|span| span.contains(key))
    }
}

/// One key is put at most once and not both put and deleted, in whichever branches are taken. The two branches of one
/// nested transaction exclude each other and may change the same key. The order of the checks is etcd's: a nested put
/// followed by a delete in a later sibling passes, the other way around does not.
fn changes(ops: &[Op]) -> Result<Changes, Error> {
    let mut all = Changes::default();
    for op in ops {
        if let Op::Delete { range } = op {
            all.deletes.push(Span::new(range.start.clone(), range.end.clone()));
        }
    }
    for op in ops {
        let Op::Txn(nested) = op else { continue };
        let then = changes(&nested.then)?;
        let otherwise = changes(&nested.otherwise)?;
        for key in &then.puts {
            if all.puts.contains(key) || all.deletes(key) {
                return Err(Error::DuplicateKey { key: key.clone() });
            }
        }
        for key in &otherwise.puts {
            if all.puts.contains(key) || all.deletes(key) {
                return Err(Error::DuplicateKey { key: key.clone() });
            }
        }
        all.puts.extend(then.puts.into_iter().chain(otherwise.puts));
        all.deletes.extend(then.deletes.into_iter().chain(otherwise.deletes));
    }
    for op in ops {
        let Op::Put { key, .. } = op else { continue };
        if all.deletes(key) || !all.puts.insert(key.clone()) {
            return Err(Error::DuplicateKey { key: key.clone() });
        }
    }
    Ok(all)
}

/// Whether no branch can change anything.
pub fn reads_only(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.otherwise).all(|op| match op {
        Op::Put { .. } | Op::Delete { .. } => false,
        Op::Range(_) => true,
        Op::Txn(nested) => reads_only(nested),
    })
}

/// Whether some branch may put a key, and so need room.
pub fn may_put(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.otherwise).any(|op| match op {
        Op::Put { .. } => true,
        Op::Delete { .. } | Op::Range(_) => false,
        Op::Txn(nested) => may_put(nested),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duplicate(ops: Vec<Op>) -> bool {
        matches!(txn(&Txn::of(ops)), Err(Error::DuplicateKey { .. }))
    }

    #[test]
    fn one_key_changes_once() {
        let nested = |then: Vec<Op>, otherwise: Vec<Op>| Op::Txn(Txn { when: vec![], then, otherwise });
        assert!(duplicate(vec![Op::put("a", "1"), Op::put("a", "2")]));
        assert!(duplicate(vec![Op::put("a", "1"), Op::delete_prefix("a")]));
        assert!(duplicate(vec![Op::put("a", "1"), nested(vec![], vec![Op::put("a", "2")])]));
        assert!(duplicate(vec![Op::delete("a"), nested(vec![Op::put("a", "2")], vec![])]));
        assert!(duplicate(vec![nested(vec![Op::delete("a")], vec![]), nested(vec![Op::put("a", "2")], vec![])]));
        assert!(!duplicate(vec![nested(vec![Op::put("a", "2")], vec![]), nested(vec![Op::delete("a")], vec![])]));
        assert!(!duplicate(vec![nested(vec![Op::put("a", "1")], vec![Op::put("a", "2")])]));
        assert!(!duplicate(vec![Op::delete("a"), Op::delete_prefix("a"), Op::put("b", "")]));
    }

    #[test]
    fn nesting_uses_up_the_operations() {
        let mut deep = Txn::of(vec![Op::put("a", "")]);
        for _ in 0..TXN_OPS_MAX - 1 {
            deep = Txn::of(vec![Op::Txn(deep)]);
        }
        txn(&deep).unwrap();
        deep = Txn::of(vec![Op::Txn(deep)]);
        assert!(matches!(txn(&deep), Err(Error::TooManyOps { .. })));
    }
}
