//! Random histories, played at a store and at the model. A history is made from a list of numbers, so that a tool that
//! shrinks lists can shrink histories.

use std::sync::Arc;

use bytes::Bytes;

use super::model::Model;
use super::{next, watching};
use crate::{
    Batch, Compare, CompareOp, Error, Keep, LeaseId, Op, Range, RangeEnd, Revision, Sort, SortBy, SortOrder, Store,
    Target, Txn, WatchRequest,
};

const SEED: u64 = 1;
const NUMBERS: usize = 4000;

/// A source of choices: the numbers given, then zeros.
struct Choices<'n> {
    numbers: std::slice::Iter<'n, u64>,
}

impl Choices<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.numbers.next().copied().unwrap_or(0) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == bound - 1
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }

    fn key(&mut self) -> Bytes {
        const KEYS: [&[u8]; 9] = [b"a", b"a/1", b"a/2", b"a/2\0", b"b", b"b/1", b"b\xff", b"c", b"\xff"];
        Bytes::from_static(self.pick(&KEYS))
    }

    fn value(&mut self) -> Bytes {
        Bytes::from(self.below(5).to_string())
    }

    fn lease(&mut self) -> LeaseId {
        LeaseId(1 + self.below(3) as i64)
    }

    /// Around the revisions there are, a little too low and too high now and then.
    fn revision(&mut self, newest: Revision) -> Revision {
        Revision(self.below(newest.0 + 2))
    }

    fn span(&mut self) -> (Bytes, RangeEnd) {
        let range = match self.below(6) {
            0 | 1 => Range::key(self.key()),
            2 => Range::prefix(self.key()),
            3 => Range::all(),
            4 => Range::from(self.key()),
            _ => Range::between(self.key(), self.key()),
        };
        (range.start, range.end)
    }

    fn range(&mut self, newest: Revision) -> Range {
        let (start, end) = self.span();
        let mut range = Range { start, end, ..Range::default() };
        range.revision = self.one_in(3).then(|| self.revision(newest));
        range.limit = if self.one_in(3) { 1 + self.below(4) as usize } else { 0 };
        range.sort = self.one_in(3).then(|| Sort {
            by: self.pick(&[SortBy::Key, SortBy::Version, SortBy::Create, SortBy::Mod, SortBy::Value]),
            order: self.pick(&[SortOrder::Ascend, SortOrder::Descend]),
        });
        range.count_only = self.one_in(8);
        range.keys_only = self.one_in(8);
        range.min_mod_revision = self.one_in(8).then(|| self.revision(newest));
        range.max_mod_revision = self.one_in(8).then(|| self.revision(newest));
        range.min_create_revision = self.one_in(8).then(|| self.revision(newest));
        range.max_create_revision = self.one_in(8).then(|| self.revision(newest));
        range
    }

    /// Mostly one key.
    fn stretch(&mut self) -> (Bytes, RangeEnd) {
        if self.one_in(4) { self.span() } else { (self.key(), RangeEnd::Single) }
    }

    fn compare(&mut self, newest: Revision) -> Compare {
        let (key, end) = self.stretch();
        let op = self.pick(&[CompareOp::Equal, CompareOp::NotEqual, CompareOp::Greater, CompareOp::Less]);
        let target = match self.below(5) {
            0 => Target::Version(self.below(4)),
            1 => Target::Create(self.revision(newest)),
            2 => Target::Mod(self.revision(newest)),
            3 => Target::Value(self.value()),
            _ => Target::Lease(self.one_in(2).then(|| self.lease())),
        };
        Compare { key, end, op, target }
    }

    fn ops(&mut self, newest: Revision, depth: u64) -> Vec<Op> {
        let count = self.below(4);
        let op = |_| match self.below(if depth == 0 { 7 } else { 9 }) {
            0..=3 => {
                let lease = self.one_in(4).then(|| self.lease());
                let keep = Keep { value: self.one_in(10), lease: self.one_in(10) };
                let value = if keep.value { Bytes::new() } else { self.value() };
                let lease = lease.filter(|_| !keep.lease);
                Op::Put { key: self.key(), value, lease, keep }
            }
            4 | 5 => {
                let (start, end) = self.span();
                Op::Delete { range: Range { start, end, ..Range::default() } }
            }
            6 => Op::Range(self.range(newest)),
            _ => Op::Txn(self.txn(newest, depth - 1)),
        };
        (0..count).map(op).collect()
    }

    fn txn(&mut self, newest: Revision, depth: u64) -> Txn {
        let when = (0..self.below(3)).map(|_| self.compare(newest)).collect();
        Txn { when, then: self.ops(newest, depth), otherwise: self.ops(newest, depth) }
    }

    fn watch(&mut self, newest: Revision) -> WatchRequest {
        let (start, end) = self.span();
        WatchRequest { start, end, from: Some(self.revision(newest)), previous: self.one_in(2) }
    }
}

