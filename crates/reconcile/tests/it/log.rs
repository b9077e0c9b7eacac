use reconcile::keys;
use reconcile::replay::replay;
use reconcile::{Verb, log};
use serde_json::json;
use store::{Op, Range, Txn};

use crate::toy::Cloud;

#[tokio::test]
async fn rows_equal_the_fold_of_the_log_and_a_difference_is_found() {
    let cloud = Cloud::new().await;
    let row = cloud.made("one", 1).await;
    let other = cloud.made("two", 2).await;
    let set = Verb::SetSpec { id: row.id.clone(), spec: json!({ "wanted": 5 }), if_version: None };
    cloud.door.one(Cloud::origin(None), set).await.unwrap();
    cloud.door.one(Cloud::origin(None), Verb::Remove { id: other.id }).await.unwrap();
    let clean = replay(&*cloud.store).await.unwrap();
    assert_eq!((clean.events, clean.rows, clean.differences.len(), clean.quarantined.len()), (4, 1, 0, 0));
    // Someone edits a row behind the door.
    let key = keys::row(&row.scope, "toy", &row.id);
    let mut edited = serde_json::to_value(cloud.door.get(&row.id).await.unwrap().unwrap()).unwrap();
    edited["spec"]["wanted"] = json!(6);
    cloud.store.txn(Txn::of([Op::put(key.clone(), edited.to_string())])).await.unwrap();
    assert_eq!(replay(&*cloud.store).await.unwrap().differences[0].row, row.id.as_str());
    // Someone drops one.
    cloud.store.txn(Txn::of([Op::delete(key)])).await.unwrap();
    assert!(replay(&*cloud.store).await.unwrap().differences[0].what.contains("not there"));
}

#[tokio::test]
async fn an_event_that_cannot_be_applied_quarantines_its_row_alone() {
    let cloud = Cloud::new().await;
    let (row, _) = (cloud.made("one", 1).await, cloud.made("two", 2).await);
    // An event of a later program, and one with a gap before it.
    let events = log::of_row(&*cloud.store, &row.scope, &row.id).await.unwrap();
    let mut later = events[0].clone();
    (later.version, later.schema_version) = (2, 99);
    let key = keys::event(&row.scope, &row.id, 2);
    cloud.store.txn(Txn::of([Op::put(key, serde_json::to_vec(&later).unwrap())])).await.unwrap();
    let found = replay(&*cloud.store).await.unwrap();
    assert_eq!((found.quarantined.len(), found.differences.len()), (1, 0), "{found:?}");
    // A row that cannot be read is out of the view; the others are in it.
    let key = keys::row(&row.scope, "toy", &row.id);
    cloud.store.txn(Txn::of([Op::put(key, "not a row")])).await.unwrap();
    let third = cloud.made("three", 3).await;
    cloud.rows.reach(cloud.revision().await).await;
    let table = cloud.rows.table();
    assert_eq!(table.quarantine.len(), 1);
    assert!(table.get(&third.id).is_some());
}

#[tokio::test]
async fn pages_of_events_skip_nothing_and_repeat_nothing() {
    let cloud = Cloud::new().await;
    for number in 0..40 {
        cloud.made(&format!("toy-{number}"), number).await;
    }
    let (mut from, mut seen) = (0, Vec::new());
    loop {
        let page = log::since(&*cloud.store, &model::Scope::CLOUD, from, 7).await.unwrap();
        if page.events.is_empty() {
            break;
        }
        seen.extend(page.events.iter().map(|event| event.sequence));
        from = page.next;
    }
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!((seen.len(), seen), (40, sorted));
    let newest = log::newest(&*cloud.store, &model::Scope::CLOUD, 3).await.unwrap();
    assert_eq!(newest.events.len(), 3);
    let all = cloud.store.range(Range::prefix(keys::LOG)).await.unwrap();
    assert!(all.items.iter().all(|item| item.version == 1), "events are written once");
}
