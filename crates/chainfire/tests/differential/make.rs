//! Histories from seeds: keys, transactions, leases, compactions, watches.

use bytes::Bytes;
use etcd::proto::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::request_op::Request;

use crate::choice::Choices;
use crate::frame::{CHOSEN, NEWEST};
use crate::step::Step;

pub const STEPS_MIN: i64 = 20;
pub const STEPS_MAX: i64 = 200;

/// etcd's default for `--max-txn-ops`.
const TXN_OPS_MAX: usize = 128;
/// etcd's default for `--max-request-bytes`.
const REQUEST_BYTES_MAX: usize = 1536 * 1024;
/// Requests are not made to the byte, as etcd counts an id of random length into them.
const REQUEST_BYTES_SLACK: usize = 64;
/// What gRPC lets through on top.
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;

/// Leases of a history live long; those that may run out are in steps of their own.
const TTL: [i64; 4] = [600, 1000, 86_400, 9_000_000_000];

const STREAMS: u64 = 3;

/// What a history is mostly about.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Mixed,
    Watches,
    Past,
    Leases,
    /// More rows than a page of anything.
    Wide,
    /// Values up to the limit of a request.
    Large,
    Expiry,
}

pub fn history(seed: u64) -> Vec<Step> {
    let mut choices = Choices::new(seed);
    let kind = choices.weighted(&[
        (40, Kind::Mixed),
        (25, Kind::Watches),
        (15, Kind::Past),
        (12, Kind::Leases),
        (5, Kind::Wide),
        (2, Kind::Large),
        (1, Kind::Expiry),
    ]);
    let short = matches!(kind, Kind::Large | Kind::Expiry);
    let steps = if short { choices.between(STEPS_MIN, 2 * STEPS_MIN) } else { choices.between(STEPS_MIN, STEPS_MAX) };
    let mut maker = Maker { choices, kind, written: 0 };
    let mut history = Vec::new();
    if matches!(kind, Kind::Wide) {
        history.push(maker.fill());
    }
    while history.len() < steps as usize {
        history.push(maker.step());
    }
    history
}

struct Maker {
    choices: Choices,
    kind: Kind,
    /// About how many revisions there are by now.
    written: i64,
}

impl Maker {
    fn step(&mut self) -> Step {
        #[derive(Clone, Copy)]
        enum What {
            Range,
            Put,
            Delete,
            Txn,
            Compact,
            Lease,
            Watch,
            Hash,
            Expire,
            Settle,
        }
        use What::*;
        let what = match self.kind {
            Kind::Mixed | Kind::Wide => {
                [(25, Range), (25, Put), (10, Delete), (25, Txn), (3, Compact), (6, Lease), (5, Watch)].as_slice()
            }
            Kind::Watches => {
                &[(3, Range), (30, Put), (12, Delete), (15, Txn), (3, Compact), (5, Lease), (30, Watch), (2, Settle)]
            }
            Kind::Past => &[(45, Range), (18, Put), (10, Delete), (10, Txn), (8, Compact), (8, Watch), (2, Hash)],
            Kind::Leases => &[(5, Range), (25, Put), (10, Delete), (10, Txn), (2, Compact), (40, Lease), (5, Watch)],
            Kind::Large => &[(15, Range), (40, Put), (5, Delete), (15, Txn), (5, Compact), (25, Watch)],
            Kind::Expiry => &[(10, Range), (20, Put), (10, Delete), (10, Txn), (10, Lease), (10, Watch), (5, Expire)],
        };
        match self.choices.weighted(what) {
            Range => Step::Range(self.range()),
            Put => Step::Put(self.put()),
            Delete => Step::Delete(self.delete()),
            Txn => Step::Txn(self.txn()),
            Compact => Step::Compact(self.compact()),
            Lease => self.lease_step(),
            Watch => self.watch_step(),
            Hash => Step::HashKv { revision: self.revision() },
            Settle => Step::Settle,
            Expire => {
                let keys = (0..self.choices.below(4)).map(|_| self.choices.key()).collect();
                Step::Expire { lease: self.choices.pick(&[0, 21, 22]), keys }
            }
        }
    }

