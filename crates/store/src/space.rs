//! A part of a store that is a whole store to its owner.
//!
//! ```text
//!   <root>d/KEY    the owner's key KEY
//!   <root>l/ID     lease ID is the owner's; leased itself, so it goes when the lease goes
//!   <root>c        compacted, as the owner wished it
//! ```
//!
//! Every key, every end of a range, every lease is translated or checked on its way in and back on its way out, so
//! nobody reaches what lies outside their root: there is no request that names it. Revisions are those of the whole
//! store: they grow, with gaps. History is given up by the store's own compaction alone; what the owner compacts is
//! refused from then on and its room comes back later.
//!
//! A quota is decided before a change is made. What a change adds is reserved first and settled when it is known what
//! it replaced, so changes beside each other cannot pass together what none could alone. Leases that run out make the
//! count too high; it is taken anew before anybody is refused. One process counts for a space: two doors to the same
//! space in two processes would each know half.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::RwLock;

use crate::span::prefix_end;
use crate::{
    Advance, Batch, Compare, Error, Key, KeyValue, Lease, LeaseId, LeaseStatus, Op, OpAnswer, Range, RangeAnswer,
    RangeEnd, Revision, Status, Store, Txn, TxnAnswer, WatchEvent, WatchRequest, WatchSource, Watcher, admit,
};

/// Longest root.
pub const ROOT_BYTES_MAX: usize = 128;

/// No store grants it.
const NO_LEASE: LeaseId = LeaseId(i64::MIN);

/// Rows read at once while counting.
const COUNT_ROWS: usize = 1000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    /// Of keys and values together.
    pub bytes: u64,
    pub keys: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    pub bytes: u64,
    pub keys: u64,
}

pub struct Space {
    store: Arc<dyn Store>,
    data: Bytes,
    data_end: RangeEnd,
    leases: Bytes,
    compacted: Bytes,
    quota: Mutex<Quota>,
    /// `None` until it was counted.
    used: Mutex<Option<Usage>>,
    /// Changes hold it shared, counting holds it alone.
    counting: RwLock<()>,
}

impl Space {
    /// `root` is a prefix that no other space's root begins with and that begins with no other's: 1 to
    /// [`ROOT_BYTES_MAX`] bytes.
    pub fn new(store: Arc<dyn Store>, root: &[u8], quota: Quota) -> Self {
        assert!(!root.is_empty() && root.len() <= ROOT_BYTES_MAX, "a space has a root of its own");
        let data = Bytes::from([root, b"d/"].concat());
        Self {
            store,
            data_end: prefix_end(&data),
            data,
            leases: Bytes::from([root, b"l/"].concat()),
            compacted: Bytes::from([root, b"c"].concat()),
            quota: Mutex::new(quota),
            used: Mutex::new(None),
            counting: RwLock::new(()),
        }
    }

    /// A quota below what is used already stops what adds, nothing else.
    pub fn set_quota(&self, quota: Quota) {
        *self.quota.lock() = quota;
    }

    pub fn quota(&self) -> Quota {
        *self.quota.lock()
    }

    pub async fn usage(&self) -> Result<Usage, Error> {
        let known = *self.used.lock();
        match known {
            Some(used) => Ok(used),
            None => self.count().await,
        }
    }

