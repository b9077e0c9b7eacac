//! The scheduler at work.

use std::time::Duration;

use model::{Row, Scope};
use reconcile::Verb;
use serde_json::json;

use crate::cloud::{self, Cloud, PATIENCE, create};

async fn until(cloud: &Cloud, row: &Row, what: impl Fn(Option<&Row>) -> bool) -> Option<Row> {
    let wait = async {
        loop {
            let found = cloud.door.get(&row.id).await.unwrap();
            if what(found.as_ref()) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it happens in time")
}

fn reason(row: Option<&Row>) -> Option<&str> {
    Some(row?.reason.as_ref()?.code.as_str())
}

#[tokio::test]
async fn work_waits_for_a_node_says_why_once_and_is_placed_when_one_comes() {
    let cloud = Cloud::open().await;
    let job = async |name: &str| create(&cloud.door, "job", &cloud.one.scope, name, json!({})).await;
    let first = job("first").await;
    until(&cloud, &first, |row| reason(row) == Some("no_nodes_active")).await;
    let quiet = cloud.quiet().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cloud.revision().await, quiet, "a quiet cloud writes nothing");

    let host = create(&cloud.door, "host", &Scope::CLOUD, "big", json!({})).await;
    let placed = until(&cloud, &first, |row| row.is_some_and(|row| row.node.is_some())).await.unwrap();
    assert_eq!(placed.node, Some(host.id));
    // 100 MiB hold one of 60 and not two.
    let second = job("second").await;
    let waiting = until(&cloud, &second, |row| reason(row) == Some("no_capacity_memory")).await.unwrap();
    let why = waiting.reason.unwrap();
    assert!(why.message.contains("big") && why.message.contains("free"), "{}", why.message);
    assert!(waiting.node.is_none());

    // What was never assigned is removed here; what was is left to its node.
    for row in [&first, &second] {
        let path = format!("/v1/jobs/{}", row.id);
        cloud.delete(&cloud.one.token, &path).await.ok(202);
    }
    until(&cloud, &second, |row| row.is_none()).await;
    assert!(cloud.door.get(&first.id).await.unwrap().is_some());
    let third = job("third").await;
    until(&cloud, &third, |row| reason(row) == Some("no_capacity_memory")).await;
    cloud.door.one(cloud::origin(), Verb::Remove { id: first.id.clone() }).await.unwrap();
    until(&cloud, &third, |row| row.is_some_and(|row| row.node.is_some())).await;
}

#[tokio::test]
async fn many_at_once_never_exceed_a_nodes_memory() {
    let cloud = Cloud::open().await;
    for name in ["a", "b", "c"] {
        create(&cloud.door, "host", &Scope::CLOUD, name, json!({})).await;
    }
    let creating = (0..9).map(|number| {
        let body = json!({"scope": cloud.one.scope, "name": format!("j{number}"), "spec": {}});
        let cloud = &cloud;
        async move { cloud.post(&cloud.one.token, "/v1/jobs", &body).await.ok(201) }
    });
    futures::future::join_all(creating).await;
    cloud.quiet().await;
    let table = cloud.rows.table();
    let nodes: Vec<_> = table.of_kind("job").filter_map(|row| row.node.clone()).collect();
    let distinct: std::collections::BTreeSet<_> = nodes.iter().collect();
    assert_eq!((nodes.len(), distinct.len()), (3, 3), "one on each");
    assert_eq!(table.of_kind("job").filter(|row| reason(Some(row)) == Some("no_capacity_memory")).count(), 6);
}
