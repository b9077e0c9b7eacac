//! Locks and elections over the door.

use std::time::Duration;

use etcd::proto::etcdserverpb::RangeRequest;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::v3electionpb::election_client::ElectionClient;
use etcd::proto::v3electionpb::{CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest};
use etcd::proto::v3lockpb::lock_client::LockClient;
use etcd::proto::v3lockpb::{LockRequest, UnlockRequest};
use tonic::Code;
use tonic::transport::Channel;

use crate::door_support::{channel, serve_for_test};

async fn count(channel: &Channel, prefix: &str) -> i64 {
    let end = format!("{}0", prefix.trim_end_matches('/'));
    let range = RangeRequest { key: prefix.to_owned().into(), range_end: end.into(), ..RangeRequest::default() };
    KvClient::new(channel.clone()).range(range).await.unwrap().into_inner().count
}

async fn until_count(channel: &Channel, prefix: &str, expected: i64) {
    while count(channel, prefix).await != expected {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_holds_the_lock_and_the_others_come_in_turn() {
    let door = serve_for_test().await;
    let channel = channel(&door).await;
    let lock = || {
        let mut client = LockClient::new(channel.clone());
        async move { client.lock(LockRequest { name: "l".into(), lease: 0 }).await.unwrap().into_inner() }
    };
    let first = lock().await;
    assert!(first.key.starts_with(b"l/"));
    let second = tokio::spawn(lock());
    until_count(&channel, "l/", 2).await;
    let third = tokio::spawn(lock());
    until_count(&channel, "l/", 3).await;
    // A caller who goes away has left the line.
    let gone = tokio::spawn(lock());
    until_count(&channel, "l/", 4).await;
    gone.abort();
    until_count(&channel, "l/", 3).await;

    let mut client = LockClient::new(channel.clone());
    let mut unlock = async |key| client.unlock(UnlockRequest { key }).await.unwrap().into_inner();
    assert!(!second.is_finished() && !third.is_finished());
    unlock(first.key).await;
    let second = second.await.unwrap();
    assert!(!third.is_finished());
    unlock(second.key).await;
    unlock(third.await.unwrap().key).await;
    assert_eq!(count(&channel, "l/").await, 0);
}

#[tokio::test]
async fn candidates_lead_one_after_the_other_and_are_observed() {
    let door = serve_for_test().await;
    let channel = channel(&door).await;
    let mut client = ElectionClient::new(channel.clone());
    let status = client.leader(LeaderRequest { name: "e".into() }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "election: no leader"));
    let mut observed = client.observe(LeaderRequest { name: "e".into() }).await.unwrap().into_inner();
    let campaign = |value: &'static str| {
        let mut client = ElectionClient::new(channel.clone());
        let request = CampaignRequest { name: "e".into(), lease: 0, value: value.into() };
        async move { client.campaign(request).await.unwrap().into_inner().leader.unwrap() }
    };
    let one = campaign("one").await;
    let leader = client.leader(LeaderRequest { name: "e".into() }).await.unwrap().into_inner().kv.unwrap();
    assert_eq!((&leader.key, &leader.value[..], leader.create_revision), (&one.key, &b"one"[..], one.rev));
    let two = tokio::spawn(campaign("two"));
    until_count(&channel, "e/", 2).await;
    let proclaim = ProclaimRequest { leader: Some(one.clone()), value: "one again".into() };
    client.proclaim(proclaim.clone()).await.unwrap();
    client.resign(ResignRequest { leader: Some(one) }).await.unwrap();
    let status = client.proclaim(proclaim).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "election: not leader"));
    let two = two.await.unwrap();
    client.resign(ResignRequest { leader: Some(two) }).await.unwrap();
    let status = client.resign(ResignRequest { leader: None }).await.unwrap_err();
    assert_eq!(status.message(), "\"leader\" field must be provided");
    for expected in ["one", "one again", "two"] {
        let told = observed.message().await.unwrap().unwrap();
        assert_eq!(told.kv.unwrap().value, expected);
    }
}