    /// Deletes everything the space holds, its leases too.
    pub async fn clear(&self) -> Result<(), Error> {
        let _alone = self.counting.write().await;
        for id in self.leases().await? {
            match self.store.lease_revoke(id).await {
                Ok(_) | Err(Error::LeaseNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let everything = |prefix: &Bytes| Op::Delete { range: Range::prefix(prefix.clone()) };
        let gone = [everything(&self.data), everything(&self.leases), Op::delete(self.compacted.clone())];
        self.store.txn(Txn::of(gone)).await?;
        *self.used.lock() = Some(Usage::default());
        Ok(())
    }

    async fn count(&self) -> Result<Usage, Error> {
        let _alone = self.counting.write().await;
        let mut used = Usage::default();
        let mut range = Range::prefix(self.data.clone()).limit(COUNT_ROWS).uncounted();
        loop {
            let page = self.store.range(range.clone()).await?;
            // All pages as of the first: what changes meanwhile is not ours, we are alone.
            range.revision = range.revision.or(Some(page.revision));
            for kv in &page.items {
                used.add(self.weight(kv));
            }
            match page.items.last() {
                Some(last) if page.more => range.start = Bytes::from([&last.key[..], b"\0"].concat()),
                _ => break,
            }
        }
        *self.used.lock() = Some(used);
        Ok(used)
    }

    fn weight(&self, kv: &KeyValue) -> Usage {
        Usage { bytes: (kv.key.len() - self.data.len() + kv.value.len()) as u64, keys: 1 }
    }

    /// Takes room for `added`, or says what is used up.
    fn reserve(&self, added: Usage) -> Result<(), Error> {
        let quota = self.quota();
        let used = &mut *self.used.lock();
        let used = used.get_or_insert_default();
        if added.keys > 0 && used.keys + added.keys > quota.keys {
            return Err(Error::OverQuota { what: "keys", limit: quota.keys });
        }
        if added.bytes > 0 && used.bytes + added.bytes > quota.bytes {
            return Err(Error::OverQuota { what: "bytes", limit: quota.bytes });
        }
        used.add(added);
        Ok(())
    }

    fn settle(&self, reserved: Usage, put: Usage, replaced: Usage) {
        if let Some(used) = &mut *self.used.lock() {
            used.take(reserved);
            used.add(put);
            used.take(replaced);
        }
    }

    /// A change with its quota. `txn` is translated already.
    async fn change(&self, txn: Txn, added: Usage) -> Result<TxnAnswer, Error> {
        self.usage().await?;
        let shared = self.counting.read().await;
        let (_shared, txn, reserved) = match self.reserve(added) {
            Ok(()) => (shared, txn, added),
            Err(_) => {
                drop(shared);
                // What is replaced counts off, but only what surely is replaced: the rows as they are now, if they
                // still are then.
                self.count().await?;
                let shared = self.counting.read().await;
                let (guards, replaced) = self.guards(&txn).await?;
                let added = Usage {
                    bytes: added.bytes.saturating_sub(replaced.bytes),
                    keys: added.keys.saturating_sub(replaced.keys),
                };
                self.reserve(added)?;
                (shared, Txn::when(guards).then([Op::Txn(txn)]), added)
            }
        };
        let guarded = matches!(txn.then[..], [Op::Txn(_)]) && !txn.when.is_empty();
        let outcome = self.store.txn(txn.clone()).await;
        let Ok(mut answer) = outcome else {
            // Whether it happened is unknown unless it was refused: count before the next decision.
            self.settle(reserved, Usage::default(), Usage::default());
            if outcome.as_ref().is_err_and(|error| !error.is_refusal()) {
                *self.used.lock() = None;
            }
            return outcome;
        };
        let mut asked = &txn;
        if guarded {
            if !answer.succeeded {
                self.settle(reserved, Usage::default(), Usage::default());
                return Err(Error::Overloaded);
            }
            let (Some(Op::Txn(inner)), Some(OpAnswer::Txn(inside))) = (txn.then.first(), answer.answers.pop()) else {
                unreachable!("a guarded change is one nested transaction");
            };
            (asked, answer) = (inner, inside);
        }
        let (mut put, mut replaced) = (Usage::default(), Usage::default());
        self.weigh(asked, &answer, &mut put, &mut replaced);
        self.settle(reserved, put, replaced);
        Ok(answer)
    }

    /// The rows that the transaction's puts would replace, and that they are still as they are.
    async fn guards(&self, txn: &Txn) -> Result<(Vec<Compare>, Usage), Error> {
        let mut keys = Vec::new();
        put_keys(txn, &mut keys);
        keys.sort();
        keys.dedup();
        let (mut guards, mut replaced) = (Vec::new(), Usage::default());
        for key in keys {
            let found = self.store.range(Range::key(key.clone())).await?;
            let at = found.first().map_or(Revision::ZERO, |kv| kv.mod_revision);
            // Only what every branch replaces may count off; with one branch that is all of it.
            if let Some(kv) = found.first().filter(|_| txn.otherwise.is_empty() && txn.when.is_empty()) {
                replaced.add(self.weight(kv));
            }
            guards.push(Compare::mod_is(key, at));
        }
        Ok((guards, replaced))
    }

    fn weigh(&self, txn: &Txn, answer: &TxnAnswer, put: &mut Usage, replaced: &mut Usage) {
        let ops = if answer.succeeded { &txn.then } else { &txn.otherwise };
        for (op, answer) in ops.iter().zip(&answer.answers) {
            match (op, answer) {
                (Op::Put { key, value, keep, .. }, OpAnswer::Put { previous }) => {
                    let kept = previous.as_ref().filter(|_| keep.value).map_or(value.len(), |kv| kv.value.len());
                    put.add(Usage { bytes: (key.len() - self.data.len() + kept) as u64, keys: 1 });
                    if let Some(old) = previous {
                        replaced.add(self.weight(old));
                    }
                }
                (Op::Delete { .. }, OpAnswer::Delete { previous, .. }) => {
                    for kv in previous {
                        replaced.add(self.weight(kv));
                    }
                }
                (Op::Txn(txn), OpAnswer::Txn(answer)) => self.weigh(txn, answer, put, replaced),
                _ => {}
            }
        }
    }

    fn key_in(&self, key: &[u8]) -> Key {
        Bytes::from([&self.data, key].concat())
    }

    fn end_in(&self, end: &RangeEnd) -> RangeEnd {
        match end {
            RangeEnd::Single => RangeEnd::Single,
            RangeEnd::Exclusive(end) => RangeEnd::Exclusive(self.key_in(end)),
            RangeEnd::Unbounded => self.data_end.clone(),
        }
    }

    fn range_in(&self, range: &Range) -> Range {
        Range { start: self.key_in(&range.start), end: self.end_in(&range.end), ..range.clone() }
    }

    fn txn_in(&self, txn: &Txn) -> Txn {
        let when = txn.when.iter().map(|compare| Compare {
            key: self.key_in(&compare.key),
            end: self.end_in(&compare.end),
            ..compare.clone()
        });
        let ops = |ops: &[Op]| ops.iter().map(|op| self.op_in(op)).collect();
        Txn { when: when.collect(), then: ops(&txn.then), otherwise: ops(&txn.otherwise) }
    }

    fn op_in(&self, op: &Op) -> Op {
        match op {
            Op::Put { key, value, lease, keep } => {
                Op::Put { key: self.key_in(key), value: value.clone(), lease: *lease, keep: *keep }
            }
            Op::Delete { range } => Op::Delete { range: self.range_in(range) },
            Op::Range(range) => Op::Range(self.range_in(range)),
            Op::Txn(txn) => Op::Txn(self.txn_in(txn)),
        }
    }

    fn kv_out(&self, kv: &mut KeyValue) {
        kv.key = kv.key.slice(self.data.len()..);
    }

    fn range_out(&self, answer: &mut RangeAnswer) {
        answer.items.iter_mut().for_each(|kv| self.kv_out(kv));
    }

    fn txn_out(&self, answer: &mut TxnAnswer) {
        for answer in &mut answer.answers {
            match answer {
                OpAnswer::Put { previous } => previous.iter_mut().for_each(|kv| self.kv_out(kv)),
                OpAnswer::Delete { previous, .. } => previous.iter_mut().for_each(|kv| self.kv_out(kv)),
                OpAnswer::Range(answer) => self.range_out(answer),
                OpAnswer::Txn(answer) => self.txn_out(answer),
            }
        }
    }

    fn error_out(&self, error: Error) -> Error {
        match error {
            Error::DuplicateKey { key } => Error::DuplicateKey { key: key.slice(self.data.len().min(key.len())..) },
            Error::KeyNotFound { key } => Error::KeyNotFound { key: key.slice(self.data.len().min(key.len())..) },
            error => error,
        }
    }

    fn lease_key(&self, id: LeaseId) -> Key {
        Bytes::from([&self.leases[..], format!("{:016x}", id.0).as_bytes()].concat())
    }

    /// That the lease is this space's.
    async fn own(&self, id: LeaseId) -> Result<(), Error> {
        let found = self.store.range(Range::key(self.lease_key(id))).await?;
        found.first().map(drop).ok_or(Error::LeaseNotFound { id })
    }

    /// Leases that the transaction may attach keys to and that are not this space's.
    async fn foreign(&self, txn: &Txn) -> Result<Vec<LeaseId>, Error> {
        let mut ids = Vec::new();
        put_leases(txn, &mut ids);
        ids.sort();
        ids.dedup();
        let mut foreign = Vec::new();
        for id in ids {
            match self.own(id).await {
                Ok(()) => {}
                Err(Error::LeaseNotFound { id }) => foreign.push(id),
                Err(error) => return Err(error),
            }
        }
        Ok(foreign)
    }

    /// What the owner compacted, refused although the store may still have it.
    async fn floor(&self) -> Result<Revision, Error> {
        let found = self.store.range(Range::key(self.compacted.clone())).await?;
        let bytes = found.first().and_then(|kv| kv.value[..].try_into().ok());
        Ok(Revision(bytes.map_or(0, u64::from_be_bytes)))
    }

    async fn above_floor(&self, revisions: &[Revision]) -> Result<(), Error> {
        let Some(lowest) = revisions.iter().copied().filter(|at| *at != Revision::ZERO).min() else { return Ok(()) };
        let compacted = self.floor().await?;
        if lowest < compacted { Err(Error::Compacted { compacted }) } else { Ok(()) }
    }
}

impl Usage {
    fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.keys += more.keys;
    }

    fn take(&mut self, less: Self) {
        self.bytes = self.bytes.saturating_sub(less.bytes);
        self.keys = self.keys.saturating_sub(less.keys);
    }
}

fn put_keys(txn: &Txn, keys: &mut Vec<Key>) {
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Put { key, .. } => keys.push(key.clone()),
            Op::Txn(txn) => put_keys(txn, keys),
            Op::Delete { .. } | Op::Range(_) => {}
        }
    }
}

