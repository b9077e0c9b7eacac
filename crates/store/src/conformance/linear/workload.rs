//! Clients that do random things and write down what they heard.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::{Batch, Compare, Error, Key, LeaseId, Op, OpAnswer, Range, Revision, Store, Txn, WatchRequest};
use bytes::Bytes;

use super::history::{Call, Heard, History};

pub const PREFIX: &str = "r/";

/// As an answer that did not come in time is unknown.
const CALL_MAX: Duration = Duration::from_secs(10);

/// A sequence that a seed decides, with nothing else in it.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.roll() >> 11) % end
    }
}

pub struct Client {
    pub number: usize,
    pub store: Arc<dyn Store>,
    pub history: History,
    pub keys: u64,
    /// Numbers of values, shared by all clients of a history.
    pub values: Arc<AtomicU64>,
    pub dice: Dice,
    /// The last mod revision seen of each key.
    seen: HashMap<Key, Revision>,
}

impl Client {
    pub fn new(number: usize, store: Arc<dyn Store>, history: History, values: Arc<AtomicU64>, seed: u64) -> Self {
        let dice = Dice::new(seed ^ (number as u64 + 1).wrapping_mul(0xa076_1d64_78bd_642f));
        Self { number, store, history, keys: 4, values, dice, seen: HashMap::new() }
    }

    /// At most `ops` calls, until `stop`.
    pub async fn run(mut self, ops: usize, pause: Duration, stop: Arc<AtomicBool>) {
        for _ in 0..ops {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let call = self.choose();
            let store = self.store.clone();
            let act = async {
                let act = perform(&*store, &call);
                tokio::time::timeout(CALL_MAX, act).await.unwrap_or(Heard::Unknown)
            };
            let heard = self.history.record(self.number, call.clone(), act).await;
            self.learn(&call, &heard);
            let failed = matches!(heard, Heard::Refused | Heard::Unknown);
            tokio::time::sleep(if failed { pause * 4 + Duration::from_millis(1) } else { pause }).await;
        }
    }

    fn key(&mut self) -> Key {
        Bytes::from(format!("{PREFIX}{}", self.dice.below(self.keys)))
    }

    fn value(&mut self) -> Bytes {
        Bytes::from(format!("v{}", self.values.fetch_add(1, Ordering::Relaxed)))
    }

    fn choose(&mut self) -> Call {
        let key = self.key();
        match self.dice.below(20) {
            0..=5 => Call::Put { key, value: self.value() },
            6..=8 => {
                let expected = self.seen.get(&key).copied().unwrap_or_default();
                Call::Swap { key, expected, value: self.value() }
            }
            9 | 10 => {
                let other = self.key();
                if other == key {
                    return Call::Put { key, value: self.value() };
                }
                let expected = [&key, &other].map(|key| self.seen.get(key).copied().unwrap_or_default());
                Call::Both { keys: [key, other], expected, value: self.value() }
            }
            11 => Call::Delete { key },
            12 => Call::Stale { key },
            13 => Call::All,
            _ => Call::Get { key },
        }
    }

    fn learn(&mut self, call: &Call, heard: &Heard) {
        match (call, heard) {
            (Call::Put { key, .. } | Call::Swap { key, .. }, Heard::Wrote(at)) => {
                self.seen.insert(key.clone(), *at);
            }
            (Call::Both { keys, .. }, Heard::Wrote(at)) => self.seen.extend(keys.iter().map(|key| (key.clone(), *at))),
            (Call::Delete { key }, Heard::Wrote(_)) => {
                self.seen.insert(key.clone(), Revision::ZERO);
            }
            (Call::Get { key }, Heard::Read(_, found)) => {
                self.seen.insert(key.clone(), found.first().map_or(Revision::ZERO, |kv| kv.mod_revision));
            }
            _ => {}
        }
    }
}

