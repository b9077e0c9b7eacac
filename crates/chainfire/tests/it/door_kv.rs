//! Keys over the door, asked for by a gRPC client.

use etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::request_op::Request;
use etcd::proto::etcdserverpb::response_op::Response;
use etcd::proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use tonic::{Code, Status};

use crate::door_support::{Door, channel, serve_for_test};

async fn open() -> (Door, KvClient<tonic::transport::Channel>) {
    let door = serve_for_test().await;
    let client = KvClient::new(channel(&door).await);
    (door, client)
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() }
}

fn get(key: &str, end: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), range_end: end.to_owned().into(), ..RangeRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, text: &str) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test]
async fn what_was_put_is_read_changed_and_deleted() {
    let (_door, mut client) = open().await;
    let header = client.put(put("a", "1")).await.unwrap().into_inner().header.unwrap();
    assert_eq!(header.revision, 2);
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term == 1);
    let second = PutRequest { prev_kv: true, ..put("a", "2") };
    let answer = client.put(second).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, 3);
    assert_eq!(answer.prev_kv.unwrap().value, "1");
    client.put(put("b", "3")).await.unwrap();

    let answer = client.range(get("a", "\0")).await.unwrap().into_inner();
    let seen: Vec<_> = answer.kvs.iter().map(|kv| (&kv.key[..], &kv.value[..], kv.version)).collect();
    assert_eq!(seen, [(&b"a"[..], &b"2"[..], 2), (b"b", b"3", 1)]);
    assert_eq!((answer.count, answer.more, answer.header.unwrap().revision), (2, false, 4));
    let old = client.range(RangeRequest { revision: 2, ..get("a", "") }).await.unwrap().into_inner();
    assert_eq!((&old.kvs[0].value[..], old.header.unwrap().revision), (&b"1"[..], 4));
    let upside_down = client.range(get("b", "a")).await.unwrap().into_inner();
    assert_eq!((upside_down.count, upside_down.kvs.len()), (0, 0));

    let delete = DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true };
    let answer = client.delete_range(delete).await.unwrap().into_inner();
    assert_eq!((answer.deleted, &answer.prev_kvs[0].value[..]), (1, &b"2"[..]));
    let inverted = DeleteRangeRequest { key: "b".into(), range_end: "a".into(), prev_kv: true };
    let answer = client.delete_range(inverted).await.unwrap().into_inner();
    assert_eq!((answer.deleted, answer.header.unwrap().revision), (0, 5));

    client.compact(CompactionRequest { revision: 4, physical: true }).await.unwrap();
    let text = "etcdserver: mvcc: required revision has been compacted";
    refused(client.range(RangeRequest { revision: 3, ..get("a", "") }).await, Code::OutOfRange, text);
    refused(client.compact(CompactionRequest { revision: 4, physical: false }).await, Code::OutOfRange, text);
    let text = "etcdserver: mvcc: required revision is a future revision";
    refused(client.range(RangeRequest { revision: 6, ..get("a", "") }).await, Code::OutOfRange, text);
}

#[tokio::test]
async fn transactions_nest_and_answer_in_kind() {
    let (_door, mut client) = open().await;
    client.put(put("a", "1")).await.unwrap();
    let is_one = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        key: "a".into(),
        range_end: "".into(),
        target_union: Some(TargetUnion::Value("1".into())),
    };
    let inner = TxnRequest {
        compare: vec![Compare { result: CompareResult::NotEqual.into(), ..is_one.clone() }],
        success: vec![],
        failure: vec![op(Request::RequestPut(PutRequest { prev_kv: true, ..put("b", "2") }))],
    };
    let txn = TxnRequest {
        compare: vec![is_one],
        success: vec![
            op(Request::RequestDeleteRange(DeleteRangeRequest { key: "none".into(), ..Default::default() })),
            op(Request::RequestTxn(inner)),
            op(Request::RequestRange(get("a", "\0"))),
        ],
        failure: vec![],
    };
    let answer = client.txn(txn).await.unwrap().into_inner();
    assert!(answer.succeeded);
    assert_eq!(answer.header.unwrap().revision, 3);
    let [first, second, third] = &answer.responses[..] else { panic!("{answer:?}") };
    let Some(Response::ResponseDeleteRange(deleted)) = &first.response else { panic!("{first:?}") };
    assert_eq!((deleted.deleted, deleted.header.unwrap().revision), (0, 2), "nothing had changed yet");
    let Some(Response::ResponseTxn(nested)) = &second.response else { panic!("{second:?}") };
    assert!(!nested.succeeded);
    let Some(Response::ResponsePut(put)) = &nested.responses[0].response else { panic!("{nested:?}") };
    assert_eq!(put.header.unwrap().revision, 3);
    let Some(Response::ResponseRange(range)) = &third.response else { panic!("{third:?}") };
    assert_eq!((range.count, range.header.unwrap().revision), (2, 3));
}

#[tokio::test]
async fn bad_requests_are_refused_in_etcds_words() {
    let (_door, mut client) = open().await;
    let invalid = Code::InvalidArgument;
    refused(client.put(put("", "1")).await, invalid, "etcdserver: key is not provided");
    refused(client.range(get("", "")).await, invalid, "etcdserver: key is not provided");
    let keep = PutRequest { ignore_value: true, ..put("a", "1") };
    refused(client.put(keep).await, invalid, "etcdserver: value is provided");
    let keep = PutRequest { ignore_lease: true, lease: 1, ..put("a", "1") };
    refused(client.put(keep).await, invalid, "etcdserver: lease is provided");
    let keep = PutRequest { ignore_value: true, ..put("a", "") };
    refused(client.put(keep).await, invalid, "etcdserver: key not found");
    let leased = PutRequest { lease: 77, ..put("a", "") };
    refused(client.put(leased).await, Code::NotFound, "etcdserver: requested lease not found");
    let sorted = RangeRequest { sort_order: 9, ..get("a", "") };
    refused(client.range(sorted).await, invalid, "etcdserver: invalid sort option");
    let twice = vec![op(Request::RequestPut(put("a", "1"))), op(Request::RequestPut(put("a", "2")))];
    let twice = TxnRequest { success: twice, ..TxnRequest::default() };
    refused(client.txn(twice).await, invalid, "etcdserver: duplicate key given in txn request");
    let many = (0..129).map(|n| op(Request::RequestPut(put(&format!("k{n}"), "")))).collect();
    let many = TxnRequest { success: many, ..TxnRequest::default() };
    refused(client.txn(many).await, invalid, "etcdserver: too many operations in txn request");
    let empty = TxnRequest { success: vec![RequestOp { request: None }], ..TxnRequest::default() };
    refused(client.txn(empty).await, invalid, "etcdserver: key not found");
    let large = "x".repeat(1536 * 1024);
    refused(client.put(put("a", &large)).await, invalid, "etcdserver: request is too large");
    let larger = "x".repeat(2 * 1024 * 1024);
    let status = client.put(put("a", &larger)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(client.range(get("\0", "\0")).await.unwrap().into_inner().count, 0, "nothing was put");
}
