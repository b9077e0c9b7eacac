//! A disk that is really full.

use chainfire::{Embedded, Options};
use store::{Error, Op, Range, Store, Txn};

use crate::tmpfs::Tmpfs;

const DISK_BYTES: usize = 112 * 1024 * 1024;

#[tokio::test]
async fn writes_stop_before_the_end_and_go_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = match Tmpfs::mount(dir.path(), DISK_BYTES) {
        Ok(disk) => disk,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let store = Embedded::open(dir.path().join("data"), Options::default()).await.unwrap();
    let put = |n: u32| store.txn(Txn::of([Op::put(format!("k/{n:06}"), vec![n as u8; 200_000])]));
    let mut written = 0;
    let error = loop {
        match put(written).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DiskFull), "{error:?}");
    assert!(written > 10);
    // Reading and deleting still work, and so does what is not a put.
    assert_eq!(store.range(Range::prefix("k/").count_only()).await.unwrap().count, u64::from(written));
    store.txn(Txn::of([Op::delete("k/000000")])).await.unwrap();
    assert!(matches!(store.lease_grant(60, None).await, Err(Error::DiskFull)));
    // Fuller still: not even a delete can be sure of its place, and everything is read.
    disk.ballast(40 * 1024 * 1024);
    let deleted = store.txn(Txn::of([Op::delete("k/000001")])).await;
    assert!(matches!(deleted, Ok(_) | Err(Error::DiskFull)), "{deleted:?}");
    assert!(matches!(put(written).await, Err(Error::DiskFull)));
    assert_eq!(store.range(Range::key("k/000002")).await.unwrap().items[0].value, vec![2; 200_000]);
    // Somebody makes room.
    disk.make_room();
    // Deleting keeps the rows in the history: all at once needs more room than there is. The disk runs full in the
    // middle of the commit, which is refused as a whole.
    let before = store.status().await.unwrap().revision;
    let error = store.txn(Txn::of([Op::delete_prefix("k/")])).await.unwrap_err();
    assert!(matches!(error, Error::DiskFull), "{error:?}");
    assert_eq!(store.status().await.unwrap().revision, before);
    // In steps, each one given back, it works.
    for first in (0..written).step_by(5) {
        let ops: Vec<_> = (first..first + 5).map(|n| Op::delete(format!("k/{n:06}"))).collect();
        let deleted = store.txn(Txn::of(ops)).await.unwrap().revision;
        store.compact(deleted).await.unwrap();
    }
    store.close().await.unwrap();
    let store = Embedded::open(dir.path().join("data"), Options::default()).await.unwrap();
    assert_eq!(store.range(Range::all()).await.unwrap().count, 0);
    drop(store);
    drop(disk);
}
