//! Space that was compacted is used again.

use bytes::Bytes;
use chainfire::command::Request;
use chainfire::state::{Options, Place, State, TreeOptions};
use store::{Op, Revision, Txn};

use super::driver::entry;

const KEYS: u64 = 200;
const VALUE_BYTES: usize = 1024;
const ROUNDS: u64 = 150;
const LIVE_BYTES: u64 = KEYS * VALUE_BYTES as u64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_overwritten_and_compacted_does_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let tree =
        TreeOptions { cache_bytes: 1 << 20, recent_bytes: 64 << 10, gather_bytes: 256 << 10, table_bytes: 256 << 10 };
    let mut state = State::open(&Place::Folder(dir.path().to_path_buf()), Options { tree, on_leases: None }).unwrap();
    let reader = state.reader();
    let mut index = 0;
    let mut largest_late = 0;
    for round in 0..ROUNDS {
        let puts = (0..KEYS).map(|key| {
            let value = Bytes::from(vec![round as u8; VALUE_BYTES]);
            Request::Txn { txn: Txn::of([Op::put(format!("key {key}"), value)]), guard: None }
        });
        index += 1;
        state.take([&entry(index, puts.collect())]).unwrap();
        let (revision, _) = reader.revisions();
        index += 1;
        state.take([&entry(index, vec![Request::Compact(Revision(revision.0))])]).unwrap();
        if round % 10 == 9 {
            reader.flush().await.unwrap();
        }
        if round >= ROUNDS / 2 {
            largest_late = largest_late.max(reader.status().disk_bytes);
        }
    }
    let written = ROUNDS * LIVE_BYTES;
    assert!(largest_late < written / 3, "{largest_late} bytes on disk after {written} written, {LIVE_BYTES} live");
    let on_disk: u64 = walk(dir.path());
    assert!(on_disk < written / 3, "{on_disk} bytes in files");
}

fn walk(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    // A file may go between listing and looking.
    entries.map(|path| if path.is_dir() { walk(&path) } else { path.metadata().map_or(0, |file| file.len()) }).sum()
}
