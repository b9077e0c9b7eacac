//! No token reaches what is not its own. The first test walks the whole route table.

use control::{Action, Guard, Payload, Route, routes};
use futures::StreamExt;
use http::Method;
use model::Scope;
use serde_json::{Value, json};

use crate::cloud::{self, Cloud, Tenant};
use crate::kinds;

/// The tenant's row that a route of this kind would be about. Rows above tenants are nobody's.
fn victim(cloud: &Cloud, kind: &str, of: &Tenant) -> model::Row {
    let table = cloud.rows.table();
    let org = of.org.inner_scope();
    let theirs = |row: &&std::sync::Arc<model::Row>| {
        let nobodys = row.scope == Scope::CLOUD && row.name == format!("victim-{kind}");
        row.kind == kind && (row.id == of.org.id || org.contains(&row.scope) || nobodys)
    };
    let found = table.iter().find(theirs);
    (***found.as_ref().unwrap_or_else(|| panic!("no row of kind {kind}"))).clone()
}

/// A cloud in which both tenants have a row of every kind that lives at their level, and there is one of every other.
async fn populated() -> Cloud {
    let cloud = Cloud::open().await;
    for kind in kinds::registry().iter().map(|kind| kind.contract()) {
        let name = format!("victim-{}", kind.name);
        if kind.levels == [model::Level::Project] {
            for tenant in [&cloud.one, &cloud.two] {
                cloud::create(&cloud.door, kind.name, &tenant.scope, &name, json!({})).await;
            }
        } else if kind.name == "host" {
            cloud::create(&cloud.door, kind.name, &Scope::CLOUD, &name, json!({})).await;
        }
    }
    cloud.quiet().await;
    cloud
}

