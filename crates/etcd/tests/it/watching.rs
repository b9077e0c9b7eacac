//! Watches over broken connections, restarts, compactions by others.

use std::sync::Arc;
use std::time::Duration;

use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{WatchCreateRequest, WatchRequest as RawRequest};
use etcd::{Etcd, Options};
use store::conformance::WAIT_MAX;
use store::{Batch, Compare, Error, Op, Revision, Store, Txn, WatchRequest, Watcher};

use crate::cluster::{Server, Settings, available};
use crate::proxy::{Line, Proxy};

pub async fn put(store: &Etcd, key: &str, value: &str) -> Revision {
    store.txn(Txn::of([Op::put(key.to_owned(), value.to_owned())])).await.unwrap().revision
}

pub async fn next(watcher: &mut Watcher) -> Batch {
    tokio::time::timeout(WAIT_MAX, watcher.next()).await.expect("in time").unwrap().expect("open")
}

/// Until it is in the store, through whatever happens meanwhile; exactly once.
pub async fn write(store: &Etcd, key: &str) {
    loop {
        let txn = Txn::when([Compare::missing(key.to_owned())]).then([Op::put(key.to_owned(), "")]);
        if store.txn(txn).await.is_ok() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_etcd_restarts() {
    const WRITES: u64 = 300;
    const RESTARTS: usize = 3;
    if !available() {
        return;
    }
    let mut server = Server::start(Settings::default()).await;
    let store = Arc::new(server.store().await);
    let start = store.status().await.unwrap().revision;
    let mut live = store.watch(WatchRequest::prefix("w/").previous()).await.unwrap();
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..WRITES {
                write(&store, &format!("w/{n:03}")).await;
            }
        }
    });
    let mut seen = Vec::new();
    for _ in 0..RESTARTS {
        for _ in 0..WRITES / 5 {
            seen.push(next(&mut live).await);
        }
        server.kill();
        // One that is asked for while nobody is there waits, or is told, but never gets a wrong answer.
        if let Ok(mut between) = store.watch(WatchRequest::prefix("w/").from(start.next())).await {
            assert_eq!(next(&mut between).await.revision, start.next());
        }
        server.start_again().await;
    }
    while seen.len() < WRITES as usize {
        seen.push(next(&mut live).await);
    }
    writing.await.unwrap();
    let mut past = store.watch(WatchRequest::prefix("w/").from(start.next()).previous()).await.unwrap();
    for (n, batch) in seen.into_iter().enumerate() {
        assert_eq!(batch.revision, Revision(start.0 + 1 + n as u64), "no gap, none twice");
        assert_eq!(batch.events.len(), 1);
        assert_eq!(batch.events[0].kv.key, format!("w/{n:03}"));
        assert_eq!(next(&mut past).await, batch);
    }
}

async fn through(proxy: &Proxy) -> Etcd {
    Etcd::connect(&Options::new([proxy.address.to_string()])).await.unwrap()
}

