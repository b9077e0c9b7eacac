//! Members that go, tokens that are forgotten, endpoints that lead elsewhere.

use std::time::Duration;

use etcd::{Client, Etcd, Options};
use store::{Error, Op, Range, Store, Txn, WatchRequest};

use crate::access::{as_user, enable_users, forget_tokens};
use crate::cluster::{Server, Settings, available};
use crate::proxy::{Line, Proxy};
use crate::watching::{next, put, write};

#[tokio::test]
async fn calls_and_watches_go_on_at_another_member() {
    if !available() {
        return;
    }
    let mut servers = Server::start_members(3, Settings::default()).await;
    let options = Options::new(servers.iter().map(Server::endpoint));
    let store = Etcd::connect(&options).await.unwrap();
    write(&store, "a").await;
    let lease = store.lease_grant(600, None).await.unwrap().id;
    let mut watcher = store.watch(WatchRequest::prefix("")).await.unwrap();
    // The first is the one in use. It comes back, and the next one goes.
    for (at, server) in servers.iter_mut().enumerate().take(2) {
        server.kill();
        write(&store, &format!("{at}")).await;
        assert_eq!(next(&mut watcher).await.events[0].kv.key, format!("{at}"));
        assert_eq!(store.lease_keep_alive(lease).await.unwrap().ttl_seconds, 600);
        assert_eq!(store.leases().await.unwrap(), [lease]);
        server.start_again().await;
    }
    // Without a majority nothing is done, and what a member has can still be read.
    servers[0].kill();
    servers[1].kill();
    let hasty = Options { request_time_max: Duration::from_secs(3), ..options };
    let lonely = Etcd::connect(&hasty).await.unwrap();
    let error = lonely.txn(Txn::of([Op::put("lonely", "")])).await.unwrap_err();
    assert!(matches!(error, Error::NoLeader | Error::TimedOut), "{error}");
    let error = lonely.range(Range::all()).await.unwrap_err();
    assert!(matches!(error, Error::NoLeader | Error::TimedOut), "{error}");
    assert!(lonely.range(Range::key("a").serializable()).await.unwrap().count == 1);
    for server in &mut servers[..2] {
        server.start_again().await;
    }
    write(&store, "back").await;
    while next(&mut watcher).await.events[0].kv.key != "back" {}
}

#[tokio::test]
async fn where_nobody_is_nothing_is_done() {
    if !available() {
        return;
    }
    let mut server = Server::start(Settings::default()).await;
    let hasty = Options { request_time_max: Duration::from_secs(1), ..server.options() };
    let store = Etcd::connect(&hasty).await.unwrap();
    put(&store, "a", "1").await;
    server.kill();
    // The first may have been under way when the connection broke.
    let _ = store.txn(Txn::of([Op::put("a", "2")])).await;
    let error = store.txn(Txn::of([Op::put("a", "3")])).await.unwrap_err();
    assert!(matches!(error, Error::NoLeader) && error.is_refusal(), "{error}");
    assert!(matches!(store.watch(WatchRequest::key("a")).await, Err(Error::NoLeader)));
    assert!(matches!(store.status().await, Err(Error::NoLeader)));
    server.start_again().await;
    assert_ne!(store.range(Range::key("a")).await.unwrap().items[0].value, "3");
}

#[tokio::test]
async fn a_watch_survives_that_its_token_is_forgotten() {
    if !available() {
        return;
    }
    let mut server = Server::start(Settings::default()).await;
    enable_users(&server.client().await).await;
    let options = as_user(&server.options(), "root", "root");
    let (store, other) = (Etcd::connect(&options).await.unwrap(), Etcd::connect(&options).await.unwrap());
    let mut watcher = store.watch(WatchRequest::key("a")).await.unwrap();
    let client = Client::connect(&options).await.unwrap();
    for n in 0..2 {
        write(&other, &format!("awake {n}")).await;
        let at = put(&other, "a", "").await;
        assert_eq!(next(&mut watcher).await.revision, at);
        // Nobody but the watch finds out for its engine.
        forget_tokens(&client, "root").await;
        server.kill();
        server.start_again().await;
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_not_made_again() {
    if !available() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    let proxy = Proxy::to(server.address()).await;
    let store = Etcd::connect(&Options::new([proxy.address.to_string()])).await.unwrap();
    let other = server.store().await;
    put(&store, "a", "0").await;
    proxy.set(Line::Deaf);
    let writing = tokio::spawn(async move { store.txn(Txn::of([Op::put("a", "1")])).await });
    while other.range(Range::key("a")).await.unwrap().items[0].version < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.set(Line::Open);
    let error = writing.await.unwrap().unwrap_err();
    assert!(!error.is_refusal(), "{error}");
    assert_eq!(other.range(Range::key("a")).await.unwrap().items[0].version, 2);
}

#[tokio::test]
async fn endpoints_of_different_clusters_are_noticed() {
    if !available() {
        return;
    }
    let mut one = Server::start(Settings::default()).await;
    let other = Server::start(Settings::default()).await;
    let store = Etcd::connect(&Options::new([one.endpoint(), other.endpoint()])).await.unwrap();
    write(&store, "a").await;
    one.kill();
    let error = loop {
        match store.range(Range::key("a")).await {
            Ok(answer) => panic!("{answer:?} of another cluster"),
            Err(error @ Error::Storage { .. }) => break error,
            Err(_) => {}
        }
    };
    let Error::Storage { source, .. } = error else { unreachable!("as asked for") };
    assert!(source.to_string().contains("different clusters"), "{source}");
}