/// What a foreigner sends on a route to reach the victim.
async fn attack(cloud: &Cloud, route: &Route, token: &str, of: &Tenant) -> (u16, String) {
    let id = match route.kind {
        Some(kind) => victim(cloud, kind, of).id.to_string(),
        None => String::new(),
    };
    let digest = format!("sha256:{}", "0".repeat(64));
    let mut path = route.path.replace("{id}", &id).replace("{digest}", &digest);
    if route.guard == Guard::ScopeQuery {
        path = format!("{path}?scope={}", of.scope);
    }
    if matches!(route.action, Action::Wait) {
        path += "?timeout_seconds=0";
    }
    let mut request = cloud.request(token, route.method.clone(), &path);
    request = match route.payload {
        Payload::None => request,
        Payload::New => request.json(&json!({"scope": of.scope, "name": "intruder", "spec": {}})),
        Payload::Spec => request.json(&json!({"spec": {"text": "intruder"}})),
        Payload::Blob => request.body("intruder"),
    };
    if matches!(route.action, Action::Stream(contract) if contract.duplex) {
        request = request.header("Connection", "Upgrade").header("Upgrade", "websocket");
        request = request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    }
    // Repeatable verbs take another way in the code when the row is gone.
    if route.mutating {
        request = request.header("Idempotency-Key", "intrusion");
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    // A watch that was let in would not end by itself.
    let mut text = String::new();
    let mut pieces = response.bytes_stream();
    while let Ok(Some(Ok(piece))) = tokio::time::timeout(std::time::Duration::from_secs(2), pieces.next()).await {
        text += &String::from_utf8_lossy(&piece);
    }
    (status, text)
}

#[tokio::test]
async fn a_foreign_token_gets_404_on_every_route_and_changes_nothing() {
    let cloud = populated().await;
    let registry = kinds::registry();
    let before = cloud.quiet().await;
    let two = &cloud.two;
    let secrets =
        [two.org.id.to_string(), two.project.id.to_string(), two.thing.id.to_string(), "secret of two".to_owned()];
    let (outsider, _) = cloud::token(&cloud.door, &cloud.one.org.inner_scope(), "whole-org", json!({})).await;
    let before = before.max(cloud.quiet().await);
    let table = routes(&registry);
    assert!(table.len() > 60, "{}", table.len());
    for token in [&cloud.one.token, &outsider] {
        for route in &table {
            let what = format!("{} {}", route.method, route.path);
            let (status, text) = attack(&cloud, route, token, two).await;
            let expected = match route.guard {
                Guard::Open | Guard::Token => 200,
                // That there is such an answer is no secret; only who may have it.
                Guard::Cloud => 403,
                Guard::Row | Guard::InnerScope | Guard::ScopeQuery | Guard::ScopeBody => 404,
            };
            assert_eq!(status, expected, "{what}: {text}");
            if expected != 404 {
                for secret in &secrets {
                    assert!(!text.contains(secret), "{what} shows {secret}");
                }
            }
            assert!(!text.contains("secret of two"), "{what}: {text}");
        }
    }
    assert_eq!(cloud.quiet().await, before, "nothing was written");
}

#[tokio::test]
async fn without_a_valid_token_only_the_open_routes_answer() {
    let cloud = populated().await;
    let (expired, _) = cloud::token(&cloud.door, &Scope::CLOUD, "expired", json!({"expires_ms": 1})).await;
    let (deleted, id) = cloud::token(&cloud.door, &Scope::CLOUD, "deleted", json!({})).await;
    cloud.get(&deleted, "/v1/whoami").await.ok(200);
    cloud.delete(&cloud.admin, &format!("/v1/tokens/{id}")).await.ok(202);
    let unknown = iam::token::generate();
    let before = cloud.quiet().await;
    for route in routes(&kinds::registry()) {
        for token in ["", &unknown, &expired, &deleted, "nonsense"] {
            let what = format!("{} {} with `{token}`", route.method, route.path);
            let (status, text) = attack(&cloud, &route, token, &cloud.one).await;
            let expected = if route.guard == Guard::Open { 200 } else { 401 };
            assert_eq!(status, expected, "{what}: {text}");
        }
    }
    cloud.get("", "/v1/nothing").await.problem(401, "unauthenticated");
    let refused = cloud.send(cloud.request("", Method::PATCH, "/v1/things")).await;
    refused.problem(401, "unauthenticated");
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    let basic = cloud.request("", Method::GET, "/v1/whoami").header("Authorization", format!("Basic {}", cloud.admin));
    cloud.send(basic).await.problem(401, "unauthenticated");
    let lower = cloud.request("", Method::GET, "/v1/whoami").header("Authorization", format!("bearer {}", cloud.admin));
    cloud.send(lower).await.ok(200);
    assert_eq!(cloud.quiet().await, before);
}

#[tokio::test]
async fn a_read_only_token_reads_and_changes_nothing() {
    let cloud = populated().await;
    let registry = kinds::registry();
    let before = cloud.quiet().await;
    for route in routes(&registry) {
        let what = format!("{} {}", route.method, route.path);
        let (status, text) = attack(&cloud, &route, &cloud.one.read_only, &cloud.one).await;
        if route.mutating {
            let above = route.kind.is_some_and(|kind| ["tenant", "host"].contains(&kind)) && route.guard == Guard::Row;
            assert!(status == 403 || above && status == 404, "{what}: {status} {text}");
        } else if route.guard == Guard::Cloud {
            assert_eq!(status, 403, "{what}");
        } else {
            // A blob that was never uploaded, and nodes, are not there for it.
            let absent = matches!(route.action, Action::HasBlob) || route.kind == Some("host");
            assert!(status == 200 || absent && status == 404, "{what}: {status} {text}");
        }
    }
    assert_eq!(cloud.quiet().await, before, "nothing was written");
}

#[tokio::test]
async fn a_token_sees_its_own_part_of_what_lies_above() {
    let cloud = Cloud::open().await;
    cloud.quiet().await;
    let one = &cloud.one;
    let ids = |answer: Value| -> Vec<String> {
        answer["items"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let list = async |path: &str| ids(cloud.get(&one.token, path).await.ok(200));
    assert_eq!(list("/v1/tenants").await, [one.org.id.to_string()]);
    assert_eq!(list("/v1/areas").await, [one.project.id.to_string()]);
    assert_eq!(
        list(&format!("/v1/areas?scope={}&exact=true", one.org.inner_scope())).await,
        [one.project.id.to_string()]
    );
    assert_eq!(list(&format!("/v1/things?scope={}", one.org.inner_scope())).await, [one.thing.id.to_string()]);
    assert!(list("/v1/hosts").await.is_empty());
    cloud.get(&one.token, &format!("/v1/tenants/{}", one.org.id)).await.ok(200);
    cloud.delete(&one.token, &format!("/v1/tenants/{}", one.org.id)).await.problem(403, "denied");

    // A second project of the same org: its trouble is not told to the first.
    let beside = cloud::create(&cloud.door, "area", &one.org.inner_scope(), "beside", json!({})).await;
    let hidden = cloud::create(&cloud.door, "thing", &beside.inner_scope(), "hidden", json!({"phase": "failed"})).await;
    cloud.quiet().await;
    let why = cloud.get(&one.token, &format!("/v1/tenants/{}/why", one.org.id)).await;
    assert!(!why.text.contains(hidden.id.as_str()), "{}", why.text);
    let why = cloud.get(&cloud.admin, &format!("/v1/tenants/{}/why", one.org.id)).await;
    assert!(why.text.contains(hidden.id.as_str()), "{}", why.text);
    cloud.get(&one.token, &format!("/v1/things/{}", hidden.id)).await.problem(404, "not_found");

    // Nobody makes a row belong to another's.
    let body = json!({"scope": one.scope, "name": "cuckoo", "spec": {}, "owner": cloud.two.thing.id});
    let problem = cloud.post(&one.token, "/v1/things", &body).await.problem(404, "not_found");
    assert_eq!(problem["field"], "owner");
    // Nor a token for more than its own.
    let hash = iam::token::hash(&iam::token::generate());
    for wider in [Scope::CLOUD, one.org.inner_scope()] {
        let body = json!({"scope": wider, "name": "wider", "spec": {"hash": hash}});
        cloud.post(&one.token, "/v1/tokens", &body).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn the_same_token_cannot_be_made_twice() {
    let cloud = Cloud::open().await;
    let hash = iam::token::hash(&cloud.one.token);
    let body = json!({"scope": cloud.two.scope, "name": "thief", "spec": {"hash": hash}});
    cloud.post(&cloud.two.token, "/v1/tokens", &body).await.problem(409, "conflict");
}

#[tokio::test]
async fn who_asks_is_told_what_it_may_know() {
    let cloud = Cloud::open().await;
    let who = cloud.get(&cloud.one.read_only, "/v1/whoami").await.ok(200);
    assert_eq!((&who["name"], &who["read_only"]), (&json!("one-reader"), &json!(true)));
    assert_eq!(who["scope"], cloud.one.scope.to_string());
    assert!(cloud.get(&cloud.one.token, "/v1/info").await.ok(200).get("data_dir").is_none());
    assert_eq!(cloud.get(&cloud.admin, "/v1/info").await.ok(200)["data_dir"], "/somewhere");
    assert_eq!(cloud.get(&cloud.admin, "/v1/config").await.ok(200)[0]["key"], "api.listen");
    let kinds = cloud.get(&cloud.one.token, "/v1/kinds").await.ok(200);
    let thing = kinds.as_array().unwrap().iter().find(|kind| kind["name"] == "thing").unwrap().clone();
    assert_eq!((&thing["plural"], &thing["levels"]), (&json!("things"), &json!(["project"])));
    assert_eq!(thing["streams"][1]["duplex"], true);
}
