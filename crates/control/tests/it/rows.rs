//! Every verb on rows.

use http::Method;
use serde_json::json;

use crate::cloud::{Cloud, create};

#[tokio::test]
async fn a_row_is_created_read_changed_waited_for_explained_and_removed() {
    let cloud = Cloud::open().await;
    let (token, scope) = (&cloud.one.token, &cloud.one.scope);
    let body = json!({"scope": scope, "name": "first", "spec": {"text": "a"}});
    let answer = cloud.post(token, "/v1/things", &body).await;
    assert_eq!(answer.headers["etag"], "\"1\"");
    let row = answer.ok(201);
    assert_eq!((row["kind"].as_str(), row["scope"].as_str()), (Some("thing"), Some(scope.to_string().as_str())));
    assert_eq!(row["spec"]["part"]["size"], 0, "defaults are filled in: {row}");
    assert!(row["progress"].is_null() && row.get("progress").is_some());
    let path = format!("/v1/things/{}", row["id"].as_str().unwrap());
    assert_eq!(cloud.get(token, &path).await.ok(200)["id"], row["id"], "what was accepted is read at once");

    let waited = cloud.get(token, &format!("{path}/wait?generation=1&timeout_seconds=60")).await.ok(200);
    assert_eq!((&waited["outcome"], &waited["row"]["status"]["seen"]), (&json!("settled"), &json!("a")));
    let set = cloud.put(token, &path, &json!({"spec": {"text": "b"}})).await.ok(200);
    assert_eq!(set["generation"], 2);
    let waited = cloud.get(token, &format!("{path}/wait?timeout_seconds=60")).await.ok(200);
    assert_eq!((&waited["outcome"], &waited["row"]["status"]["seen"]), (&json!("settled"), &json!("b")));
    let same = cloud.put(token, &path, &json!({"spec": {"text": "b"}})).await.ok(200);
    assert_eq!(same["version"], waited["row"]["version"], "the same wish changes nothing");

    let why = cloud.get(token, &format!("{path}/why")).await.ok(200);
    assert_eq!(why["settled"], true);
    assert_eq!(why["chain"][0]["type"], "thing.spec_set", "{why}");
    let events = cloud.get(token, &format!("{path}/events")).await.ok(200);
    let types: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["thing.created", "thing.observed", "thing.spec_set", "thing.observed"]);
    assert_eq!(events["items"][0]["actor"], json!({"type": "user", "id": cloud.one.token_id}));
    let last = cloud.get(token, &format!("{path}/events?limit=1")).await.ok(200);
    assert_eq!(last["items"].as_array().unwrap().len(), 1);
    assert_eq!(last["items"][0]["version"], 4);

    let gone = cloud.delete(token, &path).await.ok(202);
    assert!(gone["deleting_since_ms"].is_u64());
    let waited = cloud.get(token, &format!("{path}/wait?for=gone&timeout_seconds=60")).await;
    // It may be gone before anyone could wait for it.
    assert!(waited.status == 404 || waited.json() == json!({"outcome": "gone", "row": null}), "{waited:?}");
    cloud.get(token, &path).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_wait_tells_failure_and_time_from_each_other() {
    let cloud = Cloud::open().await;
    let token = &cloud.one.token;
    let row = async |name: &str, phase: &str| {
        let row = create(&cloud.door, "thing", &cloud.one.scope, name, json!({"phase": phase})).await;
        format!("/v1/things/{}", row.id)
    };
    let failed = row("bad", "failed").await;
    let waited = cloud.get(token, &format!("{failed}/wait?timeout_seconds=60")).await.ok(200);
    assert_eq!((&waited["outcome"], &waited["row"]["reason"]["code"]), (&json!("failed"), &json!("broken")));
    let why = cloud.get(token, &format!("{failed}/why")).await.ok(200);
    assert_eq!((&why["settled"], &why["blockers"][0]["reason"]["try"]), (&json!(false), &json!("mend it")));

    let slow = row("slow", "slow").await;
    let waited = cloud.get(token, &format!("{slow}/wait?timeout_seconds=1")).await.ok(200);
    assert_eq!(waited["outcome"], "waiting");
    assert_eq!(cloud.get(token, &slow).await.ok(200)["progress"]["done"], 1);
    let gone = cloud.get(token, &format!("{slow}/wait?for=gone&timeout_seconds=0")).await.ok(200);
    assert_eq!(gone["outcome"], "waiting");
    let ahead = cloud.get(token, &format!("{slow}/wait?generation=7&timeout_seconds=0")).await.ok(200);
    assert_eq!(ahead["outcome"], "waiting");
}

