//! The store goes away and comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use model::Code;
use reconcile::{Door, Registry, Verb};
use serde_json::json;
use store::memory::Memory;
use store::{
    Batch, Error, Lease, LeaseId, LeaseStatus, Range, RangeAnswer, Revision, Status, Store, Txn, TxnAnswer,
    WatchRequest, WatchSource, Watcher,
};
use tokio::sync::watch;

use crate::toy::{Cloud, Toy};

/// A store behind a network that can be cut.
struct Far {
    near: Arc<Memory>,
    cut: watch::Sender<bool>,
    /// What watches notice of it.
    watched: watch::Sender<bool>,
}

impl Far {
    fn check(&self) -> Result<(), Error> {
        if *self.cut.borrow() { Err(Error::TimedOut) } else { Ok(()) }
    }
}

struct FarWatch {
    near: Watcher,
    cut: watch::Receiver<bool>,
}

#[async_trait]
impl WatchSource for FarWatch {
    async fn next(&mut self) -> Result<Option<Batch>, Error> {
        tokio::select! {
            _ = self.cut.wait_for(|cut| *cut) => Err(Error::TimedOut),
            batch = self.near.next() => batch,
        }
    }

    fn progress(&mut self) -> Option<Revision> {
        self.near.progress()
    }
}

#[async_trait]
impl Store for Far {
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        self.check()?;
        self.near.range(range).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        self.check()?;
        self.near.txn(txn).await
    }

    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error> {
        self.check()?;
        let near = self.near.watch(watch).await?;
        Ok(Watcher::new(FarWatch { near, cut: self.watched.subscribe() }))
    }

    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        self.check()?;
        self.near.lease_grant(ttl_seconds, id).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.check()?;
        self.near.lease_keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        self.check()?;
        self.near.lease_revoke(id).await
    }

    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        self.check()?;
        self.near.lease_time_to_live(id).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.check()?;
        self.near.leases().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.check()?;
        self.near.compact(revision).await
    }

    async fn status(&self) -> Result<Status, Error> {
        self.check()?;
        self.near.status().await
    }
}

async fn cloud() -> (Cloud, watch::Sender<bool>, Door) {
    let near = Arc::new(Memory::new());
    let cut = watch::Sender::new(false);
    let cloud = Cloud::on(Arc::new(Far { near: near.clone(), cut: cut.clone(), watched: cut.clone() })).await;
    // Someone else who still reaches the store.
    let registry = Registry::new(vec![Arc::new(Toy(cloud.world.clone()))]);
    let other = Door::new(near, registry, world::Clock::real());
    (cloud, cut, other)
}

#[tokio::test]
async fn the_cloud_waits_for_a_store_that_is_away_and_then_sees_what_it_missed() {
    let (cloud, cut, other) = cloud().await;
    let driver = cloud.turns();
    let running = tokio::spawn(driver.clone().run(cloud.changes.subscribe()));
    let (kept, removed) = (cloud.made("kept", 1).await, cloud.made("removed", 9).await);
    for row in [&kept, &removed] {
        cloud.until(&row.id, |row| row.is_some_and(model::Row::settled)).await;
    }
    let mut away = cloud.rows.outage().follow();
    cut.send_replace(true);
    let why = away.wait_for(Option::is_some).await.unwrap().clone().unwrap().why;
    assert_eq!(why, Error::TimedOut.to_string());
    let refused = cloud.door.get(&kept.id).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_deref()), (Code::Unavailable, Some("store_unavailable")));

    let turns = cloud.world.turns.load(Ordering::Relaxed);
    let mut changes = cloud.changes.subscribe();
    let set = Verb::SetSpec { id: kept.id.clone(), spec: json!({ "wanted": 2 }), if_version: None };
    other.one(Cloud::origin(None), set).await.unwrap();
    other.one(Cloud::origin(None), Verb::Remove { id: removed.id.clone() }).await.unwrap();
    driver.wake(&kept.id);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cloud.world.turns.load(Ordering::Relaxed), turns, "no turn begins that could not be written down");
    assert!(cloud.rows.table().get(&removed.id).is_some(), "the last view stays");

    cut.send_replace(false);
    away.wait_for(Option::is_none).await.unwrap();
    cloud.until(&kept.id, |row| row.is_some_and(|row| row.settled() && row.generation == 2)).await;
    assert_eq!(cloud.world.shown.lock().get(&kept.id), Some(&2));
    assert!(cloud.rows.table().get(&removed.id).is_none());
    let mut gone = false;
    while let Ok(change) = changes.try_recv() {
        gone |= change.after.is_none() && change.before.is_some_and(|before| before.id == removed.id);
    }
    assert!(gone, "followers hear of what went away meanwhile");
    assert!(!running.is_finished());
    running.abort();
}

#[tokio::test]
async fn a_turn_that_the_store_did_not_answer_is_no_fault_of_its_row_and_does_not_wait_long() {
    let (cloud, cut, _) = cloud().await;
    let row = cloud.made("one", 1).await;
    cut.send_replace(true);
    let running = cloud.start();
    tokio::time::sleep(Duration::from_secs(2)).await;
    cut.send_replace(false);
    let row = cloud.until(&row.id, |row| row.is_some_and(model::Row::settled)).await.unwrap();
    assert!(row.reason.is_none(), "{row:?}");
    assert!(row.version <= 3, "nobody wrote about the store into the row: {row:?}");
    running.abort();
}

/// A command that changes nothing names a revision that a view of rows reaches, also when other keys are newer.
#[tokio::test]
async fn a_report_that_says_nothing_new_is_not_waited_for() {
    let cloud = Cloud::new().await;
    let row = cloud.made("one", 1).await;
    cloud.store.txn(store::Txn::of([store::Op::put("elsewhere", "1")])).await.unwrap();
    let same = Verb::SetSpec { id: row.id.clone(), spec: json!({ "wanted": 1 }), if_version: None };
    let receipt = cloud.door.one(Cloud::origin(None), same).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), cloud.rows.reach(receipt.sequence)).await.unwrap();
}

/// A watch on a store that is away may just be silent.
#[tokio::test]
async fn an_outage_that_no_watch_tells_of_is_noticed() {
    let near = Arc::new(Memory::new());
    let (cut, silent) = (watch::Sender::new(false), watch::Sender::new(false));
    let cloud = Cloud::on(Arc::new(Far { near, cut: cut.clone(), watched: silent })).await;
    let mut away = cloud.rows.outage().follow();
    // The watch has begun once it has brought something.
    let row = cloud.made("one", 1).await;
    while cloud.rows.table().get(&row.id).is_none() {
        tokio::task::yield_now().await;
    }
    cut.send_replace(true);
    away.wait_for(Option::is_some).await.unwrap();
    cut.send_replace(false);
    away.wait_for(Option::is_none).await.unwrap();
}
