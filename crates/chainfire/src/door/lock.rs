//! The Lock service.

use std::sync::Arc;

use etcd::proto::etcdserverpb::response_op::Response;
use etcd::proto::etcdserverpb::{DeleteRangeRequest, RangeRequest, RangeResponse, TxnResponse};
use etcd::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::Status;

use super::desk::{Call, Desk};
use super::turns::{self, Place};

/// The answer to the range at `at` of a transaction.
pub fn ranged(answer: &TxnResponse, at: usize) -> Option<&RangeResponse> {
    match answer.responses.get(at)?.response.as_ref()? {
        Response::ResponseRange(range) => Some(range),
        _ => None,
    }
}

impl Desk {
    /// Waits for its turn. A caller who gives up, or whose connection ends, has left the line.
    pub async fn lock(self: Arc<Self>, call: &Call, request: LockRequest) -> Result<LockResponse, Status> {
        let lease = self.session(call, request.lease).await?;
        let key = turns::key(&request.name, lease);
        let first = || turns::first_op(&request.name);
        let put = turns::put(key.clone(), bytes::Bytes::new(), lease);
        let get = turns::get(key.clone());
        let txn = turns::txn(turns::made_at(key.clone(), 0), vec![put, first()], vec![get, first()]);
        let answer = self.txn(call, &txn).await?;
        let made_now = answer.header.unwrap_or_default().revision;
        let made = if answer.succeeded { Some(made_now) } else { first_made(ranged(&answer, 0)) }.unwrap_or(made_now);
        if first_made(ranged(&answer, 1)).is_none_or(|owner| owner == made) {
            return Ok(LockResponse { header: answer.header, key });
        }
        let place = Place::new(self.clone(), key.clone());
        self.wait_for_turn(call, &request.name, made).await?;
        let own = self.range(call, &RangeRequest { key: key.clone(), ..RangeRequest::default() }).await?;
        if own.kvs.is_empty() {
            return Err(Status::unknown("mutex: session is expired"));
        }
        place.keep();
        Ok(LockResponse { header: own.header, key })
    }

    pub async fn unlock(&self, call: &Call, request: UnlockRequest) -> Result<UnlockResponse, Status> {
        let delete = DeleteRangeRequest { key: request.key, ..DeleteRangeRequest::default() };
        Ok(UnlockResponse { header: self.delete_range(call, &delete).await?.header })
    }
}

fn first_made(range: Option<&RangeResponse>) -> Option<i64> {
    Some(range?.kvs.first()?.create_revision)
}