/// Answers compare whole, errors by their variant.
fn outcome<T>(result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| {
        let shown = format!("{error:?}");
        shown.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
    })
}

/// What a row was before a compacted revision may or may not still be known.
fn forget_compacted(mut batches: Vec<Batch>, compacted: Revision) -> Vec<Batch> {
    for batch in batches.iter_mut().filter(|batch| batch.revision <= compacted) {
        for event in &mut batch.events {
            event.previous = None;
        }
    }
    batches
}

/// Plays the history that `numbers` make at an empty store; panics where the store and the model differ.
pub async fn play(store: &Arc<dyn Store>, numbers: &[u64]) {
    let mut choices = Choices { numbers: numbers.iter() };
    let mut model = Model::default();
    let mut live = watching(store, WatchRequest::prefix("").previous()).await;
    let mut live_model = Vec::new();
    while !choices.numbers.as_slice().is_empty() {
        let newest = model.newest();
        match choices.below(16) {
            0..=7 => {
                let txn = choices.txn(newest, 2);
                let told = outcome(store.txn(txn.clone()).await);
                assert_eq!(told, outcome(model.txn(&txn)), "{txn:?}");
            }
            8..=11 => {
                let range = choices.range(newest);
                let told = outcome(store.range(range.clone()).await);
                assert_eq!(told, outcome(model.range(&range)), "{range:?}");
                if let Ok(whole) = told {
                    let part = store.range(range.clone().uncounted()).await.unwrap();
                    assert_eq!((part.items, part.more), (whole.items, whole.more), "uncounted {range:?}");
                }
            }
            12 => {
                let id = choices.lease();
                let told = outcome(store.lease_grant(600, Some(id)).await.map(drop));
                assert_eq!(told, outcome(model.grant(id)), "grant {id}");
            }
            13 => {
                let id = choices.lease();
                let keys = outcome(store.lease_time_to_live(id).await.map(|status| status.keys));
                assert_eq!(keys, outcome(model.attached(id)), "keys of {id}");
                if choices.one_in(2) {
                    let told = outcome(store.lease_revoke(id).await);
                    assert_eq!(told, outcome(model.revoke(id)), "revoke {id}");
                }
            }
            14 => {
                let revision = choices.revision(newest);
                // Seldom far: there should be a past to read.
                let revision = if choices.one_in(4) { revision } else { Revision(revision.0.min(newest.0 / 2)) };
                live_model.extend(catch_up(&mut live, &model, live_model.last()).await);
                let told = outcome(store.compact(revision).await);
                assert_eq!(told, outcome(model.compact(revision)), "compact {revision}");
            }
            _ => {
                let request = choices.watch(newest);
                let told = outcome(store.watch(request.clone()).await.map(Some));
                let expected = outcome(model.watch(&request));
                match (told, expected) {
                    (Ok(Some(mut watcher)), Ok(expected)) => {
                        let mut seen = Vec::new();
                        for _ in &expected {
                            seen.push(next(&mut watcher).await);
                        }
                        let compacted = model.compacted();
                        let expected = forget_compacted(expected, compacted);
                        assert_eq!(forget_compacted(seen, compacted), expected, "{request:?}");
                    }
                    // An engine may not know any more what happened at exactly the compacted revision.
                    (Err(told), Ok(_)) if request.from == Some(model.compacted()) => assert_eq!(told, "Compacted"),
                    (told, expected) => {
                        assert_eq!(told.map(|_| ()), expected.map(|_| ()), "{request:?}");
                    }
                }
            }
        }
        assert_eq!(store.status().await.unwrap().revision, model.newest());
    }
    live_model.extend(catch_up(&mut live, &model, live_model.last()).await);
}

/// Reads what a watcher from the beginning has not read yet, and compares it.
async fn catch_up(live: &mut crate::Watcher, model: &Model, last: Option<&Batch>) -> Vec<Batch> {
    let from = last.map_or(Revision(2), |batch| batch.revision.next());
    if from > model.newest() {
        return Vec::new();
    }
    let everything = WatchRequest::prefix("").from(from).previous();
    let expected = model.watch(&everything).expect("only what was read before is compacted");
    let mut seen = Vec::new();
    for _ in &expected {
        seen.push(next(live).await);
    }
    assert_eq!(seen, expected, "what a watcher from the beginning sees");
    seen
}

/// Numbers from a seed (SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
pub fn numbers(seed: u64, count: usize) -> Vec<u64> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..count).map(step).collect()
}

/// One long history; shorter ones, each on a store of its own, are for property tests to make with [`play`].
pub async fn random_histories_agree_with_the_model(store: Arc<dyn Store>) {
    play(&store, &numbers(SEED, NUMBERS)).await;
}
