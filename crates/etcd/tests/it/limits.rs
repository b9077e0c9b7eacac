//! Where etcd's limits are its own, and what others did to the store.

use bytes::Bytes;
use etcd::{Etcd, Options};
use store::limits::REQUEST_BYTES_MAX;
use store::{Error, Keep, LeaseId, Op, Range, Revision, Store, Txn};

use crate::access::{as_user, enable_users};
use crate::cluster::{Server, Settings, available};
use crate::watching::put;

fn flags(flags: &[&str]) -> Settings {
    Settings { flags: flags.iter().map(|flag| (*flag).to_owned()).collect(), ..Settings::default() }
}

#[tokio::test]
async fn limits_of_the_cluster_are_refusals() {
    if !available() {
        return;
    }
    let server = Server::start(flags(&["--max-txn-ops=10", "--max-request-bytes=100000"])).await;
    let store = server.store().await;
    let many: Vec<Op> = (0..11).map(|n| Op::put(format!("{n}"), "")).collect();
    let error = store.txn(Txn::of(many)).await.unwrap_err();
    assert!(matches!(error, Error::TooManyOps { max: 10 }), "{error}");
    for bytes in [100_001, REQUEST_BYTES_MAX - 1] {
        let error = store.txn(Txn::of([Op::put("a", vec![0; bytes])])).await.unwrap_err();
        assert!(matches!(error, Error::RequestTooLarge { bytes: told, max } if told > bytes && max < told), "{error}");
    }
    assert_eq!(store.status().await.unwrap().revision, Revision::FIRST);
}

#[tokio::test]
async fn a_full_cluster_takes_no_more_and_lets_go() {
    const VALUE_BYTES: usize = 512 * 1024;
    if !available() {
        return;
    }
    let server = Server::start(flags(&["--quota-backend-bytes=16777216"])).await;
    let store = server.store().await;
    let mut refused = None;
    for n in 0..64 {
        if let Err(error) = store.txn(Txn::of([Op::put(format!("{n}"), vec![0; VALUE_BYTES])])).await {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(Error::DiskFull)), "{refused:?}");
    store.txn(Txn::of([Op::delete("0")])).await.unwrap();
    assert!(store.range(Range::key("0")).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn what_etcd_does_not_say_is_found_out() {
    if !available() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    let (store, other) = (server.store().await, server.store().await);
    let alive = store.lease_grant(600, None).await.unwrap().id;
    let leased = |key: &'static str, lease| Op::put_leased(key, "", lease);
    let two = Txn::of([leased("a", alive), leased("b", LeaseId(99)), leased("c", LeaseId(98))]);
    let error = store.txn(two).await.unwrap_err();
    assert!(matches!(error, Error::LeaseNotFound { id: LeaseId(99) }), "{error}");
    let none = store.txn(Txn::of([leased("a", LeaseId(0))])).await.unwrap_err();
    assert!(matches!(none, Error::LeaseNotFound { id: LeaseId(0) }), "{none}");

    put(&store, "a", "").await;
    let keeping = |key: &'static str| Op::Put {
        key: key.into(),
        value: Bytes::new(),
        lease: None,
        keep: Keep { value: true, lease: false },
    };
    let error = store.txn(Txn::of([keeping("a"), keeping("b")])).await.unwrap_err();
    assert!(matches!(error, Error::KeyNotFound { key } if key == "b"));

    for n in 0..50 {
        put(&other, "a", &n.to_string()).await;
    }
    // Compacted by somebody else, more than once: found by looking.
    for compacted in [Revision(1), Revision(2), Revision(17), Revision(51)] {
        other.compact(compacted).await.unwrap();
        let error = store.range(Range::all().at(compacted.before())).await;
        if compacted > Revision::FIRST {
            assert!(
                matches!(error, Err(Error::Compacted { compacted: told }) if told == compacted || compacted.0 == 2)
            );
            assert_eq!(store.status().await.unwrap().compacted, compacted);
        }
        let again = store.compact(compacted).await.unwrap_err();
        assert!(matches!(again, Error::Compacted { .. }), "{again}");
    }
    let newest = store.status().await.unwrap().revision;
    let future = Txn::of([Op::Range(Range::all().at(Revision(u64::MAX)))]);
    for error in [
        store.txn(future).await.unwrap_err(),
        store.range(Range::all().at(Revision(u64::MAX))).await.unwrap_err(),
        store.compact(Revision(u64::MAX)).await.unwrap_err(),
    ] {
        let told = matches!(error, Error::FutureRevision { asked: Revision(u64::MAX), newest: at } if at == newest);
        assert!(told, "{error}");
    }
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    if !available() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    let options = server.options();
    let root = Etcd::connect(&as_user(&options, "root", "root")).await.unwrap();
    put(&root, "a", "1").await;
    enable_users(&server.client().await).await;
    put(&root, "a", "2").await;
    let reader = Etcd::connect(&as_user(&options, "reader", "reader")).await.unwrap();
    assert_eq!(reader.range(Range::key("a")).await.unwrap().count, 1);
    let denied = [
        reader.range(Range::all()).await.unwrap_err(),
        reader.txn(Txn::of([Op::put("a", "")])).await.unwrap_err(),
        reader.watch(store::WatchRequest::key("a")).await.unwrap_err(),
    ];
    for error in denied {
        let Error::Storage { source, .. } = &error else { panic!("{error}") };
        assert!(source.to_string().contains("permission denied"), "{source}");
    }
    let nobody = Etcd::connect(&Options { login: None, ..options }).await.unwrap();
    assert!(matches!(nobody.range(Range::all()).await, Err(Error::Storage { .. })));
}
