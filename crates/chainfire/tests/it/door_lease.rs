//! Leases over the door.

use std::time::Duration;

use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::lease_client::LeaseClient;
use etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    PutRequest, RangeRequest,
};
use tokio_stream::StreamExt;
use tonic::Code;

use crate::door_support::{channel, serve_for_test};

#[tokio::test]
async fn a_lease_holds_its_keys_until_it_is_revoked_or_runs_out() {
    let door = serve_for_test().await;
    let channel = channel(&door).await;
    let (mut lease, mut kv) = (LeaseClient::new(channel.clone()), KvClient::new(channel));
    let granted = lease.lease_grant(LeaseGrantRequest { ttl: 100, id: 0 }).await.unwrap().into_inner();
    assert!(granted.id > 0 && granted.ttl == 100 && granted.error.is_empty());
    let short = lease.lease_grant(LeaseGrantRequest { ttl: -5, id: 77 }).await.unwrap().into_inner();
    assert_eq!((short.id, short.ttl), (77, 2), "etcd gives no less");
    for id in [granted.id, 77] {
        let put = PutRequest { key: format!("k{id}").into(), lease: id, ..PutRequest::default() };
        kv.put(put).await.unwrap();
    }
    let status = lease.lease_grant(LeaseGrantRequest { ttl: 5, id: 77 }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "etcdserver: lease already exists"));
    let status = lease.lease_grant(LeaseGrantRequest { ttl: 9_000_000_001, id: 0 }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::OutOfRange, "etcdserver: too large lease TTL"));

    let asked = LeaseTimeToLiveRequest { id: granted.id, keys: true };
    let left = lease.lease_time_to_live(asked).await.unwrap().into_inner();
    assert_eq!((left.granted_ttl, &left.keys[..]), (100, &[format!("k{}", granted.id).into()][..]));
    assert!((1..=100).contains(&left.ttl));
    let none = lease.lease_time_to_live(LeaseTimeToLiveRequest { id: 5, keys: true }).await.unwrap().into_inner();
    assert_eq!((none.ttl, none.granted_ttl, none.keys.len()), (-1, 0, 0));
    let all = lease.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(all.leases.len(), 2);

    let alive = [granted.id, 5, granted.id].map(|id| LeaseKeepAliveRequest { id });
    let alive = lease.lease_keep_alive(tokio_stream::iter(alive)).await.unwrap().into_inner();
    let alive: Vec<_> = alive.map(|answer| answer.unwrap()).map(|answer| (answer.id, answer.ttl)).collect().await;
    assert_eq!(alive, [(granted.id, 100), (5, 0), (granted.id, 100)]);

    let revision = lease.lease_revoke(LeaseRevokeRequest { id: granted.id }).await.unwrap().into_inner();
    assert_eq!(revision.header.unwrap().revision, 4);
    let status = lease.lease_revoke(LeaseRevokeRequest { id: granted.id }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "etcdserver: requested lease not found"));
    let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
    while kv.range(all.clone()).await.unwrap().into_inner().count > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
