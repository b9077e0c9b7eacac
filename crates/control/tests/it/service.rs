//! The service as a whole: TLS, the address, the open answers, the document.

use control::{Config, Error, Parts, Service, openapi, routes};
use http::Method;
use serde_json::{Value, json};

use crate::cloud::{Blobs, Cloud};
use crate::kinds;

#[tokio::test]
async fn the_open_answers() {
    let cloud = Cloud::open().await;
    cloud.quiet().await;
    assert_eq!(cloud.get("", "/health").await.ok(200)["status"], "up");
    assert_eq!(cloud.get("", "/ready").await.ok(200)["status"], "ready");
    assert_eq!(cloud.get("", "/version").await.ok(200), json!({"version": "0.1.0", "api": "v1"}));
    assert_eq!(cloud.get("", "/openapi.json").await.ok(200), openapi(&kinds::registry()));
    let metrics = cloud.get("", "/metrics").await;
    for line in [
        "vt_api_requests_total{method=\"GET\",route=\"/health\",status=\"200\"} 1",
        "vt_rows{kind=\"thing\",phase=\"ready\"} 2",
        "vt_build_info{version=\"0.1.0\"} 1",
        "# TYPE vt_uptime_seconds gauge",
    ] {
        assert!(metrics.text.lines().any(|found| found == line), "{line} in\n{}", metrics.text);
    }
}

#[tokio::test]
async fn curl_trusts_the_authority_and_nothing_else() {
    let cloud = Cloud::open().await;
    let url = format!("{}/v1/whoami", cloud.base);
    let curl = |extra: Vec<String>| {
        let arguments = ["-sS", "--max-time", "30"].map(str::to_owned).into_iter().chain(extra);
        world::process::Run::new("curl").args(arguments.chain([url.clone()])).output()
    };
    let ca = cloud.ca.display().to_string();
    let token = format!("Authorization: Bearer {}", cloud.admin);
    let trusted = curl(vec!["--cacert".into(), ca.clone(), "-H".into(), token.clone()]).await;
    if matches!(trusted, Err(world::process::Error::Missing { .. })) {
        println!("skipped: curl is not installed");
        return;
    }
    let who: Value = serde_json::from_slice(&trusted.unwrap()).unwrap();
    assert_eq!(who["name"], "admin");
    let old = vec!["--cacert".into(), ca.clone(), "--http1.1".into(), "-H".into(), token];
    assert!(curl(old).await.is_ok());
    let untrusted = curl(Vec::new()).await.unwrap_err().to_string();
    assert!(untrusted.contains("certificate"), "{untrusted}");
    let plain = format!("http://localhost:{}/health", cloud.handle.addr.port());
    let plain = world::process::Run::new("curl").args(["-sS", "--max-time", "30", &plain]).output().await;
    assert!(plain.is_err(), "no plain text");
}

#[tokio::test]
async fn a_taken_address_names_the_setting() {
    let cloud = Cloud::open().await;
    let folder = tempfile::tempdir().unwrap();
    let (rows, changes) = reconcile::Rows::follow(cloud.door.store().clone()).await.unwrap();
    let parts = Parts {
        door: cloud.door.clone(),
        rows,
        changes,
        uploads: std::sync::Arc::new(Blobs::default()),
        info: std::sync::Arc::new(|| json!({})),
        config: std::sync::Arc::new(|| json!([])),
        ca: iam::Ca::open_or_create(folder.path(), world::Clock::real()).unwrap(),
        version: String::new(),
    };
    let error = Service::open(Config::new(cloud.handle.addr), parts).await.unwrap_err();
    assert!(matches!(error, Error::ListenTaken { .. }));
    assert!(error.to_string().contains("api.listen") && error.to_string().contains(&cloud.handle.addr.to_string()));
}

#[tokio::test]
async fn a_stopped_service_lets_present_requests_end_and_frees_its_address() {
    let cloud = Cloud::open().await;
    let path = format!("/v1/things/{}/wait?for=gone&timeout_seconds=60", cloud.one.thing.id);
    let waiting = tokio::spawn(cloud.request(&cloud.one.token, Method::GET, &path).send());
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let address = cloud.handle.addr;
    let Cloud { handle, .. } = cloud;
    handle.shutdown().await;
    assert_eq!(waiting.await.unwrap().unwrap().status(), 503);
    drop(tokio::net::TcpListener::bind(address).await.unwrap());
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(target)) = object.get("$ref") {
                found.push(target.clone());
            }
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_document_covers_every_route_and_its_references_resolve() {
    let registry = kinds::registry();
    let document = openapi(&registry);
    assert_eq!(document, openapi(&registry), "the same registry gives the same document");
    let mut ids = std::collections::BTreeSet::new();
    for route in routes(&registry) {
        let operation = &document["paths"][&route.path][route.method.as_str().to_lowercase()];
        assert!(operation["responses"][route.success.to_string()].is_object(), "{} {}", route.method, route.path);
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
        let open = operation.get("security") == Some(&json!([]));
        assert_eq!(open, route.guard == control::Guard::Open, "{}", route.path);
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap_or_else(|| panic!("{target} leads outside"));
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["thing.spec"]["properties"]["part"]["$ref"], "#/components/schemas/thing.spec.Part");
    let body = &document["paths"]["/v1/things"]["post"]["requestBody"]["content"]["application/json"];
    assert_eq!(body["example"]["spec"], json!({"text": "hello"}));
    assert!(!document.to_string().contains("$defs"));
}

#[test]
fn two_routes_never_share_a_path_and_verb() {
    let mut seen = std::collections::BTreeSet::new();
    for route in routes(&kinds::registry()) {
        assert!(seen.insert((route.path.clone(), route.method.to_string())));
        assert!(route.path.starts_with("/v1/") || route.guard == control::Guard::Open, "{}", route.path);
        assert_eq!(
            route.mutating && route.method == Method::GET,
            matches!(route.action, control::Action::Stream(_)) && route.mutating
        );
    }
}
