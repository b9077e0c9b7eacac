//! Entries made of numbers, with everything in them that an entry can hold, and what a state is compared by.

use std::collections::BTreeSet;

use bytes::Bytes;
use chainfire::command::{Answers, Request};
use chainfire::member::types::Seat;
use chainfire::state::{Image, LogId, Options, Place, Reader, State};
use openraft::{EntryPayload, Membership};
use store::conformance::history::numbers;
use store::{Compare, CompareOp, Keep, KeyValue, Lease, LeaseId, Op, Range, Revision, Target, Txn};

use super::driver::{Entry, entry};

const KEYS: u64 = 60;

struct Choices(std::vec::IntoIter<u64>);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next().unwrap_or(0) % bound
    }

    fn key(&mut self) -> Bytes {
        match self.below(KEYS) {
            0 => Bytes::from_static(b"a\0b"),
            1 => Bytes::from_static(b"a"),
            n => Bytes::from(format!("key/{}/{n}", n % 5)),
        }
    }

    fn span(&mut self) -> Range {
        match self.below(4) {
            0 => Range::prefix(format!("key/{}/", self.below(5))),
            _ => Range::key(self.key()),
        }
    }

    fn op(&mut self) -> Op {
        match self.below(10) {
            0..=5 => {
                let lease = (self.below(6) == 0).then(|| LeaseId(1 + self.below(4) as i64));
                let value = Bytes::from(vec![self.below(256) as u8; self.below(400) as usize]);
                Op::Put { key: self.key(), value, lease, keep: Keep::NOTHING }
            }
            6 | 7 => {
                let Range { start, end, .. } = self.span();
                Op::Delete { range: Range { start, end, ..Range::default() } }
            }
            _ => Op::Range(self.span()),
        }
    }

    fn txn(&mut self) -> Txn {
        let when = match self.below(3) {
            0 => vec![Compare::new(self.key(), CompareOp::Less, Target::Mod(Revision(self.below(500))))],
            _ => vec![],
        };
        let then = (0..=self.below(3)).map(|_| self.op()).collect::<Vec<_>>();
        Txn { when, then, otherwise: vec![self.op()] }
    }

    fn request(&mut self, about: u64) -> Option<Request> {
        Some(match self.below(40) {
            0 => Request::Grant { ttl_seconds: 60 + self.below(60), id: None },
            1 => Request::Grant { ttl_seconds: 60, id: Some(LeaseId(1 + self.below(8) as i64)) },
            2 => Request::Revoke(LeaseId(1 + self.below(8) as i64)),
            3 => Request::Compact(Revision(self.below(about + 5))),
            4 => {
                let row = Bytes::from(format!("row {}", self.below(4)));
                let value = (self.below(3) > 0).then(|| Bytes::from(self.below(100).to_string()));
                Request::System { expected: self.below(about / 20 + 2), rows: vec![(row, value)] }
            }
            5 => Request::Txn { txn: self.admitted()?, guard: Some(self.below(about / 20 + 2)) },
            _ => Request::Txn { txn: self.admitted()?, guard: None },
        })
    }

    fn admitted(&mut self) -> Option<Txn> {
        let txn = self.txn();
        store::admit::txn(&txn).is_ok().then_some(txn)
    }
}

/// The first is a membership, as in every log; the same seed makes the same.
pub fn entries(seed: u64, count: u64) -> Vec<Entry> {
    let mut choices = Choices(numbers(seed, count as usize * 60).into_iter());
    let voters = BTreeSet::from([1, 2, 3]);
    let nodes = voters.iter().map(|id| (*id, Seat::default()));
    let membership =
        Membership::new(vec![voters.clone()], nodes.collect::<std::collections::BTreeMap<_, _>>()).unwrap();
    let first = Entry { log_id: LogId::new_term_index(1, 0), payload: EntryPayload::Membership(membership) };
    let rest = (1..count).map(|index| {
        let requests = (0..choices.below(6)).filter_map(|_| choices.request(index)).collect();
        entry(index, requests)
    });
    std::iter::once(first).chain(rest).collect()
}

/// Everything that members must agree on.
#[derive(PartialEq, Debug)]
pub struct Seen {
    pub applied: Option<LogId>,
    pub membership: String,
    pub revision: Revision,
    pub compacted: Revision,
    pub rows: Vec<KeyValue>,
    pub row_count: u64,
    pub row_bytes: u64,
    pub leases: Vec<(Lease, Vec<Bytes>)>,
    pub system: chainfire::door::host::System,
    pub hash: u32,
    pub hash_before: u32,
}

pub async fn seen(reader: &Reader) -> Seen {
    let status = reader.status();
    let rows = reader.range(Range::all()).await.unwrap().items;
    let mut leases = Vec::new();
    for lease in reader.leases() {
        leases.push((lease, reader.lease_keys(lease.id).await.unwrap()));
    }
    let between = Revision(u64::midpoint(status.revision.0, status.compacted.0.max(1)));
    Seen {
        applied: status.applied,
        membership: format!("{:?}", status.membership),
        revision: status.revision,
        compacted: status.compacted,
        rows,
        row_count: status.rows,
        row_bytes: status.row_bytes,
        leases,
        system: (*reader.system()).clone(),
        hash: reader.hash(None).await.unwrap().hash,
        hash_before: reader.hash(Some(between)).await.unwrap().hash,
    }
}

/// What a state in memory makes of the entries, all at once.
pub async fn truth(entries: &[Entry]) -> (Seen, Vec<Answers>) {
    let mut state = State::open(&Place::Memory(Image::default()), Options::default()).unwrap();
    let outcomes = state.take(entries).unwrap();
    (seen(&state.reader()).await, outcomes.into_iter().map(|outcome| outcome.answers).collect())
}
