//! A disk that is really full.

use std::path::Path;
use std::time::Duration;

use chainfire::state::{Image, Options, Place, State, TreeOptions};
use store::Error;

use super::load::{entries, seen, truth};
use crate::tmpfs::Tmpfs;

const DISK_BYTES: usize = 24 * 1024 * 1024;

fn tables(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("data/state/1/tables")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_stays_in_memory_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = match Tmpfs::mount(dir.path(), DISK_BYTES) {
        Ok(disk) => disk,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let place = Place::Folder(dir.path().join("data"));
    let tree =
        TreeOptions { cache_bytes: 1 << 20, recent_bytes: 64 << 10, gather_bytes: 256 << 10, table_bytes: 256 << 10 };
    let options = Options { tree, on_leases: None };
    let mut state = State::open(&place, options.clone()).unwrap();
    let reader = state.reader();
    let all = entries(31, 1_500);
    for part in all[..500].chunks(20) {
        state.take(part).unwrap();
    }
    reader.flush().await.unwrap();
    let durable = reader.durable_index();
    let before = tables(dir.path());
    disk.fill();
    for part in all[500..].chunks(20) {
        state.take(part).unwrap();
    }
    assert!(matches!(reader.flush().await, Err(Error::DiskFull)));
    assert!(matches!(reader.status().problem, Some(Error::DiskFull)));
    assert_eq!(reader.durable_index(), durable);
    assert_eq!(seen(&reader).await, truth(&all).await.0, "everything can still be read");
    assert!(tables(dir.path()) <= before, "no half tables lie about");

    // A copy does not fit, and leaves nothing.
    let mut other = State::open(&Place::Memory(Image::default()), Options::default()).unwrap();
    other.take(&entries(32, 300)).unwrap();
    let mut incoming = reader.receive().unwrap();
    let mut pieces = other.reader().export();
    let refused = loop {
        match pieces.recv().await.map(|piece| incoming.write(piece.unwrap())) {
            Some(Ok(())) => {}
            Some(Err(error)) => break error,
            None => panic!("a copy fitted on a full disk"),
        }
    };
    assert!(matches!(refused, Error::DiskFull), "{refused}");
    drop(incoming);
    assert!(state.replace(&other.reader().dump()).is_err_and(|error| matches!(error, Error::DiskFull)));
    assert_eq!(seen(&reader).await, truth(&all).await.0);

    disk.make_room();
    tokio::time::timeout(Duration::from_mins(1), async {
        while reader.flush().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("it is written down once there is room");
    assert_eq!(reader.durable_index(), 1_499);
    assert!(reader.status().problem.is_none());
    drop((state, reader));
    let state = State::open(&place, options).unwrap();
    assert_eq!(seen(&state.reader()).await, truth(&all).await.0);
    drop(state);
}
