//! Is a request well formed: etcd's checks with etcd's answers, in etcd's order. What the store checks itself, such as a
//! key that is changed twice, is left to it.

use etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd::proto::etcdserverpb::request_op::Request;
use etcd::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use store::limits::{REQUEST_BYTES_MAX, TXN_OPS_MAX};

use crate::door::refusal::{
    KEY_EMPTY, KEY_NOT_FOUND, Known, LEASE_PROVIDED, REQUEST_TOO_LARGE, SORT_OPTION, TOO_MANY_OPS, VALUE_PROVIDED,
};

fn key(key: &[u8]) -> Result<(), Known> {
    if key.is_empty() { Err(KEY_EMPTY) } else { Ok(()) }
}

/// A request that changes something is carried by the log whole. `bytes` is its length as it was sent.
pub fn size(bytes: usize) -> Result<(), Known> {
    if bytes > REQUEST_BYTES_MAX { Err(REQUEST_TOO_LARGE) } else { Ok(()) }
}

pub fn range(request: &RangeRequest) -> Result<(), Known> {
    key(&request.key)?;
    let known = SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(SORT_OPTION) }
}

pub fn put(request: &PutRequest) -> Result<(), Known> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(VALUE_PROVIDED);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(LEASE_PROVIDED);
    }
    Ok(())
}

pub fn delete(request: &DeleteRangeRequest) -> Result<(), Known> {
    key(&request.key)
}

pub fn txn(request: &TxnRequest) -> Result<(), Known> {
    nested(request, TXN_OPS_MAX)
}

/// A nested transaction has what its parent left over, so the depth is bounded by the count.
fn nested(request: &TxnRequest, ops_max: usize) -> Result<(), Known> {
    let TxnRequest { compare, success, failure } = request;
    let ops = compare.len().max(success.len()).max(failure.len());
    if ops > ops_max {
        return Err(TOO_MANY_OPS);
    }
    compare.iter().try_for_each(|compare| key(&compare.key))?;
    success.iter().chain(failure).try_for_each(|op| self::op(op, ops_max - ops))
}

fn op(op: &RequestOp, ops_max: usize) -> Result<(), Known> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete(request),
        Some(Request::RequestTxn(request)) => nested(request, ops_max),
        None => Err(KEY_NOT_FOUND),
    }
}

/// Whether no operation of the outermost transaction can change anything.
pub fn reads_only(request: &TxnRequest) -> bool {
    let read = |op: &RequestOp| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(nested)) => reads_only(nested),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => false,
    };
    request.success.iter().chain(&request.failure).all(read)
}
