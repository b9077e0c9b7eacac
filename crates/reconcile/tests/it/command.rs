use model::Code;
use reconcile::command::Command;
use reconcile::{Verb, replay};
use serde_json::json;

use crate::toy::Cloud;

#[tokio::test]
async fn a_command_is_one_transaction_of_events_and_rows() {
    let cloud = Cloud::new().await;
    let before = cloud.revision().await;
    let verbs = vec![Cloud::create("one", 1), Cloud::create("two", 2)];
    let receipt = cloud.door.submit(Command { origin: Cloud::origin(None), verbs }).await.unwrap();
    assert_eq!(cloud.revision().await, before + 1);
    for row in &receipt.rows {
        let events = reconcile::log::of_row(&*cloud.store, &row.scope, &row.id).await.unwrap();
        assert_eq!((events.len(), events[0].sequence, events[0].version), (1, receipt.sequence, 1));
        assert_eq!(events[0].event_type, "toy.created");
    }
    // One that cannot be takes the other with it.
    let verbs = vec![Cloud::create("three", 3), Cloud::create("four", 1)];
    let refused = cloud.door.submit(Command { origin: Cloud::origin(None), verbs }).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict, "{refused:?}");
    assert_eq!(cloud.revision().await, before + 1);
}

#[tokio::test]
async fn the_same_key_has_one_effect_and_one_answer() {
    let cloud = Cloud::new().await;
    let ask = |wanted| cloud.door.one(Cloud::origin(Some("k")), Cloud::create("one", wanted));
    let (first, second) = (ask(1).await.unwrap(), ask(1).await.unwrap());
    assert_eq!((first.rows, first.replayed, second.replayed), (second.rows, false, true));
    assert_eq!(ask(2).await.unwrap_err().code, Code::IdempotencyKeyReuse);
    let at_once = futures::future::join_all(
        (0..16).map(|_| cloud.door.one(Cloud::origin(Some("many")), Cloud::create("two", 2))),
    )
    .await;
    let ids: std::collections::BTreeSet<_> = at_once.into_iter().map(|answer| answer.unwrap().row().id).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_version_that_has_passed_is_a_conflict() {
    let cloud = Cloud::new().await;
    let row = cloud.made("one", 1).await;
    let set = |wanted, version| {
        let verb = Verb::SetSpec { id: row.id.clone(), spec: json!({ "wanted": wanted }), if_version: Some(version) };
        cloud.door.one(Cloud::origin(None), verb)
    };
    let changed = set(2, 1).await.unwrap().row();
    assert_eq!((changed.version, changed.generation), (2, 2));
    assert_eq!(set(3, 1).await.unwrap_err().code, Code::VersionConflict);
    // The same wish again is no change: no event, no generation.
    let same = set(2, 2).await.unwrap().row();
    assert_eq!((same.version, same.generation), (2, 2));
}

#[tokio::test]
async fn names_and_claims_are_held_by_one_row_at_a_time() {
    let cloud = Cloud::new().await;
    let row = cloud.made("one", 1).await;
    for verb in [Cloud::create("one", 2), Cloud::create("two", 1)] {
        assert_eq!(cloud.door.one(Cloud::origin(None), verb).await.unwrap_err().code, Code::Conflict);
    }
    let racing =
        futures::future::join_all((0..8).map(|_| cloud.door.one(Cloud::origin(None), Cloud::create("same", 9)))).await;
    assert_eq!(racing.iter().filter(|answer| answer.is_ok()).count(), 1);
    cloud.door.one(Cloud::origin(None), Verb::Remove { id: row.id }).await.unwrap();
    cloud.made("one", 1).await;
}

#[tokio::test]
async fn bad_input_names_the_field_and_changes_nothing() {
    let cloud = Cloud::new().await;
    let before = cloud.revision().await;
    let create = |name: &str, spec| Verb::Create {
        kind: "toy".into(),
        scope: model::Scope::CLOUD,
        name: name.into(),
        spec,
        owner: None,
    };
    for (verb, field) in [
        (create("Bad Name", json!({ "wanted": 1 })), "name"),
        (create("good", json!({ "wanted": "x" })), "spec.wanted"),
        (create("good", json!({ "wantd": 1 })), "spec.wantd"),
    ] {
        let error = cloud.door.one(Cloud::origin(None), verb).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.field.as_deref().is_some_and(|found| found == field || field.starts_with(found)), "{error:?}");
    }
    assert_eq!(cloud.revision().await, before);
    assert!(replay::replay(&*cloud.store).await.unwrap().differences.is_empty());
}
