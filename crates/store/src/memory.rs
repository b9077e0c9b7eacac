//! The engine for tests and simulation: everything in memory, gone with the process.
//!
//! Leases run on tokio's clock, so a paused clock pauses them too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::apply::{self, State};
use crate::feed::{self, Feed, History, Page};
use crate::lessor::Lessor;
use crate::limits::HISTORY_BATCHES_MAX;
use crate::select::{self, Row, Rows, Visit};
use crate::{
    Batch, Error, Key, KeyValue, Lease, LeaseId, LeaseStatus, Range, RangeAnswer, Revision, SortOrder, Span, Status,
    Store, Txn, TxnAnswer, WatchEvent, WatchRequest, Watcher, admit,
};

pub struct Memory {
    shared: Arc<Shared>,
    expiry: AbortHandle,
}

struct Shared {
    tables: Mutex<Tables>,
    feed: Arc<Feed>,
    lessor: Lessor,
}

struct Tables {
    newest: Revision,
    compacted: Revision,
    /// Each key's rows by revision, ascending and never empty; `None` is a delete.
    rows: BTreeMap<Key, Vec<(Revision, Option<KeyValue>)>>,
    log: BTreeMap<Revision, Arc<Batch>>,
    /// Every lease, with its keys.
    leases: BTreeMap<LeaseId, BTreeSet<Key>>,
    lease_last: i64,
    bytes: u64,
}

impl Memory {
    /// Must be called inside a tokio runtime, which then runs the leases.
    pub fn new() -> Self {
        let shared = Arc::new(Shared {
            tables: Mutex::new(Tables {
                newest: Revision::FIRST,
                compacted: Revision::ZERO,
                rows: BTreeMap::new(),
                log: BTreeMap::new(),
                leases: BTreeMap::new(),
                lease_last: 0,
                bytes: 0,
            }),
            feed: Feed::new(Revision::FIRST),
            lessor: Lessor::default(),
        });
        let expiry = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    let id = shared.lessor.run_out().await;
                    // Already revoked is as good.
                    let _ = shared.revoke(id);
                }
            }
        });
        Self { shared, expiry: expiry.abort_handle() }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.expiry.abort();
        self.shared.feed.close();
    }
}

impl Shared {
    /// Publishes under the same lock under which the revision was taken, which keeps the order.
    fn commit(&self, tables: &mut Tables, events: Vec<WatchEvent>) {
        if events.is_empty() {
            return;
        }
        tables.newest = tables.newest.next();
        let batch = Batch { revision: tables.newest, events };
        tables.log.insert(tables.newest, Arc::new(batch.clone()));
        self.feed.publish(batch);
    }

    fn revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        let tables = &mut *self.tables.lock();
        if !tables.leases.contains_key(&id) {
            return Err(Error::LeaseNotFound { id });
        }
        let applied = apply::revoke(tables, id)?;
        tables.leases.remove(&id);
        self.commit(tables, applied.events);
        self.lessor.remove(id);
        Ok(applied.answer)
    }
}

#[async_trait]
impl Store for Memory {
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        admit::range(&range)?;
        let tables = self.shared.tables.lock();
        select::answer(&*tables, &range, tables.newest)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        admit::txn(&txn)?;
        let tables = &mut *self.shared.tables.lock();
        let applied = apply::apply(tables, &txn)?;
        self.shared.commit(tables, applied.events);
        Ok(applied.answer)
    }

    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error> {
        admit::watch(&watch)?;
        let tables = self.shared.tables.lock();
        if watch.from.is_some_and(|from| from < tables.compacted) {
            return Err(Error::Compacted { compacted: tables.compacted });
        }
        Ok(self.shared.feed.watch(watch, self.shared.clone()))
    }

    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        let ttl_seconds = admit::lease(ttl_seconds, id)?;
        let tables = &mut *self.shared.tables.lock();
        let id = match id {
            Some(id) if tables.leases.contains_key(&id) => return Err(Error::LeaseExists { id }),
            Some(id) => id,
            None => loop {
                tables.lease_last = tables.lease_last.checked_add(1).unwrap_or(1);
                let id = LeaseId(tables.lease_last);
                if !tables.leases.contains_key(&id) {
                    break id;
                }
            },
        };
        tables.leases.insert(id, BTreeSet::new());
        let lease = Lease { id, ttl_seconds };
        self.shared.lessor.insert(lease);
        Ok(lease)
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.shared.lessor.keep_alive(id)
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        self.shared.revoke(id)
    }

    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        let (lease, left) = self.shared.lessor.remaining(id)?;
        let keys = self.shared.tables.lock().lease_keys(id)?;
        Ok(LeaseStatus { id, ttl_seconds: lease.ttl_seconds, remaining_seconds: left.as_secs(), keys })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        Ok(self.shared.tables.lock().leases.keys().copied().collect())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let tables = &mut *self.shared.tables.lock();
        let (newest, compacted) = (tables.newest, tables.compacted);
        if revision > newest {
            return Err(Error::FutureRevision { asked: revision, newest });
        }
        if revision <= compacted {
            return Err(Error::Compacted { compacted });
        }
        tables.compact(revision);
        Ok(())
    }

    async fn status(&self) -> Result<Status, Error> {
        let tables = self.shared.tables.lock();
        Ok(Status { revision: tables.newest, compacted: tables.compacted, db_bytes: tables.bytes, engine: "memory" })
    }
}