fn put_leases(txn: &Txn, ids: &mut Vec<LeaseId>) {
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Put { lease, .. } => ids.extend(*lease),
            Op::Txn(txn) => put_leases(txn, ids),
            Op::Delete { .. } | Op::Range(_) => {}
        }
    }
}

/// Puts that would attach to one of `foreign` attach to a lease that never exists, and so are refused, if they are done
/// at all.
fn forget_leases(txn: &mut Txn, foreign: &[LeaseId]) {
    for op in txn.then.iter_mut().chain(&mut txn.otherwise) {
        match op {
            Op::Put { lease: Some(id), .. } if foreign.contains(id) => *id = NO_LEASE,
            Op::Txn(txn) => forget_leases(txn, foreign),
            Op::Put { .. } | Op::Delete { .. } | Op::Range(_) => {}
        }
    }
}

fn read_revisions(txn: &Txn, revisions: &mut Vec<Revision>) {
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Range(range) => revisions.extend(range.revision),
            Op::Txn(txn) => read_revisions(txn, revisions),
            Op::Put { .. } | Op::Delete { .. } => {}
        }
    }
}

/// The most that the transaction can add, whichever branch is taken.
fn most_added(txn: &Txn) -> Usage {
    let branch = |ops: &[Op]| {
        let mut added = Usage::default();
        for op in ops {
            match op {
                Op::Put { key, value, .. } => added.add(Usage { bytes: (key.len() + value.len()) as u64, keys: 1 }),
                Op::Txn(txn) => added.add(most_added(txn)),
                Op::Delete { .. } | Op::Range(_) => {}
            }
        }
        added
    };
    let (then, otherwise) = (branch(&txn.then), branch(&txn.otherwise));
    Usage { bytes: then.bytes.max(otherwise.bytes), keys: then.keys.max(otherwise.keys) }
}