async fn perform(store: &dyn Store, call: &Call) -> Heard {
    let heard = match call {
        Call::Put { key, value } => write(store, Txn::of([Op::put(key.clone(), value.clone())])).await,
        Call::Delete { key } => write(store, Txn::of([Op::delete(key.clone())])).await,
        Call::Swap { key, expected, value } => {
            let when = [Compare::mod_is(key.clone(), *expected)];
            write(store, Txn::when(when).then([Op::put(key.clone(), value.clone())])).await
        }
        Call::Both { keys, expected, value } => {
            let pairs = keys.iter().zip(expected);
            let when: Vec<_> = pairs.map(|(key, at)| Compare::mod_is(key.clone(), *at)).collect();
            let then: Vec<_> = keys.iter().map(|key| Op::put(key.clone(), value.clone())).collect();
            write(store, Txn::when(when).then(then)).await
        }
        Call::Get { key } => read(store, Range::key(key.clone())).await,
        Call::Stale { key } => read(store, Range::key(key.clone()).serializable()).await,
        Call::All => read(store, Range::prefix(PREFIX)).await,
    };
    heard.unwrap_or_else(|error| if error.is_refusal() { Heard::Refused } else { Heard::Unknown })
}

async fn write(store: &dyn Store, txn: Txn) -> Result<Heard, Error> {
    let answer = store.txn(txn).await?;
    let changed = answer.answers.iter().any(|answer| match answer {
        OpAnswer::Put { .. } => true,
        OpAnswer::Delete { deleted, .. } => *deleted > 0,
        OpAnswer::Range(_) | OpAnswer::Txn(_) => false,
    });
    Ok(if changed { Heard::Wrote(answer.revision) } else { Heard::Held(answer.revision) })
}

async fn read(store: &dyn Store, range: Range) -> Result<Heard, Error> {
    let answer = store.range(range).await?;
    Ok(Heard::Read(answer.revision, answer.items))
}

/// Everything from the first revision to the newest, as a watch tells it.
pub async fn whole_log(store: &dyn Store) -> Result<Vec<Batch>, Error> {
    let newest = store.range(Range::all().count_only()).await?.revision;
    let mut watcher = store.watch(WatchRequest::prefix("").from(Revision(2))).await?;
    let mut log = Vec::new();
    while log.last().map_or(Revision::FIRST, |batch: &Batch| batch.revision) < newest {
        log.extend(watcher.next().await?);
    }
    Ok(log)
}

/// Watches everything while faults happen, through one member, opening anew where it was cut off; `told` holds what came.
pub async fn follow(store: Arc<dyn Store>, told: Arc<parking_lot::Mutex<Vec<Batch>>>) {
    loop {
        let next = told.lock().last().map_or(Revision(2), |batch| batch.revision.next());
        if let Ok(mut watcher) = store.watch(WatchRequest::prefix("").from(next)).await {
            while let Ok(Some(batch)) = watcher.next().await {
                told.lock().push(batch);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What watchers were told is the beginning of the log, each revision once and none left out.
pub fn told_rightly(told: &[Batch], log: &[Batch]) -> Result<(), String> {
    for (nth, batch) in told.iter().enumerate() {
        if log.get(nth) != Some(batch) {
            return Err(format!("a watcher was told {batch:?} where the log has {:?}", log.get(nth)));
        }
    }
    Ok(())
}

/// Grants a lease with a key and says, at the end, when its last sign of life was called for and whether its key had
/// gone before the lease's time had passed since then: an expiry that came early.
pub struct LeaseWatch {
    pub id: LeaseId,
    pub ttl: Duration,
    pub key: Key,
    pub alive: tokio::time::Instant,
}

impl LeaseWatch {
    pub async fn grant(store: &dyn Store, ttl_seconds: u64, name: &str) -> Result<Self, Error> {
        let before = tokio::time::Instant::now();
        let lease = store.lease_grant(ttl_seconds, None).await?;
        let key = Bytes::from(format!("lease/{name}"));
        store.txn(Txn::of([Op::put_leased(key.clone(), "held", lease.id)])).await?;
        Ok(Self { id: lease.id, ttl: Duration::from_secs(lease.ttl_seconds), key, alive: before })
    }

    pub async fn keep_alive(&mut self, store: &dyn Store) -> Result<(), Error> {
        let called = tokio::time::Instant::now();
        store.lease_keep_alive(self.id).await?;
        self.alive = called;
        Ok(())
    }

    /// Errors when the key is gone although the lease cannot have run out when that was seen.
    pub async fn early(&self, store: &dyn Store) -> Result<(), String> {
        let Ok(answer) = store.range(Range::key(self.key.clone())).await else { return Ok(()) };
        let since = self.alive.elapsed();
        if answer.items.is_empty() && since < self.ttl {
            return Err(format!("lease {} of {:?} was gone {since:?} after its last sign of life", self.id, self.ttl));
        }
        Ok(())
    }
}