#[async_trait]
impl History for Shared {
    async fn read(&self, span: &Span, previous: bool, from: Revision, to: Revision) -> Result<Page, Error> {
        let tables = self.tables.lock();
        if from < tables.compacted {
            return Err(Error::Compacted { compacted: tables.compacted });
        }
        let mut page = Page { batches: Vec::new(), next: to.next() };
        for (read, (revision, batch)) in tables.log.range(from..=to).enumerate() {
            if read == HISTORY_BATCHES_MAX {
                page.next = *revision;
                break;
            }
            page.batches.extend(feed::narrow(batch, span, previous));
        }
        Ok(page)
    }
}

fn bytes(kv: &KeyValue) -> u64 {
    (kv.key.len() + kv.value.len()) as u64
}

impl Tables {
    fn compact(&mut self, revision: Revision) {
        self.compacted = revision;
        self.log = self.log.split_off(&revision);
        let mut freed = 0;
        self.rows.retain(|_, rows| {
            // What the key was at `revision` stays, unless it was gone by then.
            let kept = rows.partition_point(|(at, _)| *at <= revision).saturating_sub(1);
            freed += rows.drain(..kept).filter_map(|(_, row)| row).map(|kv| bytes(&kv)).sum::<u64>();
            if rows[0].0 <= revision && rows[0].1.is_none() {
                rows.remove(0);
            }
            !rows.is_empty()
        });
        self.bytes -= freed;
    }

    fn detach(&mut self, kv: &KeyValue) {
        if let Some(keys) = kv.lease.and_then(|id| self.leases.get_mut(&id)) {
            keys.remove(&kv.key);
        }
    }
}

impl Rows for Tables {
    fn newest(&self) -> Revision {
        self.newest
    }

    fn compacted(&self) -> Revision {
        self.compacted
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        Ok(self.rows.get(key).and_then(|rows| rows.last()).and_then(|(_, row)| row.clone()))
    }

    fn visit(&self, span: &Span, at: Option<Revision>, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        let mut visit = |rows: &Vec<(Revision, Option<KeyValue>)>| {
            let row = match at {
                None => rows.last(),
                Some(at) => rows[..rows.partition_point(|(revision, _)| *revision <= at)].last(),
            };
            match row {
                Some((_, Some(kv))) => visit(Row::of(kv)),
                Some((_, None)) | None => ControlFlow::Continue(()),
            }
        };
        let mut rows = self.rows.range::<[u8], _>(span.bounds()).map(|(_, rows)| rows);
        let _ = match order {
            SortOrder::Ascend => rows.try_for_each(&mut visit),
            SortOrder::Descend => rows.rev().try_for_each(&mut visit),
        };
        Ok(())
    }
}

impl State for Tables {
    fn put(&mut self, new: &KeyValue, old: Option<&KeyValue>) -> Result<(), Error> {
        if let Some(old) = old {
            self.detach(old);
        }
        if let Some(keys) = new.lease.and_then(|id| self.leases.get_mut(&id)) {
            keys.insert(new.key.clone());
        }
        self.bytes += bytes(new);
        self.rows.entry(new.key.clone()).or_default().push((new.mod_revision, Some(new.clone())));
        Ok(())
    }

    fn delete(&mut self, old: &KeyValue, revision: Revision) -> Result<(), Error> {
        self.detach(old);
        self.rows.entry(old.key.clone()).or_default().push((revision, None));
        Ok(())
    }

    fn lease_exists(&self, id: LeaseId) -> Result<bool, Error> {
        Ok(self.leases.contains_key(&id))
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        Ok(self.leases.get(&id).map(|keys| keys.iter().cloned().collect()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conformance::{self, Subject, history};

    crate::suite!(async || Subject::new(Memory::new()));

    #[tokio::test]
    async fn the_suite_runs_as_a_whole_too() {
        conformance::run(async || Subject::new(Memory::new())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_many_clients_hear_is_linearizable() {
        use std::sync::atomic::{AtomicBool, AtomicU64};

        use conformance::linear::{Client, Heard, History, by_log, by_values, told_rightly, whole_log};

        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let told = Arc::new(Mutex::new(Vec::new()));
        let following = tokio::spawn(conformance::linear::follow(store.clone(), told.clone()));
        let history = History::default();
        let (values, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let clients = (0..6).map(|number| {
            let client = Client::new(number, store.clone(), history.clone(), values.clone(), 1);
            tokio::spawn(client.run(100, std::time::Duration::ZERO, stop.clone()))
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
        let (ops, log) = (history.ops(), whole_log(&*store).await.unwrap());
        assert!(ops.iter().filter(|op| matches!(op.heard, Heard::Wrote(_))).count() > 50);
        by_log(&ops, &log).unwrap();
        assert_eq!(by_values(&ops).unwrap(), 0);
        following.abort();
        told_rightly(&told.lock(), &log).unwrap();
    }

    #[tokio::test]
    async fn watchers_end_with_the_store() {
        let store = Memory::new();
        let mut watcher = store.watch(WatchRequest::prefix("")).await.unwrap();
        store.txn(Txn::of([crate::Op::put("a", "1")])).await.unwrap();
        drop(store);
        assert!(watcher.next().await.unwrap().is_some(), "what was published before is delivered");
        assert!(watcher.next().await.unwrap().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_history_agrees_with_the_model(numbers in proptest::collection::vec(any::<u64>(), 1..400)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let store: Arc<dyn Store> = Arc::new(Memory::new());
                history::play(&store, &numbers).await;
            });
        }
    }
}
