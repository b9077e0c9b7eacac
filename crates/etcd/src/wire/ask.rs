//! What the store asks, as messages.

use bytes::Bytes;
use store::{Compare, CompareOp, Key, LeaseId, Op, Range, RangeEnd, Revision, Sort, SortBy, SortOrder, Target, Txn};

use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::request_op::Request;

/// The lowest key there can be, and as the end of a range: no end.
const ZERO: Bytes = Bytes::from_static(&[0]);
/// Start and end of a range without keys: for etcd, no end is a single key and the end `[0]` is no end.
const NOWHERE: Bytes = Bytes::from_static(&[1]);

/// No lease has this id. 0, which none has either, says to etcd that there is none to be had.
const NO_LEASE: i64 = i64::MIN;

/// Key and end of a range.
pub(crate) fn stretch(start: &Key, end: &RangeEnd) -> (Bytes, Bytes) {
    let from = if start.is_empty() { ZERO } else { start.clone() };
    match end {
        RangeEnd::Single => (start.clone(), Bytes::new()),
        RangeEnd::Unbounded => (from, ZERO),
        RangeEnd::Exclusive(end) if *end <= from => (NOWHERE, NOWHERE),
        RangeEnd::Exclusive(end) => (from, end.clone()),
    }
}

/// etcd's numbers have a sign; what is beyond them is beyond everything there is.
pub(crate) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn bound(revision: Option<Revision>) -> i64 {
    revision.map_or(0, |revision| number(revision.0))
}

pub(crate) fn lease(id: Option<LeaseId>) -> i64 {
    id.map_or(0, |id| id.0)
}

/// etcd sorts rows that are equal into any order, so that a limit may cut off any of them: all are asked for, and sorted
/// here. Keys are never equal.
pub(crate) fn sorted_here(range: &Range) -> Option<Sort> {
    range.sort.filter(|sort| sort.by != SortBy::Key)
}

pub(crate) fn range(range: &Range) -> pb::RangeRequest {
    let (key, range_end) = stretch(&range.start, &range.end);
    let here = sorted_here(range);
    let descending = range.sort.is_some_and(|sort| sort.order == SortOrder::Descend) && here.is_none();
    let none = range.max_mod_revision == Some(Revision::ZERO) || range.max_create_revision == Some(Revision::ZERO);
    pb::RangeRequest {
        key,
        range_end,
        limit: if here.is_some() { 0 } else { i64::try_from(range.limit).unwrap_or(i64::MAX) },
        revision: bound(range.revision),
        sort_order: if descending { pb::range_request::SortOrder::Descend.into() } else { 0 },
        sort_target: pb::range_request::SortTarget::Key.into(),
        serializable: range.serializable,
        keys_only: range.keys_only && here.is_none_or(|sort| sort.by != SortBy::Value),
        count_only: range.count_only,
        // An upper bound of 0, which nothing is below, is no bound to etcd.
        min_mod_revision: if none { i64::MAX } else { bound(range.min_mod_revision) },
        max_mod_revision: bound(range.max_mod_revision),
        min_create_revision: bound(range.min_create_revision),
        max_create_revision: bound(range.max_create_revision),
    }
}

fn compare(compare: &Compare) -> pb::Compare {
    let (key, range_end) = stretch(&compare.key, &compare.end);
    let result = match compare.op {
        CompareOp::Equal => CompareResult::Equal,
        CompareOp::Greater => CompareResult::Greater,
        CompareOp::Less => CompareResult::Less,
        CompareOp::NotEqual => CompareResult::NotEqual,
    };
    let (target, union) = match &compare.target {
        Target::Version(version) => (CompareTarget::Version, TargetUnion::Version(number(*version))),
        Target::Create(revision) => (CompareTarget::Create, TargetUnion::CreateRevision(number(revision.0))),
        Target::Mod(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(number(revision.0))),
        Target::Value(value) => (CompareTarget::Value, TargetUnion::Value(value.clone())),
        Target::Lease(id) => (CompareTarget::Lease, TargetUnion::Lease(lease(*id))),
    };
    pb::Compare { result: result.into(), target: target.into(), key, range_end, target_union: Some(union) }
}

fn op(op: &Op) -> pb::RequestOp {
    let request = match op {
        Op::Put { key, value, lease: id, keep } => Request::RequestPut(pb::PutRequest {
            key: key.clone(),
            value: value.clone(),
            lease: id.map_or(0, |id| if id.0 == 0 { NO_LEASE } else { id.0 }),
            prev_kv: true,
            ignore_value: keep.value,
            ignore_lease: keep.lease,
        }),
        Op::Delete { range } => {
            let (key, range_end) = stretch(&range.start, &range.end);
            Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: true })
        }
        Op::Range(read) => Request::RequestRange(range(read)),
        Op::Txn(nested) => Request::RequestTxn(txn(nested)),
    };
    pb::RequestOp { request: Some(request) }
}

pub(crate) fn txn(txn: &Txn) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: txn.when.iter().map(compare).collect(),
        success: txn.then.iter().map(op).collect(),
        failure: txn.otherwise.iter().map(op).collect(),
    }
}

/// The smallest read there is: what it answers is its header, or whether `revision` can be read.
pub(crate) fn glance(revision: Option<Revision>) -> pb::RangeRequest {
    pb::RangeRequest { key: ZERO, count_only: true, revision: bound(revision), ..pb::RangeRequest::default() }
}

/// Everything from `from` on.
pub(crate) fn watch(from: Revision, previous: bool) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest {
        key: ZERO,
        range_end: ZERO,
        start_revision: number(from.0),
        progress_notify: true,
        prev_kv: previous,
        fragment: true,
        ..pb::WatchCreateRequest::default()
    };
    pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) }
}

pub(crate) fn progress() -> pb::WatchRequest {
    let progress = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
    pb::WatchRequest { request_union: Some(progress) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_etcds() {
        let wire = |range: Range| {
            let (key, end) = stretch(&range.start, &range.end);
            (key.to_vec(), end.to_vec())
        };
        let pair = |key: &[u8], end: &[u8]| (key.to_vec(), end.to_vec());
        assert_eq!(wire(Range::key("a")), pair(b"a", b""));
        assert_eq!(wire(Range::prefix("a/")), pair(b"a/", b"a0"));
        assert_eq!(wire(Range::all()), pair(b"\0", b"\0"));
        assert_eq!(wire(Range::from("a")), pair(b"a", b"\0"));
        assert_eq!(wire(Range::between("", "a")), pair(b"\0", b"a"));
        for empty in [Range::between("a", "a"), Range::between("", ""), Range::between("", "\0")] {
            assert_eq!(wire(empty), pair(b"\x01", b"\x01"));
        }
    }

    #[test]
    fn numbers_beyond_etcds_are_the_largest() {
        assert_eq!(range(&Range::all().at(Revision(u64::MAX))).revision, i64::MAX);
        assert_eq!(range(&Range::all().limit(usize::MAX)).limit, i64::MAX);
    }
}
