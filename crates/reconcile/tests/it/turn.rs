use std::sync::atomic::Ordering;
use std::time::Duration;

use reconcile::Verb;
use reconcile::wait::{self, Outcome};
use serde_json::json;

use crate::toy::Cloud;

#[tokio::test]
async fn a_wish_is_realised_changed_and_removed() {
    let cloud = Cloud::new().await;
    let running = cloud.start();
    let row = cloud.made("one", 1).await;
    cloud.until(&row.id, |row| row.is_some_and(model::Row::settled)).await;
    assert_eq!(cloud.world.shown.lock().get(&row.id), Some(&1));
    let set = Verb::SetSpec { id: row.id.clone(), spec: json!({ "wanted": 2 }), if_version: None };
    let changed = cloud.door.one(Cloud::origin(None), set).await.unwrap().row();
    assert!(!changed.settled(), "a new wish is not settled by an old report");
    let limit = Duration::from_secs(20);
    let outcome =
        wait::settled(&cloud.rows, cloud.changes.subscribe(), &row.id, changed.generation, limit, |_| false).await;
    assert!(matches!(outcome.unwrap(), Outcome::Settled(_)));
    assert_eq!(cloud.world.shown.lock().get(&row.id), Some(&2));
    cloud.door.one(Cloud::origin(None), Verb::Delete { id: row.id.clone(), if_version: None }).await.unwrap();
    cloud.until(&row.id, |row| row.is_none()).await;
    assert!(cloud.world.shown.lock().is_empty(), "deletion is done when nothing is left");
    running.abort();
}

#[tokio::test]
async fn a_quiet_cloud_writes_nothing() {
    let cloud = Cloud::new().await;
    let running = cloud.start();
    let row = cloud.made("one", 1).await;
    cloud.until(&row.id, |row| row.is_some_and(model::Row::settled)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (revision, turns) = (cloud.revision().await, cloud.world.turns.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cloud.revision().await, revision);
    assert_eq!(cloud.world.turns.load(Ordering::Relaxed), turns, "and takes no turns");
    running.abort();
}

#[tokio::test]
async fn a_fault_is_on_record_is_tried_with_growing_pauses_and_heals() {
    let cloud = Cloud::new().await;
    *cloud.world.broken.lock() = true;
    let running = cloud.start();
    let row = cloud.made("one", 1).await;
    let faulty =
        cloud.until(&row.id, |row| row.is_some_and(|row| row.reason.as_ref().is_some_and(|r| !r.transient))).await;
    let reason = faulty.unwrap().reason.unwrap();
    assert_eq!((reason.code.as_str(), reason.remedy.as_str()), ("world_broken", "mend it"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let acts = cloud.world.acts.load(Ordering::Relaxed);
    assert!(acts < 12, "{acts} attempts in two seconds: its own report must not wake it");
    let since = cloud.door.get(&row.id).await.unwrap().unwrap().reason.map(|reason| reason.since_ms);
    assert_eq!(since, Some(reason.since_ms), "the reason began when it began");
    *cloud.world.broken.lock() = false;
    cloud.until(&row.id, |row| row.is_some_and(model::Row::settled)).await;
    running.abort();
}

#[tokio::test]
async fn a_panic_in_one_turn_is_that_rows_fault() {
    let cloud = Cloud::new().await;
    *cloud.world.cursed.lock() = true;
    let running = cloud.start();
    let row = cloud.made("one", 1).await;
    cloud
        .until(&row.id, |row| row.is_some_and(|row| row.reason.as_ref().is_some_and(|r| r.code == "turn_failed")))
        .await;
    *cloud.world.cursed.lock() = false;
    cloud.until(&row.id, |row| row.is_some_and(model::Row::settled)).await;
    assert!(!running.is_finished());
    running.abort();
}

#[tokio::test]
async fn a_new_wish_does_not_wait_for_the_pause_of_an_old_fault() {
    let cloud = Cloud::new().await;
    *cloud.world.broken.lock() = true;
    let running = cloud.start();
    let row = cloud.made("one", 1).await;
    // Deep in the pauses: the next attempt by itself is seconds away.
    while cloud.world.acts.load(Ordering::Relaxed) < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    *cloud.world.broken.lock() = false;
    let set = Verb::SetSpec { id: row.id.clone(), spec: json!({ "wanted": 2 }), if_version: None };
    cloud.door.one(Cloud::origin(None), set).await.unwrap();
    cloud.until(&row.id, |row| row.is_some_and(|row| row.settled() && row.generation == 2)).await;
    assert_eq!(cloud.world.shown.lock().get(&row.id), Some(&2));
    running.abort();
}