#[async_trait]
impl Store for Space {
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        admit::range(&range)?;
        self.above_floor(range.revision.as_slice()).await?;
        let mut answer = self.store.range(self.range_in(&range)).await?;
        self.range_out(&mut answer);
        Ok(answer)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        admit::txn(&txn)?;
        let mut revisions = Vec::new();
        read_revisions(&txn, &mut revisions);
        self.above_floor(&revisions).await?;
        let foreign = self.foreign(&txn).await?;
        let mut inside = self.txn_in(&txn);
        forget_leases(&mut inside, &foreign);
        let answer = if admit::reads_only(&txn) {
            self.store.txn(inside).await
        } else {
            self.change(inside, most_added(&txn)).await
        };
        let mut answer = answer.map_err(|error| match (error, &foreign[..]) {
            (Error::LeaseNotFound { id: NO_LEASE }, [id, ..]) => Error::LeaseNotFound { id: *id },
            (error, _) => self.error_out(error),
        })?;
        self.txn_out(&mut answer);
        Ok(answer)
    }

    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error> {
        admit::watch(&watch)?;
        self.above_floor(watch.from.as_slice()).await?;
        let inside = WatchRequest { start: self.key_in(&watch.start), end: self.end_in(&watch.end), ..watch };
        let watcher = self.store.watch(inside).await?;
        Ok(Watcher::new(Seen { watcher, cut: self.data.len() }))
    }

    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        let lease = self.store.lease_grant(ttl_seconds, id).await?;
        let owned = self.store.txn(Txn::of([Op::put_leased(self.lease_key(lease.id), "", lease.id)])).await;
        if let Err(error) = owned {
            // Nobody knows of it; if this fails too, it runs out.
            let _ = self.store.lease_revoke(lease.id).await;
            return Err(error);
        }
        Ok(lease)
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.own(id).await?;
        self.store.lease_keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        self.own(id).await?;
        self.store.lease_revoke(id).await
    }

    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        self.own(id).await?;
        let mut status = self.store.lease_time_to_live(id).await?;
        status.keys.retain(|key| key.starts_with(&self.data));
        for key in &mut status.keys {
            *key = key.slice(self.data.len()..);
        }
        Ok(status)
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        let found = self.store.range(Range::prefix(self.leases.clone()).keys_only()).await?;
        Ok(found.items.into_iter().filter_map(|kv| kv.lease).collect())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let newest = self.store.status().await?.revision;
        if revision > newest {
            return Err(Error::FutureRevision { asked: revision, newest });
        }
        loop {
            let row = self.store.range(Range::key(self.compacted.clone())).await?;
            let compacted = self.floor().await?.max(self.store.status().await?.compacted);
            if revision <= compacted {
                return Err(Error::Compacted { compacted });
            }
            let at = row.first().map_or(Revision::ZERO, |kv| kv.mod_revision);
            let wanted = Op::put(self.compacted.clone(), revision.0.to_be_bytes().to_vec());
            let txn = Txn::when([Compare::mod_is(self.compacted.clone(), at)]).then([wanted]);
            if self.store.txn(txn).await?.succeeded {
                return Ok(());
            }
        }
    }

    async fn status(&self) -> Result<Status, Error> {
        let status = self.store.status().await?;
        let compacted = self.floor().await?.max(status.compacted);
        Ok(Status { compacted, db_bytes: self.usage().await?.bytes, ..status })
    }
}

