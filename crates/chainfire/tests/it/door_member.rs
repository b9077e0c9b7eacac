//! Doors before the members of one replicated store.

use std::time::Duration;

use chainfire::door::{self, Handle, Options};
use etcd::proto::authpb::{Permission, permission::Type};
use etcd::proto::etcdserverpb::auth_client::AuthClient;
use etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::lease_client::LeaseClient;
use etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd::proto::etcdserverpb::watch_client::WatchClient;
use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest,
    AuthUserAddRequest, AuthUserGrantRoleRequest, AuthenticateRequest, HashKvRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseTimeToLiveRequest, MemberListRequest, MoveLeaderRequest, PutRequest, RangeRequest,
    StatusRequest, WatchCreateRequest, WatchRequest,
};
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::door_http::ask_at;
use crate::member_cluster::Cluster;

struct Doors {
    cluster: Cluster,
    open: Vec<Handle>,
    channels: Vec<Channel>,
}

impl Doors {
    async fn open(members: usize) -> Self {
        let cluster = Cluster::on_disk(members).await;
        let (mut open, mut channels) = (Vec::new(), Vec::new());
        for n in 0..members {
            let options = Options { password_rounds: 1000, ..Options::new(["http://127.0.0.1:0".into()]) };
            let member = cluster.member(n).clone();
            let door = door::serve(options, member.clone(), member).await.unwrap();
            let address = format!("http://{}", door.addresses()[0]);
            channels.push(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
            open.push(door);
        }
        Self { cluster, open, channels }
    }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), ..PutRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_asks_of_the_disk_is_told_under_etcds_name() {
    const NAME: &str = "etcd_disk_wal_fsync_duration_seconds";
    let doors = Doors::open(1).await;
    let told = async || {
        let (code, page) = ask_at(doors.open[0].addresses()[0], "GET", "/metrics").await;
        assert_eq!(code, 200);
        let value = |series: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {series} in {page}")).parse::<f64>().unwrap()
        };
        let count = value(&format!("{NAME}_count"));
        assert!(value(&format!("{NAME}_bucket{{le=\"0.001\"}}")) <= count && value(&format!("{NAME}_sum")) > 0.0);
        assert!(page.contains(&format!("{NAME}_bucket{{le=\"+Inf\"}} {count}\n")), "{page}");
        count
    };
    let before = told().await;
    for _ in 0..3 {
        KvClient::new(doors.channels[0].clone()).put(put("k")).await.unwrap();
    }
    assert!(told().await >= before + 3.0, "each of them waited for a sync of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_serves_what_came_in_by_another() {
    let doors = Doors::open(3).await;
    let mut watches = Vec::new();
    for channel in &doors.channels {
        let create = WatchCreateRequest { key: "k".into(), prev_kv: true, ..WatchCreateRequest::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
        let mut watch = WatchClient::new(channel.clone()).watch(requests).await.unwrap().into_inner();
        assert!(watch.message().await.unwrap().unwrap().created);
        watches.push(watch);
    }
    let mut seen = Vec::new();
    for channel in &doors.channels {
        let header = KvClient::new(channel.clone()).put(put("k")).await.unwrap().into_inner().header.unwrap();
        seen.push(header.revision);
        for other in &doors.channels {
            let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
            let answer = KvClient::new(other.clone()).range(range).await.unwrap().into_inner();
            assert_eq!(answer.kvs[0].mod_revision, header.revision);
        }
    }
    assert_eq!(seen, [2, 3, 4]);
    for watch in &mut watches {
        let mut told = Vec::new();
        while told.len() < 3 {
            let answer = watch.message().await.unwrap().unwrap();
            told.extend(answer.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
        }
        assert_eq!(told, seen);
    }

    let mut hashes = Vec::new();
    for channel in &doors.channels {
        let lists = ClusterClient::new(channel.clone());
        let list = lists.clone().member_list(MemberListRequest { linearizable: true }).await.unwrap().into_inner();
        assert_eq!(list.members.len(), 3);
        assert_ne!(list.header.unwrap().member_id, 0);
        let mut maintenance = MaintenanceClient::new(channel.clone());
        hashes.push(maintenance.hash_kv(HashKvRequest { revision: 4 }).await.unwrap().into_inner().hash);
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[0], hashes[2]);

    let mut lease = LeaseClient::new(doors.channels[1].clone());
    let id = lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await.unwrap().into_inner().id;
    let mut elsewhere = LeaseClient::new(doors.channels[2].clone());
    let alive = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
    let mut alive = elsewhere.lease_keep_alive(alive).await.unwrap().into_inner();
    assert_eq!(alive.message().await.unwrap().unwrap().ttl, 60);
    let left = LeaseTimeToLiveRequest { id, keys: true };
    assert!(elsewhere.lease_time_to_live(left).await.unwrap().into_inner().ttl > 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_moves_when_its_holder_is_asked() {
    let doors = Doors::open(3).await;
    let leader = doors.cluster.leader().await;
    let mut ids = Vec::new();
    for channel in &doors.channels {
        let status = MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await.unwrap().into_inner();
        ids.push(status.header.unwrap().member_id);
    }
    let other = (leader + 1) % 3;
    let to = MoveLeaderRequest { target_id: ids[other] };
    let refused = MaintenanceClient::new(doors.channels[other].clone()).move_leader(to).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: not leader");
    let mut maintenance = MaintenanceClient::new(doors.channels[leader].clone());
    let refused = maintenance.move_leader(MoveLeaderRequest { target_id: 1 }).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: bad leader transferee");
    maintenance.move_leader(to).await.unwrap();
    while maintenance.status(StatusRequest {}).await.unwrap().into_inner().leader != ids[other] {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    KvClient::new(doors.channels[leader].clone()).put(put("k")).await.unwrap();
}

/// Switches users on: root, and alice whose role has no permission yet.
async fn users(auth: &mut AuthClient<Channel>) {
    for name in ["root", "alice"] {
        let user = AuthUserAddRequest { name: name.into(), password: "pw".into(), ..AuthUserAddRequest::default() };
        auth.user_add(user).await.unwrap();
        auth.role_add(AuthRoleAddRequest { name: name.into() }).await.unwrap();
        auth.user_grant_role(AuthUserGrantRoleRequest { user: name.into(), role: name.into() }).await.unwrap();
    }
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}

async fn login(auth: &mut AuthClient<Channel>, name: &str) -> String {
    let request = AuthenticateRequest { name: name.into(), password: "pw".into() };
    auth.authenticate(request).await.unwrap().into_inner().token
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_work_at_every_door_and_what_was_taken_away_is_gone_at_every_door() {
    let doors = Doors::open(3).await;
    let mut auth = AuthClient::new(doors.channels[0].clone());
    users(&mut auth).await;
    let mut elsewhere = AuthClient::new(doors.channels[1].clone());
    let (root, alice) = (login(&mut elsewhere, "root").await, login(&mut elsewhere, "alice").await);
    let permission = Permission { perm_type: Type::Write.into(), key: "a".into(), range_end: bytes::Bytes::new() };
    for round in 0..20 {
        let grant = AuthRoleGrantPermissionRequest { name: "alice".into(), perm: Some(permission.clone()) };
        auth.role_grant_permission(with_token(grant, &root)).await.unwrap();
        for channel in &doors.channels {
            let put = KvClient::new(channel.clone()).put(with_token(put("a"), &alice)).await;
            assert!(put.is_ok(), "round {round}: {put:?}");
        }
        let revoke = AuthRoleRevokePermissionRequest { role: "alice".into(), key: "a".into(), range_end: "".into() };
        auth.role_revoke_permission(with_token(revoke, &root)).await.unwrap();
        for channel in &doors.channels {
            let refused = KvClient::new(channel.clone()).put(with_token(put("a"), &alice)).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied, "round {round}");
        }
    }
}

/// What it knows of users is old; what it says of them is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_cut_off_refuses_nobody_for_what_it_has_missed() {
    let doors = Doors::open(3).await;
    let cut_off = doors.cluster.follower().await;
    let near = (0..3).find(|n| *n != cut_off).unwrap();
    let mut auth = AuthClient::new(doors.channels[near].clone());
    users(&mut auth).await;
    let (root, alice) = (login(&mut auth, "root").await, login(&mut auth, "alice").await);
    let mut far = KvClient::new(doors.channels[cut_off].clone());
    let refused = far.put(with_token(put("a"), &alice)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    doors.cluster.isolate(cut_off);
    let permission = Permission { perm_type: Type::Write.into(), key: "a".into(), range_end: bytes::Bytes::new() };
    let grant = AuthRoleGrantPermissionRequest { name: "alice".into(), perm: Some(permission) };
    auth.role_grant_permission(with_token(grant, &root)).await.unwrap();
    let waiting = tokio::spawn(async move { far.put(with_token(put("a"), &alice)).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    doors.cluster.rejoin(cut_off);
    waiting.await.unwrap().unwrap();
}
