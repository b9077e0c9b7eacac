//! Requests of the protocol as requests of the store. They are checked already.
//!
//! etcd's numbers are signed and its ranges may be upside down; the store's are not. What follows from a number below
//! zero, or from a range that ends before it starts, is decided here, as etcd has it.

use bytes::Bytes;
use etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::proto::etcdserverpb::range_request::{SortOrder as WireOrder, SortTarget};
use etcd::proto::etcdserverpb::request_op::Request;
use etcd::proto::etcdserverpb::{
    Compare as WireCompare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use store::{
    Compare, CompareOp, Keep, Key, LeaseId, Op, Range, RangeEnd, Revision, Sort, SortBy, SortOrder, Target, Txn,
};

use super::first;

/// No end is the key alone, a zero byte everything from the key on. A range that ends before it starts is empty.
pub fn end(key: &Key, range_end: &Bytes) -> RangeEnd {
    match &range_end[..] {
        [] => RangeEnd::Single,
        [0] => RangeEnd::Unbounded,
        end if *end < key[..] => RangeEnd::Exclusive(key.clone()),
        _ => RangeEnd::Exclusive(range_end.clone()),
    }
}

pub fn range(request: &RangeRequest) -> Range {
    let RangeRequest { key, range_end, limit, revision, keys_only, count_only, serializable, .. } = request;
    let at_least = |revision: i64| (revision > 0).then_some(Revision(revision as u64));
    let at_most = |revision: i64| (revision != 0).then_some(Revision(revision.max(0) as u64));
    let mut range = Range {
        start: key.clone(),
        end: end(key, range_end),
        revision: at_least(*revision),
        limit: usize::try_from(*limit).unwrap_or(0),
        sort: sort(request),
        count_only: *count_only,
        keys_only: *keys_only,
        min_mod_revision: at_least(request.min_mod_revision),
        max_mod_revision: at_most(request.max_mod_revision),
        min_create_revision: at_least(request.min_create_revision),
        max_create_revision: at_most(request.max_create_revision),
        uncounted: false,
        serializable: *serializable,
    };
    first::widen(request, &mut range);
    range
}

fn sort(request: &RangeRequest) -> Option<Sort> {
    let by = match request.sort_target() {
        SortTarget::Key => SortBy::Key,
        SortTarget::Version => SortBy::Version,
        SortTarget::Create => SortBy::Create,
        SortTarget::Mod => SortBy::Mod,
        SortTarget::Value => SortBy::Value,
    };
    let order = match request.sort_order() {
        WireOrder::None if by == SortBy::Key => return None,
        WireOrder::None | WireOrder::Ascend => SortOrder::Ascend,
        WireOrder::Descend => SortOrder::Descend,
    };
    Some(Sort { by, order })
}

pub fn lease(id: i64) -> Option<LeaseId> {
    (id != 0).then_some(LeaseId(id))
}

pub fn put(request: &PutRequest) -> Op {
    Op::Put {
        key: request.key.clone(),
        value: request.value.clone(),
        lease: lease(request.lease),
        keep: Keep { value: request.ignore_value, lease: request.ignore_lease },
    }
}

pub fn delete(request: &DeleteRangeRequest) -> Op {
    let end = end(&request.key, &request.range_end);
    Op::Delete { range: Range { start: request.key.clone(), end, ..Range::default() } }
}

pub fn txn(request: &TxnRequest) -> Txn {
    Txn {
        when: request.compare.iter().filter_map(compare).collect(),
        then: request.success.iter().filter_map(op).collect(),
        otherwise: request.failure.iter().filter_map(op).collect(),
    }
}

fn op(op: &RequestOp) -> Option<Op> {
    Some(match op.request.as_ref()? {
        Request::RequestRange(request) => Op::Range(range(request)),
        Request::RequestPut(request) => put(request),
        Request::RequestDeleteRange(request) => delete(request),
        Request::RequestTxn(request) => Op::Txn(txn(request)),
    })
}

/// `None` for a comparison that always holds.
fn compare(compare: &WireCompare) -> Option<Compare> {
    let key = |op| Compare::new(compare.key.clone(), op, Target::Version(0)).to(end(&compare.key, &compare.range_end));
    let op = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => CompareOp::Equal,
        Ok(CompareResult::Greater) => CompareOp::Greater,
        Ok(CompareResult::Less) => CompareOp::Less,
        Ok(CompareResult::NotEqual) => CompareOp::NotEqual,
        // etcd takes a comparison that it does not know for one that holds, but a key that is not there has no value.
        Err(_) => return (compare.target == CompareTarget::Value as i32).then(|| key(CompareOp::Greater)),
    };
    let never = || Compare::new(compare.key.clone(), CompareOp::Less, Target::Version(0));
    let Ok(target) = CompareTarget::try_from(compare.target) else {
        // Nothing is compared, which comes out as equal.
        return (op != CompareOp::Equal).then(never);
    };
    // A value of another kind than the target says counts as the target's zero.
    let given = compare.target_union.as_ref();
    let (target, number) = match (target, given) {
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => (Target::Value(value.clone()), 0),
        (CompareTarget::Value, _) => (Target::Value(Bytes::new()), 0),
        (CompareTarget::Version, Some(TargetUnion::Version(n))) => (Target::Version(*n as u64), *n),
        (CompareTarget::Version, _) => (Target::Version(0), 0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(n))) => (Target::Create(Revision(*n as u64)), *n),
        (CompareTarget::Create, _) => (Target::Create(Revision::ZERO), 0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(n))) => (Target::Mod(Revision(*n as u64)), *n),
        (CompareTarget::Mod, _) => (Target::Mod(Revision::ZERO), 0),
        (CompareTarget::Lease, Some(TargetUnion::Lease(n))) => (Target::Lease(lease(*n)), *n),
        (CompareTarget::Lease, _) => (Target::Lease(None), 0),
    };
    if number < 0 {
        // Nothing that a key has is below zero.
        return match op {
            CompareOp::Greater | CompareOp::NotEqual => None,
            CompareOp::Equal | CompareOp::Less => Some(never()),
        };
    }
    Some(Compare { target, ..key(op) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn ends_mean_what_they_mean_to_etcd() {
        assert_eq!(end(&bytes("b"), &bytes("")), RangeEnd::Single);
        assert_eq!(end(&bytes("b"), &bytes("\0")), RangeEnd::Unbounded);
        assert_eq!(end(&bytes("b"), &bytes("c")), RangeEnd::Exclusive(bytes("c")));
        assert_eq!(end(&bytes("b"), &bytes("a")), RangeEnd::Exclusive(bytes("b")), "upside down is empty");
    }

    #[test]
    fn numbers_below_zero_are_decided_without_the_store() {
        let compare = |result: CompareResult| {
            compare(&WireCompare {
                result: result.into(),
                target: CompareTarget::Lease.into(),
                key: bytes("k"),
                range_end: Bytes::new(),
                target_union: Some(TargetUnion::Lease(-1)),
            })
        };
        assert_eq!(compare(CompareResult::Greater), None);
        assert_eq!(compare(CompareResult::NotEqual), None);
        let never = Compare::new("k", CompareOp::Less, Target::Version(0));
        assert_eq!(compare(CompareResult::Equal), Some(never.clone()));
        assert_eq!(compare(CompareResult::Less), Some(never));
        let range = range(&RangeRequest { limit: -1, revision: -1, max_mod_revision: -1, ..RangeRequest::default() });
        assert_eq!((range.limit, range.revision, range.max_mod_revision), (0, None, Some(Revision::ZERO)));
    }
}
