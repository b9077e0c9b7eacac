//! Answers of the store as answers of the protocol.

use etcd::proto::etcdserverpb::request_op::Request;
use etcd::proto::etcdserverpb::response_op::Response;
use etcd::proto::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest,
    TxnResponse,
};
use etcd::proto::mvccpb;
use store::{KeyValue, OpAnswer, RangeAnswer, Revision, TxnAnswer};

use super::first;

pub fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0 as i64,
        mod_revision: kv.mod_revision.0 as i64,
        version: kv.version as i64,
        value: kv.value,
        lease: kv.lease.map_or(0, |id| id.0),
    }
}

pub fn range(mut answer: RangeAnswer, request: &RangeRequest, header: ResponseHeader) -> RangeResponse {
    first::cut(request, &mut answer);
    RangeResponse {
        header: Some(header),
        kvs: answer.items.into_iter().map(key_value).collect(),
        more: answer.more,
        count: answer.count as i64,
    }
}

pub fn put(answer: Option<OpAnswer>, previous_wanted: bool, header: ResponseHeader) -> PutResponse {
    let previous = match answer {
        Some(OpAnswer::Put { previous }) if previous_wanted => previous,
        _ => None,
    };
    PutResponse { header: Some(header), prev_kv: previous.map(key_value) }
}

pub fn delete(answer: Option<OpAnswer>, previous_wanted: bool, header: ResponseHeader) -> DeleteRangeResponse {
    let (deleted, previous) = match answer {
        Some(OpAnswer::Delete { deleted, previous }) => (deleted, previous),
        _ => (0, Vec::new()),
    };
    let previous = if previous_wanted { previous } else { Vec::new() };
    let prev_kvs = previous.into_iter().map(key_value).collect();
    DeleteRangeResponse { header: Some(header), deleted: deleted as i64, prev_kvs }
}

/// The answers inside say their revision and nothing else of a header; a transaction inside not even that.
pub fn txn(answer: TxnAnswer, request: &TxnRequest, header: ResponseHeader) -> TxnResponse {
    let before = if changed(&answer) { answer.revision.before() } else { answer.revision };
    let mut walk = Walk { now: before, after: answer.revision };
    TxnResponse { header: Some(header), ..walk.txn(answer, request) }
}

fn changed(answer: &TxnAnswer) -> bool {
    answer.answers.iter().any(|answer| match answer {
        OpAnswer::Put { .. } => true,
        OpAnswer::Delete { deleted, .. } => *deleted > 0,
        OpAnswer::Range(_) => false,
        OpAnswer::Txn(nested) => changed(nested),
    })
}

struct Walk {
    /// What the revision is at this point of the transaction.
    now: Revision,
    /// What it is once something has changed.
    after: Revision,
}

impl Walk {
    fn txn(&mut self, answer: TxnAnswer, request: &TxnRequest) -> TxnResponse {
        let ops = if answer.succeeded { &request.success } else { &request.failure };
        let responses = answer.answers.into_iter().zip(ops).map(|(answer, op)| self.op(answer, op)).collect();
        TxnResponse { header: Some(ResponseHeader::default()), succeeded: answer.succeeded, responses }
    }

    fn op(&mut self, answer: OpAnswer, op: &RequestOp) -> ResponseOp {
        let response = match (answer, op.request.as_ref()) {
            (OpAnswer::Range(answer), Some(Request::RequestRange(request))) => {
                let header = at(answer.revision);
                Response::ResponseRange(range(answer, request, header))
            }
            (OpAnswer::Txn(answer), Some(Request::RequestTxn(request))) => {
                Response::ResponseTxn(self.txn(answer, request))
            }
            (answer @ OpAnswer::Put { .. }, Some(Request::RequestPut(request))) => {
                self.now = self.after;
                Response::ResponsePut(put(Some(answer), request.prev_kv, at(self.now)))
            }
            (OpAnswer::Delete { deleted, previous }, Some(Request::RequestDeleteRange(request))) => {
                if deleted > 0 {
                    self.now = self.after;
                }
                let answer = OpAnswer::Delete { deleted, previous };
                Response::ResponseDeleteRange(delete(Some(answer), request.prev_kv, at(self.now)))
            }
            // The store answers what was asked.
            (OpAnswer::Put { .. } | OpAnswer::Delete { .. } | OpAnswer::Range(_) | OpAnswer::Txn(_), _) => {
                return ResponseOp { response: None };
            }
        };
        ResponseOp { response: Some(response) }
    }
}

fn at(revision: Revision) -> ResponseHeader {
    ResponseHeader { revision: revision.0 as i64, ..ResponseHeader::default() }
}
