//! Entries, and what a log has, for the tests of the log.

use bytes::Bytes;
use chainfire::command::{Proposal, Request};
use chainfire::log::{Disk, Log, Options};
use chainfire::member::types::Types;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::vote::RaftLeaderIdExt;
use openraft::{EntryPayload, RaftTypeConfig};
use store::{Op, Txn};
use tokio::sync::oneshot;

pub type Entry = EntryOf<Types>;
pub type Id = LogIdOf<Types>;
pub type Vote = VoteOf<Types>;

pub fn id(term: u64, index: u64) -> Id {
    Id::new(<Types as RaftTypeConfig>::LeaderId::new_committed(term, 1), index)
}

pub fn vote(term: u64) -> Vote {
    Vote::new(term, 1)
}

pub fn put(term: u64, index: u64, value: impl Into<Bytes>) -> Entry {
    let txn = Txn::of([Op::put(format!("key/{index}"), value.into())]);
    let requests = std::sync::Arc::new(vec![Request::Txn { txn, guard: None }]);
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(Proposal { requests }) }
}

/// Small segments, so that a short test sees many.
pub fn small() -> Options {
    Options { segment_bytes: 4096, tail_bytes: 2000, ..Options::default() }
}

/// What a log answers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Contents {
    pub vote: Option<Vote>,
    pub purged: Option<Id>,
    pub last: Option<Id>,
    pub entries: Vec<Entry>,
}

pub async fn contents(log: &Log) -> std::io::Result<Contents> {
    let mut log = log.clone();
    let state = log.get_log_state().await?;
    Ok(Contents {
        vote: log.read_vote().await?,
        purged: state.last_purged_log_id,
        last: state.last_log_id,
        entries: log.try_get_log_entries(..).await?,
    })
}

/// The receiver hears when the entries are durable.
pub async fn append(log: &Log, entries: Vec<Entry>) -> std::io::Result<oneshot::Receiver<std::io::Result<()>>> {
    let (sender, receiver) = Types::oneshot();
    log.clone().append(entries, IOFlushed::signal(sender)).await?;
    Ok(receiver)
}

/// Appends and waits until it is durable.
pub async fn append_synced(log: &Log, entries: Vec<Entry>) {
    append(log, entries).await.unwrap().await.unwrap().unwrap();
}

pub fn open(disk: &Disk) -> Result<Log, store::Error> {
    Log::open_on(disk.attach(), small())
}

/// Chances from a seed.
pub fn chances(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut numbers = store::conformance::history::numbers(seed, 50_000).into_iter().cycle();
    move |below| numbers.next().unwrap() % below
}
