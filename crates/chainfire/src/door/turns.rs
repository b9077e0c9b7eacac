//! Waiting in line, as locks and elections do: a key for each who waits, below a common prefix. Whose key is the oldest
//! has the turn. A lease lets the key go when its owner dies.

use std::sync::Arc;

use bytes::Bytes;
use etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use etcd::proto::etcdserverpb::request_op::Request;
use etcd::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
};
use store::{EventKind, Op, Range, RangeEnd, Revision, Txn, WatchRequest};
use tonic::Status;

use super::desk::{Call, Desk};
use super::refusal::{self, STOPPED};

/// What a caller who brings no lease gets; etcd's client library gives as much.
const LEASE_SECONDS: i64 = 60;

/// Below the name, in hexadecimal: the lease, with its sign.
pub fn key(name: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    Bytes::from([name, format!("/{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat())
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

pub fn get(key: Bytes) -> RequestOp {
    op(Request::RequestRange(RangeRequest { key, ..RangeRequest::default() }))
}

pub fn put(key: Bytes, value: Bytes, lease: i64) -> RequestOp {
    op(Request::RequestPut(PutRequest { key, value, lease, ..PutRequest::default() }))
}

pub fn delete(key: Bytes) -> RequestOp {
    op(Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }))
}

/// The key was made at `revision`; 0 says that there is none.
pub fn made_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

/// When `when` holds, then `then`, else `otherwise`.
pub fn txn(when: Compare, then: Vec<RequestOp>, otherwise: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { compare: vec![when], success: then, failure: otherwise }
}

/// The oldest key below the name: who has the turn.
pub fn first(name: &[u8]) -> RangeRequest {
    below(name, SortOrder::Ascend)
}

pub fn first_op(name: &[u8]) -> RequestOp {
    op(Request::RequestRange(first(name)))
}

fn below(name: &[u8], order: SortOrder) -> RangeRequest {
    let prefix = [name, b"/"].concat();
    // '0' follows '/'.
    let end = [name, b"0"].concat();
    RangeRequest {
        key: prefix.into(),
        range_end: end.into(),
        limit: 1,
        sort_order: order.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

impl Desk {
    /// The lease itself, or a new one for 0.
    pub async fn session(&self, call: &Call, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        Ok(self.lease_grant(call, LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 }).await?.id)
    }

    /// Waits until no key below the name is older than `revision`.
    pub async fn wait_for_turn(&self, call: &Call, name: &[u8], revision: i64) -> Result<(), Status> {
        loop {
            let before = RangeRequest { max_create_revision: revision - 1, ..below(name, SortOrder::Descend) };
            // A bound of 0 would be none.
            let seen = if revision > 1 { self.range(call, &before).await? } else { RangeResponse::default() };
            let Some(ahead) = seen.kvs.first() else { return Ok(()) };
            let from = Revision(seen.header.unwrap_or_default().revision as u64);
            self.wait_for_delete(ahead.key.clone(), from).await?;
        }
    }

    async fn wait_for_delete(&self, key: Bytes, from: Revision) -> Result<(), Status> {
        let watch = WatchRequest { start: key, end: RangeEnd::Single, from: Some(from), previous: false };
        let mut watcher = self.store.watch(watch).await.map_err(refusal::of)?;
        loop {
            let batch = watcher.next().await.map_err(refusal::of)?.ok_or(STOPPED)?;
            if batch.events.iter().any(|event| event.kind == EventKind::Delete) {
                return Ok(());
            }
        }
    }
}

/// A place in line that is given up when nobody waits for it any more: a call that was cancelled must not keep it.
pub struct Place {
    desk: Arc<Desk>,
    key: Option<Bytes>,
}

impl Place {
    pub fn new(desk: Arc<Desk>, key: Bytes) -> Self {
        Self { desk, key: Some(key) }
    }

    pub fn keep(mut self) {
        self.key = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let store = self.desk.store.clone();
        tokio::spawn(async move {
            // When it fails the lease lets the key go, later.
            if let Err(error) = store.txn(Txn::of([Op::Delete { range: Range::key(key) }])).await {
                tracing::debug!(%error, "a place in line could not be given up at once");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_etcds_clients_name_them() {
        assert_eq!(key(b"name", 0x1234), "name/1234");
        assert_eq!(key(b"name", -1), "name/-1");
    }
}
