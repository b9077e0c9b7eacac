//! Idempotency keys.

use http::Method;
use serde_json::json;

use crate::cloud::Cloud;

#[tokio::test]
async fn the_same_key_under_concurrency_has_one_effect_and_one_answer() {
    let cloud = Cloud::open().await;
    let body = json!({"scope": cloud.one.scope, "name": "once", "spec": {"text": "x"}});
    let ask = |token: &str| {
        cloud.send(cloud.request(token, Method::POST, "/v1/things").header("Idempotency-Key", "key-1").json(&body))
    };
    let answers = futures::future::join_all((0..16).map(|_| ask(&cloud.one.token))).await;
    let ids: std::collections::BTreeSet<String> = answers
        .iter()
        .map(|answer| (answer.status.as_u16(), answer.json()["id"].to_string()))
        .map(|(status, id)| {
            assert_eq!(status, 201);
            id
        })
        .collect();
    assert_eq!(ids.len(), 1);
    let fresh = answers.iter().filter(|answer| !answer.headers.contains_key("idempotency-replayed")).count();
    assert_eq!(fresh, 1);
    let listed = cloud.get(&cloud.one.token, "/v1/things?name=once").await.ok(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let events = cloud.get(&cloud.one.token, "/v1/events?newest=50").await.ok(200);
    let created =
        events["items"].as_array().unwrap().iter().filter(|event| event["idempotency_key"] == "key-1").count();
    assert_eq!(created, 1);

    let other = json!({"scope": cloud.one.scope, "name": "other", "spec": {}});
    let request = cloud.request(&cloud.one.token, Method::POST, "/v1/things").header("Idempotency-Key", "key-1");
    cloud.send(request.json(&other)).await.problem(409, "idempotency_key_reuse");
    // The key belongs to the token: another one's is its own, and here meets a name that is taken.
    let (token, _) = crate::cloud::token(&cloud.door, &cloud.one.scope, "second", json!({})).await;
    ask(&token).await.problem(409, "conflict");
}

#[tokio::test]
async fn a_repeated_delete_is_answered_after_the_row_is_gone() {
    let cloud = Cloud::open().await;
    let path = format!("/v1/things/{}", cloud.one.thing.id);
    let delete = |token: &str| cloud.send(cloud.request(token, Method::DELETE, &path).header("Idempotency-Key", "bye"));
    let first = delete(&cloud.one.token).await.ok(202);
    while cloud.get(&cloud.one.token, &path).await.status != 404 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(delete(&cloud.one.token).await.ok(202), first);
    delete(&cloud.two.token).await.problem(404, "not_found");
    cloud.delete(&cloud.one.token, &path).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let cloud = Cloud::open().await;
    let long = "x".repeat(129);
    for bad in ["", "a b", &long, "ä"] {
        let request = cloud.request(&cloud.one.token, Method::POST, "/v1/things");
        let body = json!({"scope": cloud.one.scope, "name": "k", "spec": {}});
        let answer = cloud.send(request.header("Idempotency-Key", bad.as_bytes()).json(&body)).await;
        assert_eq!(answer.problem(400, "invalid_argument")["field"], "Idempotency-Key");
    }
}