#[tokio::test]
async fn if_match_refuses_when_someone_else_was_faster() {
    let cloud = Cloud::open().await;
    cloud.quiet().await;
    let path = format!("/v1/things/{}", cloud.one.thing.id);
    let current = cloud.get(&cloud.one.token, &path).await;
    let tag = current.headers["etag"].to_str().unwrap().to_owned();
    let with = |method: Method, tag: &str| {
        let request = cloud.request(&cloud.one.token, method, &path).header("If-Match", tag);
        request.json(&json!({"spec": {"text": "new"}}))
    };
    cloud.send(with(Method::PUT, &tag)).await.ok(200);
    let problem = cloud.send(with(Method::PUT, &tag)).await.problem(409, "version_conflict");
    assert_eq!(problem["retryable"], true);
    cloud.send(with(Method::DELETE, "1")).await.problem(409, "version_conflict");
    cloud.send(with(Method::PUT, "\"x\"")).await.problem(400, "invalid_argument");
    cloud.send(with(Method::PUT, "*")).await.ok(200);
}

#[tokio::test]
async fn pages_are_stable_while_rows_come_and_go() {
    let cloud = Cloud::open().await;
    let token = &cloud.one.token;
    for number in 0..7 {
        cloud.thing(&format!("t{number}")).await;
    }
    let all = cloud.get(token, "/v1/things?limit=200").await.ok(200);
    let ids = |page: &serde_json::Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let expected = ids(&all);
    assert_eq!((expected.len(), &all["next"]), (8, &json!(null)));
    assert!(expected.is_sorted());
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = cloud.get(token, &format!("/v1/things?limit=3{cursor}")).await.ok(200);
        seen.extend(ids(&page));
        // One that comes later and one that goes: neither shifts the pages.
        cloud.thing(&format!("later{}", seen.len())).await;
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
        if seen.len() > 20 {
            break;
        }
    }
    assert_eq!(seen[..8], expected[..]);
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len());
}

#[tokio::test]
async fn lists_are_cut_by_scope_name_owner_and_phase() {
    let cloud = Cloud::open().await;
    cloud.quiet().await;
    let names = async |token: &str, query: &str| -> Vec<String> {
        let page = cloud.get(token, &format!("/v1/things{query}")).await.ok(200);
        page["items"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let (admin, one) = (&cloud.admin, &cloud.one);
    let both = names(admin, "").await;
    assert_eq!(both, ["one-thing", "two-thing"]);
    assert_eq!(names(admin, &format!("?scope={}", one.org.inner_scope())).await, ["one-thing"]);
    assert!(names(admin, &format!("?scope={}&exact=true", one.org.inner_scope())).await.is_empty());
    assert_eq!(names(admin, &format!("?scope={}&exact=true", one.scope)).await, ["one-thing"]);
    assert_eq!(names(admin, "?name=two-thing&phase=ready").await, ["two-thing"]);
    assert!(names(admin, "?phase=failed").await.is_empty());
    let parent = &one.thing.id;
    let body = json!({"scope": one.scope, "name": "child", "spec": {}, "owner": parent});
    cloud.post(&one.token, "/v1/things", &body).await.ok(201);
    assert_eq!(names(admin, &format!("?owner={parent}")).await, ["child"]);
    cloud.get(admin, &format!("/v1/things?scope={}", model::Id::from_bits("ten", 99))).await.problem(404, "not_found");
}

#[tokio::test]
async fn the_log_is_read_by_page_and_from_its_end() {
    let cloud = Cloud::open().await;
    cloud.quiet().await;
    let token = &cloud.one.token;
    let mut from = 0;
    let mut seen = Vec::new();
    loop {
        let page = cloud.get(token, &format!("/v1/events?limit=3&from={from}")).await.ok(200);
        let items = page["items"].as_array().unwrap().clone();
        if items.is_empty() {
            break;
        }
        seen.extend(items);
        from = page["next"].as_u64().unwrap();
    }
    let sequences: Vec<u64> = seen.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.len() >= 6 && sequences.is_sorted(), "{sequences:?}");
    assert!(seen.iter().all(|event| event["scope"].as_str().unwrap().starts_with(&cloud.one.scope.to_string())));
    let newest = cloud.get(token, "/v1/events?newest=2").await.ok(200);
    assert_eq!(newest["items"].as_array().unwrap()[..], seen[seen.len() - 2..]);
    cloud.get(token, "/v1/events?newest=2&from=1").await.problem(400, "invalid_argument");
    let replay = cloud.send(cloud.request(&cloud.admin, Method::POST, "/v1/admin/replay")).await.ok(200);
    assert_eq!(replay["differences"], json!([]));
}
