//! Leases by the database's clock.

use std::time::Duration;

use store::{Error, EventKind, LeaseId, Op, Store, Txn, WatchRequest};

use crate::server;
use crate::several::server_or_skip;
use crate::workload::{get, next, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ran_out_is_not_kept_alive_even_while_nobody_ends_it() {
    let server = server_or_skip!();
    let schema = server::schema();
    let url = server.url(&schema);
    // The schema exists, and its house is kept by a stranger.
    drop(open(&url).await);
    let stranger = server.admin().await;
    let keep =
        format!("SELECT pg_try_advisory_lock((1346916180::bigint << 32) | '{schema}'::regnamespace::oid::bigint)");
    while !stranger.query_one(&keep, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let store = open(&url).await;
    let lease = store.lease_grant(1, None).await.unwrap().id;
    store.txn(Txn::of([Op::put_leased("k", "v", lease)])).await.unwrap();
    let over = loop {
        match store.lease_keep_alive(lease).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(1100)).await,
            Err(error) => break error,
        }
    };
    assert!(matches!(over, Error::LeaseNotFound { id } if id == lease));
    assert_eq!(get(&*store, "k").await, Some("v".into()), "nobody has ended it");
    assert_eq!(store.lease_time_to_live(lease).await.unwrap().remaining_seconds, 0);
    assert!(store.leases().await.unwrap().is_empty(), "it is not alive");
    let mut watcher = store.watch(WatchRequest::key("k")).await.unwrap();
    // With the stranger's session its lock goes, and the store takes over.
    drop(stranger);
    assert_eq!(next(&mut watcher).await.unwrap().unwrap().events[0].kind, EventKind::Delete);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_its_full_time_after_a_start_of_the_server() {
    let server = server_or_skip!();
    let schema = server::schema();
    let store = open(&server.url(&schema)).await;
    // Longer than this server has been running, as leases are after an outage: nobody could keep them alive.
    let long = store.lease_grant(100_000, Some(LeaseId(1))).await.unwrap().id;
    let short = store.lease_grant(1, Some(LeaseId(2))).await.unwrap().id;
    store.txn(Txn::of([Op::put_leased("long", "", long), Op::put_leased("short", "", short)])).await.unwrap();
    let mut watcher = store.watch(WatchRequest::prefix("")).await.unwrap();
    let admin = server.admin().await;
    let late = format!("UPDATE {schema}.leases SET expires = now() - interval '1 day'");
    admin.batch_execute(&late).await.unwrap();
    let batch = next(&mut watcher).await.unwrap().unwrap();
    assert_eq!((&batch.events[0].kv.key[..], batch.events.len()), (&b"short"[..], 1));
    let status = store.lease_time_to_live(long).await.unwrap();
    assert!(status.remaining_seconds > 0 && status.remaining_seconds <= 100_000);
    store.lease_keep_alive(long).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signs_of_life_keep_a_short_lease_for_long() {
    let store = open(&server_or_skip!().url(&server::schema())).await;
    let lease = store.lease_grant(5, None).await.unwrap().id;
    store.txn(Txn::of([Op::put_leased("k", "", lease)])).await.unwrap();
    for _ in 0..16 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        store.lease_keep_alive(lease).await.unwrap();
    }
    assert!(get(&*store, "k").await.is_some());
}
