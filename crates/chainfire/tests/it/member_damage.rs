//! Damaged files: made anew from what is whole, or refused with what to do about it. Never served.

use std::fs;
use std::path::{Path, PathBuf};

use chainfire::member::{Member, OpenError, Options, Place};
use store::Error;

use crate::member_cluster::{Cluster, get, put_soon};

/// The file that names the state in use.
fn current(dir: &Path) -> PathBuf {
    dir.join("state").join("current")
}

fn damage(file: &Path) {
    let mut bytes = fs::read(file).expect("the file is there");
    bytes[0] ^= 1;
    fs::write(file, bytes).expect("the file is written");
}

fn alone(dir: &Path, snapshot_entries: u64) -> Options {
    Options { place: Place::Folder(dir.to_path_buf()), snapshot_entries, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_is_made_anew_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(alone(dir.path(), 10_000)).await.unwrap();
    put_soon(&member, "key", "value").await;
    member.close().await.unwrap();
    drop(member);
    damage(&current(dir.path()));
    let member = Member::open(alone(dir.path(), 10_000)).await.unwrap();
    assert_eq!(get(&member, "key").await.as_deref(), Some("value"));
    assert!(dir.path().join("state.damaged").is_dir(), "what was damaged can be looked at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_behind_a_short_log_is_refused_when_nobody_has_another() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(alone(dir.path(), 5)).await.unwrap();
    for n in 0..100 {
        put_soon(&member, &format!("key/{n}"), "value").await;
    }
    member.close().await.unwrap();
    drop(member);
    damage(&current(dir.path()));
    for _ in 0..2 {
        let refused = Member::open(alone(dir.path(), 5)).await.err().expect("it is refused");
        let OpenError::Store(Error::Corrupt { path, reason }) = refused else { panic!("{refused}") };
        assert_eq!(path, current(dir.path()));
        assert!(reason.contains("checksum") && reason.contains("add it anew"), "{reason}");
    }
    // As it was: repaired by hand, it is used again.
    damage(&current(dir.path()));
    let member = Member::open(alone(dir.path(), 5)).await.unwrap();
    assert_eq!(get(&member, "key/99").await.as_deref(), Some("value"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_state_behind_a_short_log_is_taken_from_another_member() {
    let mut cluster = Cluster::with_snapshots(3, 5).await;
    for n in 0..100 {
        put_soon(&*cluster.store(0), &format!("key/{n}"), "value").await;
    }
    cluster.agree().await;
    cluster.stop(2).await;
    damage(&current(&cluster.folder(2)));
    for n in 100..150 {
        put_soon(&*cluster.store(0), &format!("key/{n}"), "value").await;
    }
    cluster.restart(2).await;
    assert_eq!(get(&*cluster.store(2), "key/149").await.as_deref(), Some("value"));
    assert_eq!(cluster.agree().await, 150);
    // And it is a member like any other.
    cluster.stop(1).await;
    put_soon(&*cluster.store(2), "more", "").await;
    cluster.kill(2);
    cluster.restart(2).await;
    assert_eq!(get(&*cluster.store(2), "more").await.as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(alone(dir.path(), 10_000)).await.unwrap();
    put_soon(&member, "key", "value that is found again").await;
    put_soon(&member, "key", "another").await;
    member.close().await.unwrap();
    drop(member);
    let value = b"value that is found again";
    let segments = fs::read_dir(dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let found = segments.filter_map(|path| {
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(value.len()).position(|window| window == value)?;
        Some((path, bytes, at))
    });
    let (path, mut bytes, at) = found.last().expect("the value is in the log");
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
    let refused = Member::open(alone(dir.path(), 10_000)).await.err().expect("it is refused");
    let OpenError::Store(Error::Corrupt { reason, .. }) = refused else { panic!("{refused}") };
    assert!(reason.contains("Remove this member from the cluster"), "{reason}");
}
