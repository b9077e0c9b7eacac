//! What a restart keeps, and what compaction gives back.

use chainfire::{Embedded, Options};
use store::{Error, LeaseId, Op, Range, Revision, Store, Txn, WatchRequest};

async fn put(store: &Embedded, key: &str, value: impl Into<store::Value>) -> Revision {
    store.txn(Txn::of([Op::put(key.to_owned(), value)])).await.unwrap().revision
}

#[tokio::test]
async fn everything_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    let lease = store.lease_grant(600, None).await.unwrap().id;
    store.txn(Txn::of([Op::put_leased("leased", "x", lease)])).await.unwrap();
    store.txn(Txn::of([Op::delete("a")])).await.unwrap();
    let last = put(&store, "b", "3").await;
    store.compact(second).await.unwrap();
    let before = store.range(Range::all()).await.unwrap();
    store.close().await.unwrap();

    let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
    assert_eq!(store.range(Range::all()).await.unwrap(), before);
    let status = store.status().await.unwrap();
    assert_eq!((status.revision, status.compacted), (last, second));
    assert_eq!(store.range(Range::key("a").at(second)).await.unwrap().items[0].value, "2");
    assert!(matches!(store.range(Range::key("a").at(first)).await, Err(Error::Compacted { .. })));
    let mut watcher = store.watch(WatchRequest::prefix("").from(second).previous()).await.unwrap();
    for revision in second.0..=last.0 {
        assert_eq!(watcher.next().await.unwrap().unwrap().revision, Revision(revision));
    }
    let alive = store.lease_time_to_live(lease).await.unwrap();
    assert_eq!((alive.ttl_seconds, alive.keys), (600, vec!["leased".into()]));
    let other = store.lease_grant(600, None).await.unwrap().id;
    assert!(other.0 > lease.0, "ids are not used again");
    assert_eq!(put(&store, "c", "4").await, last.next());
    assert_eq!(watcher.next().await.unwrap().unwrap().revision, last.next());
    store.lease_revoke(lease).await.unwrap();
    assert!(store.range(Range::key("leased")).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_lease_runs_out_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
    store.lease_grant(1, Some(LeaseId(5))).await.unwrap();
    store.txn(Txn::of([Op::put_leased("a", "", LeaseId(5))])).await.unwrap();
    let at = store.status().await.unwrap().revision;
    store.close().await.unwrap();
    let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
    let mut watcher = store.watch(WatchRequest::key("a").from(at.next())).await.unwrap();
    let gone = watcher.next().await.unwrap().unwrap();
    assert_eq!(gone.events[0].kind, store::EventKind::Delete);
    // The second restart finds no lease.
    store.close().await.unwrap();
    let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
    assert!(matches!(store.lease_time_to_live(LeaseId(5)).await, Err(Error::LeaseNotFound { .. })));
}

/// The same rows over and over, compacted now and then: the file stops growing.
#[tokio::test]
async fn the_space_of_compacted_history_is_used_again() {
    const ROUNDS: u64 = 30;
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
    let mut sizes = Vec::new();
    for round in 0..ROUNDS {
        for part in 0..10 {
            let ops: Vec<_> = (0..100).map(|n| Op::put(format!("k/{part}/{n}"), vec![round as u8; 512])).collect();
            store.txn(Txn::of(ops)).await.unwrap();
        }
        let newest = store.status().await.unwrap().revision;
        store.compact(newest).await.unwrap();
        sizes.push(store.status().await.unwrap().db_bytes);
    }
    // 500 kB of rows, and 15 MB written.
    let (early, late) = (sizes[sizes.len() / 2], *sizes.last().unwrap());
    assert!(late <= early + early / 2, "it grows from {early} to {late}");
    assert!(late < 12 * 1024 * 1024, "{late} bytes for 1,000 rows");
}

/// Stopped in the middle of reclaiming, it goes on when it is opened.
#[tokio::test]
async fn reclaiming_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chainfire.redb");
    let count = |table: &str| {
        use redb::{ReadableDatabase, ReadableTableMetadata};
        let database = redb::ReadOnlyDatabase::open(&path).unwrap();
        let read = database.begin_read().unwrap();
        if table == "log" {
            read.open_table(redb::TableDefinition::<(u64, u32), &[u8]>::new("log")).unwrap().len().unwrap()
        } else {
            read.open_table(redb::TableDefinition::<(&[u8], u64, u8), &[u8]>::new("history")).unwrap().len().unwrap()
        }
    };
    let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
    for round in 0..60 {
        let ops: Vec<_> = (0..100).map(|n| Op::put(format!("k/{n}"), format!("{round}"))).collect();
        store.txn(Txn::of(ops)).await.unwrap();
    }
    let newest = store.status().await.unwrap().revision;
    store.compact(newest).await.unwrap();
    store.close().await.unwrap();
    let left = (count("log"), count("history"));
    for _ in 0..20 {
        let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
        assert_eq!(store.range(Range::prefix("k/")).await.unwrap().count, 100);
        store.close().await.unwrap();
    }
    let done = (count("log"), count("history"));
    assert!(done <= left, "{done:?} of {left:?}");
    assert_eq!(done, (1, 0), "the log of the compacted revision alone is left");
}
