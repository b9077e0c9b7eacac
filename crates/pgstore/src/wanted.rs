//! What requests will look at, known before anything is read: so one statement can load it all.

use std::collections::BTreeSet;

use bytes::Bytes;
use store::{Key, LeaseId, Op, Range, RangeEnd, Revision, Span, Txn};

use crate::sql;

/// A stretch of keys, from the first up to, not including, the second.
pub type Stretch = (Bytes, Bytes);

#[derive(Default, Debug)]
pub struct Wanted {
    /// Of the present; after [`Wanted::settle`] in order and apart from each other.
    pub present: Vec<Stretch>,
    pub past: Vec<(Span, Revision)>,
    pub leases: BTreeSet<LeaseId>,
    /// Those of `leases` whose keys are wanted too.
    pub attached: BTreeSet<LeaseId>,
}

impl Wanted {
    /// All of `txn`, whichever branches will be taken. `known`: a revision that is certainly committed.
    pub fn txn(&mut self, txn: &Txn, known: Revision) {
        for compare in &txn.when {
            self.span(&compare.key, &compare.end);
        }
        for op in txn.then.iter().chain(&txn.otherwise) {
            match op {
                Op::Put { key, lease, .. } => {
                    self.span(key, &RangeEnd::Single);
                    self.leases.extend(lease);
                }
                Op::Delete { range } => self.span(&range.start, &range.end),
                Op::Range(range) => self.range(range, known),
                Op::Txn(nested) => self.txn(nested, known),
            }
        }
    }

    fn range(&mut self, range: &Range, known: Revision) {
        let at = range.revision.filter(|at| *at != Revision::ZERO);
        if let Some(at) = at {
            let span = Span::new(range.start.clone(), range.end.clone());
            self.past.push((span, at));
        }
        // A revision that may be as new as what the requests before this one make is read from the present.
        if at.is_none_or(|at| at >= known) {
            self.span(&range.start, &range.end);
        }
    }

    fn span(&mut self, key: &Key, end: &RangeEnd) {
        let (start, end) = sql::stretch(key, end);
        if start < end {
            self.present.push((start, end));
        }
    }

    /// Joins stretches that touch, so that no row is loaded twice.
    pub fn settle(&mut self) {
        self.present.sort_unstable();
        let mut joined: Vec<Stretch> = Vec::with_capacity(self.present.len());
        for (start, end) in self.present.drain(..) {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.clone().max(end),
                _ => joined.push((start, end)),
            }
        }
        self.present = joined;
    }

    pub fn holds(&self, start: &[u8], end: &[u8]) -> bool {
        let after = self.present.partition_point(|(from, _)| from[..] <= *start);
        start >= end || after.checked_sub(1).is_some_and(|nth| end <= &self.present[nth].1[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Compare;

    #[test]
    fn everything_that_may_be_looked_at_is_wanted_once() {
        let mut wanted = Wanted::default();
        let nested = Txn::when([Compare::exists("x")]).then([Op::delete_prefix("d/")]).otherwise([Op::get("b")]);
        let past = Range::prefix("p/").at(Revision(5));
        let edge = Range::key("e").at(Revision(9));
        let ops = [Op::put("a", "1"), Op::put("d/7", ""), Op::Txn(nested), Op::Range(past), Op::Range(edge)];
        wanted.txn(&Txn::of(ops), Revision(9));
        wanted.settle();
        let shown: Vec<_> = wanted.present.iter().map(|(from, to)| format!("{from:?}{to:?}")).collect();
        assert_eq!(shown, [r#"b"a"b"a\0""#, r#"b"b"b"b\0""#, r#"b"d/"b"d0""#, r#"b"e"b"e\0""#, r#"b"x"b"x\0""#]);
        assert_eq!(wanted.past.len(), 2, "the past, and what may be the present by then");
        assert!(wanted.holds(b"d/", b"d0") && wanted.holds(b"d/3", b"d/3\0") && wanted.holds(b"q", b"q"));
        assert!(!wanted.holds(b"d", b"d0") && !wanted.holds(b"c", b"c\0") && !wanted.holds(b"x", b"x\0\0"));
    }
}