#[tokio::test]
async fn what_happens_while_the_line_is_cut_is_told_afterwards() {
    if !available() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    let proxy = Proxy::to(server.address()).await;
    let (store, other) = (through(&proxy).await, server.store().await);
    let mut watcher = store.watch(WatchRequest::key("a")).await.unwrap();
    for line in [Line::Cut, Line::Silent] {
        let before = put(&other, "a", "before").await;
        assert_eq!(next(&mut watcher).await.revision, before);
        proxy.set(line);
        let meanwhile = put(&other, "a", "meanwhile").await;
        let elsewhere = put(&other, "b", "").await;
        proxy.set(if line == Line::Cut { Line::Open } else { line });
        assert_eq!(next(&mut watcher).await.revision, meanwhile);
        let reached = async {
            while watcher.progress() != Some(elsewhere) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(WAIT_MAX, reached).await.expect("it comes up to the newest");
        proxy.set(Line::Open);
    }
}

#[tokio::test]
async fn who_missed_what_was_compacted_is_told() {
    if !available() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    let proxy = Proxy::to(server.address()).await;
    let (store, other) = (through(&proxy).await, server.store().await);
    let first = put(&store, "a", "1").await;
    let mut watcher = store.watch(WatchRequest::key("a")).await.unwrap();
    let mut later = store.watch(WatchRequest::key("a").from(Revision(first.0 + 100))).await.unwrap();
    proxy.set(Line::Cut);
    let mut last = first;
    for n in 0..20 {
        last = put(&other, "a", &n.to_string()).await;
    }
    other.compact(last).await.unwrap();
    proxy.set(Line::Open);
    let error = tokio::time::timeout(WAIT_MAX, watcher.next()).await.expect("in time").unwrap_err();
    assert!(matches!(error, Error::Compacted { compacted } if compacted == last), "{error}");
    assert!(watcher.next().await.unwrap().is_none(), "it stays ended");
    // One that waits for the future has missed nothing, and the engine goes on.
    let mut again = store.watch(WatchRequest::key("a")).await.unwrap();
    while last.0 < first.0 + 100 {
        last = put(&store, "a", "more").await;
        assert_eq!(next(&mut again).await.revision, last);
    }
    assert_eq!(next(&mut later).await.revision, last);
}

#[tokio::test]
async fn a_deletion_at_the_compacted_revision_is_not_passed_over() {
    if !available() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    let store = server.store().await;
    put(&store, "a", "1").await;
    let gone = store.txn(Txn::of([Op::delete("a")])).await.unwrap().revision;
    put(&store, "b", "1").await;
    store.compact(gone).await.unwrap();
    match store.watch(WatchRequest::prefix("").from(gone)).await {
        Ok(mut watcher) => assert_eq!(next(&mut watcher).await.revision, gone),
        Err(error) => assert!(matches!(error, Error::Compacted { compacted } if compacted == gone)),
    }
    let mut watcher = store.watch(WatchRequest::prefix("").from(gone.next())).await.unwrap();
    assert_eq!(next(&mut watcher).await.revision, gone.next());
}

#[tokio::test]
async fn a_revision_larger_than_a_message_comes_whole() {
    const KEYS: usize = 100;
    if !available() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    let store = server.store().await;
    let client = server.client().await;
    let ops = || (0..KEYS).map(|n| Op::put(format!("k/{n:03}"), vec![n as u8; 14 * 1024])).collect::<Vec<_>>();
    let first = store.txn(Txn::of(ops())).await.unwrap().revision;
    let mut live = store.watch(WatchRequest::prefix("k/").previous()).await.unwrap();
    let second = store.txn(Txn::of(ops())).await.unwrap().revision;
    let mut past = store.watch(WatchRequest::prefix("k/").from(first).previous()).await.unwrap();
    assert_eq!(next(&mut past).await.events.len(), KEYS);
    for watcher in [&mut live, &mut past] {
        let batch = next(watcher).await;
        assert_eq!((batch.revision, batch.events.len()), (second, KEYS));
        for (n, event) in batch.events.iter().enumerate() {
            assert_eq!(event.kv.key, format!("k/{n:03}"));
            assert_eq!(event.previous.as_ref().unwrap().mod_revision, first);
        }
    }
    // It is one: etcd sends it in fragments.
    let create = WatchCreateRequest {
        key: "k/".into(),
        range_end: "k0".into(),
        start_revision: second.0 as i64,
        prev_kv: true,
        fragment: true,
        ..WatchCreateRequest::default()
    };
    let request = RawRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
    let mut answers = client.watch().watch(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().created);
    assert!(answers.message().await.unwrap().unwrap().fragment);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_past_is_read_in_pages() {
    const WRITERS: usize = 64;
    const EACH: usize = 100;
    if !available() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    let store = Arc::new(server.store().await);
    let start = store.status().await.unwrap().revision;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            for _ in 0..EACH {
                put(&store, &format!("{}/{writer}", writer % 2), "").await;
            }
        });
    }
    writers.join_all().await;
    let mut all = store.watch(WatchRequest::prefix("").from(start)).await.unwrap();
    for n in 0..(WRITERS * EACH) as u64 {
        assert_eq!(next(&mut all).await.revision, Revision(start.0 + 1 + n));
    }
    let mut half = store.watch(WatchRequest::prefix("1/").from(start)).await.unwrap();
    let mut last = start;
    for _ in 0..WRITERS * EACH / 2 {
        let batch = next(&mut half).await;
        assert!(batch.revision > last && batch.events[0].kv.key.starts_with(b"1/"));
        last = batch.revision;
    }
}
