//! The replicated log from bytes. The first byte says how the rest becomes segments: as they are, or as records with
//! right sums, so that what lies behind the sums is reached.
//!
//! `cargo +nightly fuzz run log corpus/log seeds/log`
#![no_main]

use chainfire::command::Proposal;
use chainfire::log::format::{self, HEADER_BYTES, Header, Kind};
use chainfire::log::{Disk, Log, Options};
use chainfire::member::types::Types;
use libfuzzer_sys::fuzz_target;
use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::type_config::alias::{EntryOf, LogIdOf};
use openraft::vote::RaftLeaderIdExt;
use serde::Serialize;
use serde::ser::{SerializeTuple, Serializer};

/// Transactions nest, and a deep one takes stack.
const BYTES_MAX: usize = 2048;
const SEGMENT_BYTES: u64 = 4096;

/// Bytes as they are.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        for byte in self.0 {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = data.split_first() else { return };
    if rest.len() > BYTES_MAX {
        return;
    }
    let disk = Disk::new();
    let segments = usize::from(how >> 1 & 1) + 1;
    let mut previous = (0, 0);
    for (sequence, part) in rest.chunks(rest.len().div_ceil(segments).max(1)).enumerate() {
        let content = if how & 1 == 0 { part.to_vec() } else { mended(part, sequence as u64, &mut previous) };
        disk.put(&format!("{sequence:016x}.log"), content);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(live(&disk));
});

/// Records with right sums: a byte for the kind, one for the length, and so many for the body.
fn mended(mut part: &[u8], sequence: u64, previous: &mut (u64, u64)) -> Vec<u8> {
    let header = Header {
        sequence,
        bytes: SEGMENT_BYTES,
        cluster: 0,
        previous_end: previous.0,
        previous_sum: previous.1,
    };
    let (header, mut sum) = header.encode();
    let mut content = header.to_vec();
    while let [kind, length, after @ ..] = part {
        let (body, after) = after.split_at(after.len().min(usize::from(*length)));
        let kind = if kind & 1 == 0 { Kind::Mark } else { Kind::Entry };
        sum = format::put(&mut content, 0, sequence, sum, kind, &Raw(body)).unwrap();
        part = after;
    }
    *previous = (content.len() as u64, sum);
    assert!(content.len() > HEADER_BYTES || sequence < 2);
    content.resize(content.len().max(SEGMENT_BYTES as usize), 0);
    content
}

fn open(disk: &Disk) -> Result<Log, store::Error> {
    Log::open_on(disk.attach(), Options { segment_bytes: SEGMENT_BYTES, ..Options::default() })
}

/// What can be opened can be written to, and has the same when it is opened again.
async fn live(disk: &Disk) {
    let Ok(mut log) = open(disk) else { return };
    let Ok(before) = log.try_get_log_entries(..).await else { return };
    let facts = log.facts();
    assert_eq!(before.len() as u64, facts.next - facts.first);
    let id = LogIdOf::<Types>::new(<Types as openraft::RaftTypeConfig>::LeaderId::new_committed(u64::MAX, 1), facts.next);
    let entry = EntryOf::<Types> { log_id: id, payload: EntryPayload::Normal(Proposal::default()) };
    log.blocking_append([entry.clone()]).await.unwrap();
    log.close().await.unwrap();
    let mut log = open(disk).unwrap();
    let after = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(after[..after.len() - 1], before);
    assert_eq!(after.last(), Some(&entry));
    assert_eq!(log.read_vote().await.unwrap(), facts.marks.vote);
    log.close().await.unwrap();
}