    /// Mostly a revision there is, near the newest or anywhere; sometimes one that is not.
    fn revision(&mut self) -> i64 {
        match self.choices.below(20) {
            0 => -self.choices.between(1, 5),
            1 => NEWEST + self.choices.between(1, 3),
            2..=5 => NEWEST,
            6..=12 => NEWEST - self.choices.between(0, 8),
            _ => self.choices.between(1, self.written + 2),
        }
    }

    fn maybe_revision(&mut self, one_in: u64) -> i64 {
        if self.choices.one_in(one_in) { self.revision() } else { 0 }
    }

    fn lease(&mut self) -> i64 {
        match self.choices.below(12) {
            0 => CHOSEN + self.choices.between(0, 2),
            // Nobody's, or at the edges of what an id can be.
            1 => self.choices.pick(&[99, i64::MAX]),
            _ => self.choices.between(1, 4),
        }
    }

    fn maybe_lease(&mut self) -> i64 {
        let one_in = if matches!(self.kind, Kind::Leases) { 2 } else { 10 };
        if self.choices.one_in(one_in) { self.lease() } else { 0 }
    }

    fn value(&mut self) -> Bytes {
        if !matches!(self.kind, Kind::Large) || self.choices.one_in(4) {
            return self.choices.value();
        }
        let near = |limit: usize, choices: &mut Choices| {
            let off = choices.between(0, 2000) as usize;
            if choices.one_in(2) { limit - REQUEST_BYTES_SLACK - off } else { limit + REQUEST_BYTES_SLACK + off }
        };
        let bytes = match self.choices.below(10) {
            0 | 1 => near(REQUEST_BYTES_MAX, &mut self.choices),
            2 => near(MESSAGE_BYTES_MAX, &mut self.choices),
            _ => self.choices.between(100_000, 700_000) as usize,
        };
        Bytes::from(vec![b'v'; bytes])
    }

    fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.choices.stretch_or_empty();
        let revision = self.maybe_revision(if matches!(self.kind, Kind::Past) { 2 } else { 4 });
        let choices = &mut self.choices;
        let mut range = pb::RangeRequest {
            key,
            range_end,
            revision,
            limit: match choices.below(6) {
                0 | 1 => choices.between(1, 4),
                2 => choices.between(-1, 40),
                _ => 0,
            },
            // An order that is not defined sorts nothing in version 3.4 and is refused from 3.5 on, as ChainFire does.
            sort_order: if choices.one_in(3) { choices.pick(&[1, 2]) } else { 0 },
            sort_target: if choices.one_in(3) { choices.between(0, 4) as i32 } else { 0 },
            serializable: choices.one_in(4),
            keys_only: choices.one_in(8),
            count_only: choices.one_in(10),
            ..pb::RangeRequest::default()
        };
        if self.choices.one_in(4) {
            range.min_mod_revision = self.maybe_revision(2);
            range.max_mod_revision = self.maybe_revision(3);
            range.min_create_revision = self.maybe_revision(2);
            range.max_create_revision = self.maybe_revision(3);
        }
        range
    }

    fn put(&mut self) -> pb::PutRequest {
        self.written += 1;
        let mut put = pb::PutRequest {
            key: self.choices.key_or_empty(),
            value: self.value(),
            lease: self.maybe_lease(),
            prev_kv: self.choices.one_in(3),
            ignore_value: self.choices.one_in(10),
            ignore_lease: self.choices.one_in(10),
        };
        // What is kept must not be given: mostly right, sometimes not.
        if put.ignore_value && !self.choices.one_in(5) {
            put.value = Bytes::new();
        }
        if put.ignore_lease && !self.choices.one_in(5) {
            put.lease = 0;
        }
        put
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        self.written += 1;
        let (key, range_end) = self.choices.stretch_or_empty();
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.choices.one_in(2) }
    }

    fn txn(&mut self) -> pb::TxnRequest {
        self.written += 1;
        if self.choices.one_in(60) {
            return self.crowded();
        }
        let depth = self.choices.below(3);
        let mut txn = self.txn_within(depth);
        if puts(&txn) {
            end_before_the_end(&mut txn);
        }
        txn
    }

    fn txn_within(&mut self, depth: u64) -> pb::TxnRequest {
        pb::TxnRequest {
            compare: (0..self.choices.below(3)).map(|_| self.compare()).collect(),
            success: self.ops(depth),
            failure: self.ops(depth),
        }
    }

    fn ops(&mut self, depth: u64) -> Vec<pb::RequestOp> {
        let op = |maker: &mut Self| match maker.choices.below(if depth == 0 { 9 } else { 12 }) {
            0..=4 => Request::RequestPut(maker.put()),
            5 | 6 => Request::RequestDeleteRange(maker.delete()),
            7 | 8 => {
                // Below zero is "compacted" in a transaction, and "newest" outside; ChainFire takes it for "newest".
                let range = maker.range();
                Request::RequestRange(pb::RangeRequest { revision: range.revision.max(0), ..range })
            }
            _ => Request::RequestTxn(maker.txn_within(depth - 1)),
        };
        (0..self.choices.below(4))
            .map(|_| {
                let request = if self.choices.one_in(200) { None } else { Some(op(self)) };
                pb::RequestOp { request }
            })
            .collect()
    }

    /// About as many operations as a transaction may have.
    fn crowded(&mut self) -> pb::TxnRequest {
        let count = TXN_OPS_MAX - 1 + self.choices.below(3) as usize;
        let put = |n: usize| {
            let key = Bytes::from(format!("crowd/{n:03}"));
            pb::RequestOp { request: Some(Request::RequestPut(pb::PutRequest { key, ..pb::PutRequest::default() })) }
        };
        let many: Vec<_> = (0..count).map(put).collect();
        let mut txn = pb::TxnRequest::default();
        match self.choices.below(4) {
            0 => txn.success = many,
            1 => txn.failure = many,
            2 => txn.compare = (0..count).map(|_| self.compare()).collect(),
            _ => {
                // A nested transaction has what its parent left over.
                let rest = self.choices.between(1, 100) as usize;
                let nested = pb::TxnRequest { success: many[rest.min(count)..].to_vec(), ..pb::TxnRequest::default() };
                txn.success = many[..rest - 1].to_vec();
                txn.success.push(pb::RequestOp { request: Some(Request::RequestTxn(nested)) });
            }
        }
        txn
    }

    fn compare(&mut self) -> pb::Compare {
        let (key, range_end) = if self.choices.one_in(4) {
            self.choices.stretch_or_empty()
        } else {
            (self.choices.key_or_empty(), Bytes::new())
        };
        let target = self.choices.between(0, 4) as i32;
        // Mostly what the target says; else another, or nothing at all.
        let given = if self.choices.one_in(25) { self.choices.between(0, 5) as i32 } else { target };
        let target_union = match given {
            0 => Some(TargetUnion::Version(self.choices.between(-1, 4))),
            1 => Some(TargetUnion::CreateRevision(self.maybe_revision(2))),
            2 => Some(TargetUnion::ModRevision(self.maybe_revision(2))),
            3 => Some(TargetUnion::Value(self.choices.value())),
            4 => Some(TargetUnion::Lease(if self.choices.one_in(2) { 0 } else { self.choices.between(1, 4) })),
            _ => None,
        };
        // Equal, greater, less, not equal, and one that is not defined.
        let result = if self.choices.one_in(100) { 9 } else { self.choices.between(0, 3) as i32 };
        pb::Compare { result, target, key, range_end, target_union }
    }

    fn compact(&mut self) -> pb::CompactionRequest {
        let revision = match self.choices.below(6) {
            0 => self.revision(),
            1 => NEWEST,
            2 => self.choices.between(-1, 2),
            _ => NEWEST - self.choices.between(1, 30),
        };
        pb::CompactionRequest { revision, physical: self.choices.one_in(2) }
    }

    fn lease_step(&mut self) -> Step {
        match self.choices.below(12) {
            0..=3 => {
                let id = if self.choices.one_in(4) { 0 } else { self.lease_to_grant() };
                Step::Grant(pb::LeaseGrantRequest { ttl: self.choices.pick(&TTL), id })
            }
            4 | 5 => Step::Revoke { lease: self.lease() },
            6 | 7 => Step::KeepAlive { lease: self.lease() },
            8 | 9 => {
                let look = pb::LeaseTimeToLiveRequest { id: self.lease(), keys: self.choices.one_in(2) };
                Step::TimeToLive(look)
            }
            10 => Step::Leases,
            _ => {
                let ttl = self.choices.pick(&[-1, 0, 1, 2, 3, 9_000_000_000, 9_000_000_001, i64::MAX, i64::MIN]);
                Step::Brief(pb::LeaseGrantRequest { ttl, id: self.choices.pick(&[0, 31]) })
            }
        }
    }

    fn lease_to_grant(&mut self) -> i64 {
        if self.choices.one_in(20) { i64::MAX } else { self.choices.between(1, 4) }
    }

    fn watch_step(&mut self) -> Step {
        let stream = self.choices.below(STREAMS) as usize;
        match self.choices.below(10) {
            0 => Step::Progress { stream },
            1 | 2 => Step::Cancel { stream, watch: self.choices.between(0, 6) },
            _ => Step::Watch { stream, create: self.watch() },
        }
    }

    fn watch(&mut self) -> pb::WatchCreateRequest {
        let (key, range_end) = self.choices.stretch_or_empty();
        let start_revision = match self.choices.below(4) {
            0 | 1 => 0,
            _ => self.revision().max(0),
        };
        let choices = &mut self.choices;
        let filters = match choices.below(10) {
            0 => vec![0],
            1 => vec![1],
            2 => vec![0, 1],
            3 => vec![choices.between(0, 2) as i32; 2],
            _ => vec![],
        };
        // A watch that can deliver nothing cannot show that it has caught up with the past.
        let start_revision = if filters.contains(&0) && filters.contains(&1) { 0 } else { start_revision };
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            // The interval is ten minutes in etcd: here it changes nothing.
            progress_notify: choices.one_in(8),
            filters,
            prev_kv: choices.one_in(2),
            watch_id: if choices.one_in(6) { choices.between(1, 5) } else { 0 },
            fragment: choices.one_in(4),
        }
    }

    /// A transaction that puts many keys.
    fn fill(&mut self) -> Step {
        self.written += 1;
        let count = self.choices.between(20, TXN_OPS_MAX as i64);
        let put = |maker: &mut Self, n: i64| {
            let key = Bytes::from(format!("{}/{n:03}", maker.choices.pick(&["a", "b", "c"])));
            let put = pb::PutRequest { key, value: maker.choices.value(), ..pb::PutRequest::default() };
            pb::RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let success = (0..count).map(|n| put(self, n)).collect();
        Step::Txn(pb::TxnRequest { success, ..pb::TxnRequest::default() })
    }
}

fn puts(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => puts(nested),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => false,
    })
}

/// Makes deletes up to the end of the key space end just before it. etcd 3.4 takes them for empty stretches when it looks
/// for keys that are changed twice: it lets a delete and a put of the same key through then, and when the put keeps what
/// the key had, which is gone by then, etcd ends with "unexpected error during txn". ChainFire refuses such a transaction
/// as it refuses any other that changes a key twice.
fn end_before_the_end(txn: &mut pb::TxnRequest) {
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(Request::RequestDeleteRange(delete)) if delete.range_end[..] == *b"\0" => {
                delete.range_end = Bytes::from_static(b"\xff\xff");
            }
            Some(Request::RequestTxn(nested)) => end_before_the_end(nested),
            Some(Request::RequestRange(_) | Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => {}
        }
    }
}
