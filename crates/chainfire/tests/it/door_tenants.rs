//! One door to many stores: who comes in where, what for, and for how long.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chainfire::door::tenants::{Keyring, Outside, Use};
use chainfire::door::{Handle, Options, serve_tenants};
use etcd::proto::etcdserverpb::auth_client::AuthClient;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::lease_client::LeaseClient;
use etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd::proto::etcdserverpb::watch_client::WatchClient;
use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{
    AuthenticateRequest, HashRequest, LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RangeRequest,
    SnapshotRequest, WatchCreateRequest, WatchRequest,
};
use parking_lot::Mutex;
use store::Store;
use store::memory::Memory;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// An open stream is judged again every second; only a test that fails waits for so long.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Tokens: the space that each is for, and whether it may write.
#[derive(Default)]
struct Ring {
    spaces: Mutex<HashMap<String, Arc<dyn Store>>>,
    tokens: Mutex<HashMap<String, (String, bool)>>,
}

#[async_trait]
impl Keyring for Ring {
    async fn enter(&self, space: &str, token: &str, to: Use) -> Result<Arc<dyn Store>, Outside> {
        let (own, writes) = self.tokens.lock().get(token).cloned().ok_or(Outside::Unknown)?;
        if own != space {
            return Err(Outside::Unknown);
        }
        if to == Use::Write && !writes {
            return Err(Outside::ReadOnly);
        }
        Ok(self.spaces.lock().entry(own).or_insert_with(|| Arc::new(Memory::new())).clone())
    }
}

struct Place {
    ring: Arc<Ring>,
    channel: Channel,
    _handle: Handle,
}

impl Place {
    async fn new() -> Self {
        let ring = Arc::new(Ring::default());
        for (token, space, writes) in [("a", "one", true), ("b", "two", true), ("r", "one", false)] {
            ring.tokens.lock().insert(token.to_owned(), (space.to_owned(), writes));
        }
        let options = Options::new(["http://127.0.0.1:0".to_owned()]);
        let handle = serve_tenants(options, ring.clone()).await.unwrap();
        let url = format!("http://{}", handle.addresses()[0]);
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        Self { ring, channel, _handle: handle }
    }

    async fn sign_in(&self, space: &str, token: &str) -> Result<String, Status> {
        let request = AuthenticateRequest { name: space.to_owned(), password: token.to_owned() };
        Ok(AuthClient::new(self.channel.clone()).authenticate(request).await?.into_inner().token)
    }

    async fn put(&self, pass: &str) -> Result<(), Status> {
        let put = PutRequest { key: "k".into(), value: pass.to_owned().into(), ..PutRequest::default() };
        KvClient::new(self.channel.clone()).put(with(pass, put)).await.map(drop)
    }

    async fn get(&self, pass: &str) -> Result<usize, Status> {
        let get = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        Ok(KvClient::new(self.channel.clone()).range(with(pass, get)).await?.into_inner().kvs.len())
    }
}

fn with<T>(pass: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", pass.parse().unwrap());
    request
}

#[tokio::test]
async fn a_visitor_gets_to_its_own_store_and_to_no_other() {
    let place = Place::new().await;
    for (space, token) in [("one", "b"), ("two", "a"), ("one", "none"), ("none", "a"), ("two", "r")] {
        assert_eq!(place.sign_in(space, token).await.unwrap_err().code(), Code::InvalidArgument, "{space} {token}");
    }
    let (one, two) = (place.sign_in("one", "a").await.unwrap(), place.sign_in("two", "b").await.unwrap());
    place.put(&one).await.unwrap();
    assert_eq!((place.get(&one).await.unwrap(), place.get(&two).await.unwrap()), (1, 0));
    for pass in ["", "nonsense", "b25l", "b25lAGI"] {
        assert!(place.get(pass).await.is_err(), "{pass:?}");
    }
    let bare = KvClient::new(place.channel.clone()).range(RangeRequest { key: "k".into(), ..Default::default() }).await;
    assert!(bare.is_err());
    // What is no tenant's to do.
    let mut maintenance = MaintenanceClient::new(place.channel.clone());
    assert_eq!(maintenance.hash(with(&one, HashRequest {})).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(maintenance.snapshot(with(&one, SnapshotRequest {})).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn who_may_look_may_not_touch() {
    let place = Place::new().await;
    let pass = place.sign_in("one", "r").await.unwrap();
    assert_eq!(place.get(&pass).await.unwrap(), 0);
    assert_eq!(place.put(&pass).await.unwrap_err().code(), Code::PermissionDenied);
    let grant = LeaseGrantRequest { ttl: 60, id: 0 };
    let refused = LeaseClient::new(place.channel.clone()).lease_grant(with(&pass, grant)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn what_is_open_ends_soon_after_the_right_to_it() {
    let place = Place::new().await;
    let pass = place.sign_in("one", "a").await.unwrap();
    let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
    let watch = WatchClient::new(place.channel.clone()).watch(with(&pass, requests)).await.unwrap();
    let mut watch = watch.into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    let mut leases = LeaseClient::new(place.channel.clone());
    let id = leases.lease_grant(with(&pass, LeaseGrantRequest { ttl: 60, id: 0 })).await.unwrap().into_inner().id;
    let alive = tokio_stream::iter([LeaseKeepAliveRequest { id }]).chain(tokio_stream::pending());
    let mut alive = leases.lease_keep_alive(with(&pass, alive)).await.unwrap().into_inner();
    assert_eq!(alive.message().await.unwrap().unwrap().ttl, 60);
    // It has been judged more than once and goes on.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    place.put(&pass).await.unwrap();
    assert_eq!(watch.message().await.unwrap().unwrap().events.len(), 1);

    // What it wrote with stays; the right to write goes first.
    place.ring.tokens.lock().insert("a".to_owned(), ("one".to_owned(), false));
    let ended = tokio::time::timeout(WAIT_MAX, alive.message()).await.expect("it ends").unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
    place.ring.tokens.lock().remove("a");
    let ended = tokio::time::timeout(WAIT_MAX, watch.message()).await.expect("it ends").unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert_eq!(place.get(&pass).await.unwrap_err().code(), Code::Unauthenticated);
}
