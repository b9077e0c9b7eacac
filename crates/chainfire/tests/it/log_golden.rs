//! What the first format looks like: every later version reads it, and this one writes it, byte by byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chainfire::command::{Proposal, Request};
use chainfire::log::Disk;
use chainfire::member::types::{Contact, Seat};
use openraft::storage::RaftLogStorage;
use openraft::{EntryPayload, Membership};
use store::{Compare, LeaseId, Op, Range, Revision, Txn};

use crate::log_support::{Entry, append_synced, contents, id, open, put, vote};

type Files = BTreeMap<String, Vec<u8>>;

const FILES: &[u8] = include_bytes!("golden/log-1.zst");
const CONTENTS: &str = include_str!("golden/log-1.txt");

fn proposal(index: u64, requests: Vec<Request>) -> Entry {
    Entry { log_id: id(2, index), payload: EntryPayload::Normal(Proposal { requests: Arc::new(requests) }) }
}

fn entries() -> Vec<Entry> {
    let txn = Txn::when([Compare::exists("there"), Compare::value_is("key", "value")])
        .then([Op::put_leased("leased", "value", LeaseId(7)), Op::Range(Range::prefix("k"))])
        .otherwise([Op::delete_prefix("old/"), Op::Txn(Txn::of([Op::get("nested")]))]);
    let seat = |name: &str| Seat {
        contact: Contact {
            name: name.into(),
            peer_urls: vec![format!("https://{name}:2380")],
            client_urls: vec![format!("https://{name}:2379")],
        },
        to_vote: name == "two",
    };
    let seats = BTreeMap::from([(1, seat("one")), (2, seat("two"))]);
    let membership = Membership::new(vec![BTreeSet::from([1])], seats).unwrap();
    vec![
        Entry { log_id: id(2, 4), payload: EntryPayload::Blank },
        Entry { log_id: id(2, 5), payload: EntryPayload::Membership(membership) },
        proposal(6, vec![Request::Txn { txn, guard: Some(3) }, Request::Compact(Revision(9))]),
        proposal(
            7,
            vec![
                Request::Grant { ttl_seconds: 60, id: Some(LeaseId(7)) },
                Request::Grant { ttl_seconds: 5, id: None },
                Request::Revoke(LeaseId(7)),
            ],
        ),
        proposal(
            8,
            vec![Request::System {
                expected: 3,
                rows: vec![(Bytes::from("set"), Some(Bytes::from("row"))), (Bytes::from("removed"), None)],
            }],
        ),
    ]
}

async fn written() -> Files {
    let disk = Disk::new();
    let mut log = open(&disk).unwrap();
    log.save_vote(&vote(1)).await.unwrap();
    append_synced(&log, (0..12).map(|index| put(1, index, vec![index as u8; 400])).collect()).await;
    log.truncate_after(Some(id(1, 3))).await.unwrap();
    log.save_vote(&vote(2)).await.unwrap();
    append_synced(&log, entries()).await;
    log.save_committed(Some(id(2, 6))).await.unwrap();
    log.purge(id(1, 1)).await.unwrap();
    log.close().await.unwrap();
    let mut files = disk.files();
    files.remove("spare");
    files
}

async fn shown(files: &Files) -> String {
    let disk = Disk::new();
    for (name, content) in files {
        disk.put(name, content.clone());
    }
    let mut log = open(&disk).unwrap();
    let shown = format!("{:?}\n{:#?}\n", log.read_committed().await.unwrap(), contents(&log).await.unwrap());
    log.close().await.unwrap();
    shown
}

#[tokio::test]
async fn the_first_format_is_still_read() {
    let files: Files = postcard::from_bytes(&zstd::decode_all(FILES).unwrap()).unwrap();
    assert!(files.len() > 1);
    assert_eq!(shown(&files).await, CONTENTS);
}

/// When the format changes on purpose, a new golden file joins the old one.
#[tokio::test]
async fn the_golden_files_are_what_is_written_today() {
    let files = written().await;
    if let Ok(make) = std::env::var("CHAINFIRE_GOLDEN") {
        let packed = zstd::encode_all(&postcard::to_stdvec(&files).unwrap()[..], 19).unwrap();
        std::fs::write(Path::new(&make).join("log-1.zst"), packed).unwrap();
        std::fs::write(Path::new(&make).join("log-1.txt"), shown(&files).await).unwrap();
        return;
    }
    let golden: Files = postcard::from_bytes(&zstd::decode_all(FILES).unwrap()).unwrap();
    assert_eq!(shown(&files).await, CONTENTS);
    assert!(files == golden, "the bytes differ: written with CHAINFIRE_GOLDEN=FOLDER if that is meant");
}
