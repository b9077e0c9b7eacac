//! What is not right is refused before anything changes, and the refusal names it.

use http::Method;
use serde_json::{Value, json};

use crate::cloud::Cloud;

#[tokio::test]
async fn wrong_bodies() {
    let cloud = Cloud::open().await;
    let before = cloud.quiet().await;
    let scope = cloud.one.scope.to_string();
    let token = &cloud.one.token;
    let table: Vec<(Value, u16, &str, &str)> = vec![
        (json!([]), 400, "invalid_argument", ""),
        (json!({"name": "a", "spec": {}, "scop": scope}), 400, "invalid_argument", "scop"),
        (json!({"scope": scope, "spec": {}}), 400, "invalid_argument", "name"),
        (json!({"scope": scope, "name": "Bad Name", "spec": {}}), 400, "invalid_argument", "name"),
        (json!({"scope": scope, "name": 7, "spec": {}}), 400, "invalid_argument", "name"),
        (json!({"scope": scope, "name": "a"}), 400, "invalid_argument", "spec"),
        (json!({"scope": scope, "name": "a", "spec": "x"}), 400, "invalid_argument", "spec"),
        (json!({"scope": scope, "name": "a", "spec": {"txt": "x"}}), 400, "invalid_argument", "spec.txt"),
        (
            json!({"scope": scope, "name": "a", "spec": {"part": {"size": "big"}}}),
            400,
            "invalid_argument",
            "spec.part.size",
        ),
        (json!({"scope": "nonsense", "name": "a", "spec": {}}), 400, "invalid_argument", "scope"),
        (json!({"scope": scope, "name": "a", "spec": {}, "owner": "nobody"}), 400, "invalid_argument", "owner"),
        (
            json!({"scope": scope, "name": "a", "spec": {}, "owner": model::Id::from_bits("thg", 1)}),
            404,
            "not_found",
            "owner",
        ),
        (json!({"scope": scope, "name": "one-thing", "spec": {}}), 409, "conflict", ""),
    ];
    for (body, status, code, field) in table {
        let problem = cloud.post(token, "/v1/things", &body).await.problem(status, code);
        assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{body}: {problem}");
    }
    let problem = cloud.post(token, "/v1/things", &json!({"scop": "x"})).await.json();
    assert_eq!(problem["hint"], "did you mean `scope`?");
    let path = format!("/v1/things/{}", cloud.one.thing.id);
    cloud.put(token, &path, &json!({"spec": {}, "name": "x"})).await.problem(400, "invalid_argument");
    cloud.put(token, &path, &json!({})).await.problem(400, "invalid_argument");
    cloud.post(&cloud.admin, "/v1/things", &json!({"name": "a", "spec": {}})).await.problem(400, "invalid_argument");

    let raw = |content_type: &'static str, body: &'static str| {
        let request = cloud.request(token, Method::POST, "/v1/things").header("Content-Type", content_type);
        cloud.send(request.body(body))
    };
    raw("text/plain", "{}").await.problem(415, "invalid_argument");
    raw("application/json; charset=utf-8", "{").await.problem(400, "invalid_argument");
    raw("application/json", "").await.problem(400, "invalid_argument");
    let deep = "[".repeat(100_000);
    let request = cloud.request(token, Method::POST, "/v1/things").header("Content-Type", "application/json");
    cloud.send(request.body(deep)).await.problem(400, "invalid_argument");
    assert_eq!(cloud.revision().await, before, "nothing was written");
}

#[tokio::test]
async fn wrong_queries_and_paths() {
    let cloud = Cloud::open().await;
    let token = &cloud.one.token;
    let table = [
        ("/v1/things?limt=1", "limt"),
        ("/v1/things?limit=0", "limit"),
        ("/v1/things?limit=201", "limit"),
        ("/v1/things?limit=-1", "limit"),
        ("/v1/things?limit=1&limit=2", "limit"),
        ("/v1/things?exact=yes", "exact"),
        ("/v1/things?cursor=abc", "cursor"),
        ("/v1/things?scope=abc", "scope"),
        ("/v1/things/one-thing", "id"),
        ("/v1/things/..%2f..%2fetc", "id"),
        ("/v1/whoami?x=1", "x"),
        ("/health?x=1", "x"),
    ];
    for (path, field) in table {
        let problem = cloud.get(token, path).await.problem(400, "invalid_argument");
        assert_eq!(problem["field"], field, "{path}");
    }
    let thing = format!("/v1/things/{}", cloud.one.thing.id);
    for query in ["/wait?for=ever", "/wait?timeout_seconds=601", "/wait?generation=0", "/lines?cnt=1", "/why?x=1"] {
        cloud.get(token, &format!("{thing}{query}")).await.problem(400, "invalid_argument");
    }
    let hint = cloud.get(token, "/v1/things?limt=1").await.json()["hint"].clone();
    assert_eq!(hint, "did you mean `limit`?");
    cloud.get(token, "/v1/nothings").await.problem(404, "not_found");
    cloud.get(token, "/v1/things/%ff").await.problem(400, "invalid_argument");
    // An id of another kind is not here.
    cloud.get(token, &format!("/v1/tokens/{}", cloud.one.thing.id)).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_verb_that_is_not_possible_names_those_that_are() {
    let cloud = Cloud::open().await;
    let token = &cloud.one.token;
    let answer = cloud.send(cloud.request(token, Method::PATCH, "/v1/things")).await;
    answer.problem(405, "invalid_argument");
    assert_eq!(answer.headers["allow"], "GET, HEAD, POST");
    let answer = cloud.post(token, "/v1/fixeds", &json!({"name": "a", "spec": {}})).await;
    answer.problem(405, "invalid_argument");
    assert_eq!(answer.headers["allow"], "GET, HEAD");
    let thing = format!("/v1/things/{}", cloud.one.thing.id);
    let answer = cloud.post(token, &thing, &json!({})).await;
    assert_eq!(answer.headers["allow"], "DELETE, GET, HEAD, PUT");
    let head = cloud.send(cloud.request(token, Method::HEAD, &thing)).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn request_ids_are_taken_when_they_are_ids() {
    let cloud = Cloud::open().await;
    let id = model::Id::new("req").to_string();
    let get =
        |id: &str| cloud.send(cloud.request(&cloud.one.token, Method::GET, "/v1/whoami").header("X-Request-Id", id));
    assert_eq!(get(&id).await.headers["x-request-id"], id.as_str());
    for other in ["hello", &model::Id::new("vm").to_string()] {
        let given = get(other).await.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(given != other && given.starts_with("req_"), "{given}");
    }
    let body = json!({"scope": cloud.one.scope, "name": "traced", "spec": {}});
    let request = cloud.request(&cloud.one.token, Method::POST, "/v1/things").header("X-Request-Id", &id);
    let row = cloud.send(request.json(&body)).await.ok(201);
    assert_eq!(row["correlation"], id.as_str());
}