/// A watch with the root taken off.
struct Seen {
    watcher: Watcher,
    cut: usize,
}

#[async_trait]
impl WatchSource for Seen {
    async fn next(&mut self) -> Result<Option<Batch>, Error> {
        Ok(self.watcher.next().await?.map(|batch| self.cut(batch)))
    }

    fn progress(&mut self) -> Option<Revision> {
        self.watcher.progress()
    }

    async fn advance(&mut self) -> Result<Advance, Error> {
        Ok(match self.watcher.advance().await? {
            Advance::Batch(batch) => Advance::Batch(self.cut(batch)),
            advance => advance,
        })
    }
}

impl Seen {
    fn cut(&self, mut batch: Batch) -> Batch {
        for WatchEvent { kv, previous, .. } in &mut batch.events {
            for kv in std::iter::once(kv).chain(previous) {
                kv.key = kv.key.slice(self.cut..);
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{CASES, Subject};
    use crate::memory::Memory;

    const PLENTY: Quota = Quota { bytes: 1 << 40, keys: 1 << 30 };

    /// What a space does otherwise than a store of its own, and why.
    const OTHERWISE: [&str; 8] = [
        // How far the owner compacted is a row.
        "only_forward_and_not_into_the_future",
        // What the owner compacts is still there for those who watch already.
        "a_watcher_that_fell_behind_compaction_is_told",
        // Whose lease it is, is a row.
        "the_first_reason_to_refuse_is_told",
        "ids_are_chosen_or_given",
        "revoking_deletes_the_keys_in_one_revision",
        "random_histories_agree_with_the_model",
        "a_life_sign_gives_the_full_time",
        // The root takes a part of the longest key.
        "requests_beyond_a_limit_are_refused",
    ];

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    #[test]
    fn a_space_is_a_store_to_its_owner() {
        runtime().block_on(async {
            for (name, case) in CASES.iter().filter(|(name, _)| !OTHERWISE.contains(name)) {
                println!("{name}");
                let subject = Subject::new(Space::new(Arc::new(Memory::new()), b"space/1/", PLENTY));
                tokio::spawn(case(subject.store.clone())).await.unwrap();
            }
        });
    }

    async fn put(store: &dyn Store, key: &'static str, value: &'static str) -> Result<TxnAnswer, Error> {
        store.txn(Txn::of([Op::put(key, value)])).await
    }

    #[tokio::test]
    async fn spaces_do_not_see_each_other() {
        let whole: Arc<dyn Store> = Arc::new(Memory::new());
        let one = Space::new(whole.clone(), b"space/1/", PLENTY);
        let two = Space::new(whole.clone(), b"space/2/", PLENTY);
        put(&*whole, "row/secret", "system").await.unwrap();
        put(&*whole, "space/1/e", "just behind the end").await.unwrap();
        put(&one, "a", "1").await.unwrap();
        let mut watcher = two.watch(WatchRequest::prefix("").from(Revision::FIRST)).await.unwrap();
        put(&two, "a", "2").await.unwrap();
        for (space, value) in [(&one, "1"), (&two, "2")] {
            for range in [Range::all(), Range::prefix(""), Range::from("\0"), Range::between("", "\u{ff}")] {
                let found = space.range(range).await.unwrap();
                assert_eq!((found.count, &found.items[0].value[..]), (1, value.as_bytes()));
            }
        }
        let seen = watcher.next().await.unwrap().unwrap();
        assert_eq!((&seen.events[0].kv.key[..], &seen.events[0].kv.value[..]), (&b"a"[..], &b"2"[..]));
        let lease = one.lease_grant(600, None).await.unwrap().id;
        let outside = whole.lease_grant(600, None).await.unwrap().id;
        for id in [lease, outside] {
            assert!(matches!(two.lease_revoke(id).await, Err(Error::LeaseNotFound { .. })));
            assert!(matches!(two.lease_keep_alive(id).await, Err(Error::LeaseNotFound { .. })));
            assert!(matches!(two.lease_time_to_live(id).await, Err(Error::LeaseNotFound { .. })));
            let attach = two.txn(Txn::of([Op::put_leased("b", "", id)])).await;
            assert!(matches!(attach, Err(Error::LeaseNotFound { .. })));
        }
        two.txn(Txn::of([Op::delete_prefix("")])).await.unwrap();
        assert_eq!(one.range(Range::all()).await.unwrap().count, 1, "only its own were deleted");
        one.clear().await.unwrap();
        let left: Vec<_> = whole.range(Range::all()).await.unwrap().items.into_iter().map(|kv| kv.key).collect();
        assert_eq!(left, ["row/secret", "space/1/e"]);
        assert_eq!(whole.leases().await.unwrap(), [outside]);
    }

    #[tokio::test]
    async fn a_quota_bounds_what_is_added_and_nothing_else() {
        let space = Space::new(Arc::new(Memory::new()), b"space/1/", Quota { bytes: 20, keys: 2 });
        put(&space, "a", "123456").await.unwrap();
        put(&space, "b", "123456").await.unwrap();
        let third = put(&space, "c", "").await;
        assert!(matches!(third, Err(Error::OverQuota { what: "keys", .. })), "{third:?}");
        put(&space, "b", "654321").await.unwrap();
        let larger = put(&space, "b", "1234567890123").await;
        assert!(matches!(larger, Err(Error::OverQuota { what: "bytes", .. })), "{larger:?}");
        assert_eq!(space.usage().await.unwrap(), Usage { bytes: 14, keys: 2 });
        space.txn(Txn::of([Op::delete("a")])).await.unwrap();
        put(&space, "b", "1234567890123").await.unwrap();
        assert_eq!(space.usage().await.unwrap(), Usage { bytes: 14, keys: 1 });
        space.set_quota(Quota { bytes: 5, keys: 1 });
        assert!(put(&space, "b", "12345").await.is_ok(), "what shrinks is taken even above the quota");
        let lease = space.lease_grant(600, None).await.unwrap().id;
        space.set_quota(Quota { bytes: 100, keys: 2 });
        space.txn(Txn::of([Op::put_leased("leased", "", lease)])).await.unwrap();
        space.lease_revoke(lease).await.unwrap();
        put(&space, "c", "").await.expect("what went with its lease is counted off before a refusal");
    }

    #[test]
    fn changes_beside_each_other_do_not_pass_the_quota_together() {
        runtime().block_on(async {
            let space = Arc::new(Space::new(Arc::new(Memory::new()), b"s/", Quota { bytes: 1 << 20, keys: 25 }));
            let puts = (0..100).map(|nth| {
                let space = space.clone();
                tokio::spawn(async move { space.txn(Txn::of([Op::put(format!("k{nth}"), "v")])).await })
            });
            let mut made = 0;
            for put in puts.collect::<Vec<_>>() {
                made += u64::from(put.await.unwrap().is_ok());
            }
            let found = space.range(Range::all().count_only()).await.unwrap().count;
            assert_eq!((found, made), (25, 25));
        });
    }
}
