//! A disk that is really full: a small tmpfs and a ballast.

use std::path::{Path, PathBuf};

use chainfire::{Embedded, Options};
use store::{Error, Op, Range, Store, Txn};

const DISK_BYTES: u64 = 112 * 1024 * 1024;

struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path) -> Result<Self, String> {
        let options = std::ffi::CString::new(format!("size={DISK_BYTES}")).unwrap();
        rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str())
            .map_err(|error| format!("cannot mount a tmpfs: {error}"))?;
        Ok(Self(at.to_path_buf()))
    }

    fn ballast(&self, bytes: usize) {
        std::fs::write(self.0.join("ballast"), vec![1; bytes]).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn writes_stop_before_the_end_and_go_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = match Mounted::new(dir.path()) {
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
    std::fs::remove_file(disk.0.join("ballast")).unwrap();
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
