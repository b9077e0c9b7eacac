//! Nobody reaches what is not theirs: over the API, and over the network.

use serde_json::{Value, json};

use crate::Scenario;
use crate::cloud::{Cloud, curl};

pub const ALL: &[Scenario] = &[
    ("tenancy::every_route_is_closed_to_another_tenant", every_route_is_closed),
    ("tenancy::no_packets_between_projects", no_packets_between_projects),
];

const TEXT: &str = "vt_at_BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

/// Another org with a project and a token of its own: the token, and the project's scope.
pub fn stranger(cloud: &Cloud) -> (String, String) {
    let admin = cloud.admin();
    let make = |path: &str, body: Value| {
        let (status, row) = cloud.api(&admin, "POST", path, Some(&body));
        assert!(status == 201 || status == 409, "{row}");
        row
    };
    make("/v1/orgs", json!({ "scope": "", "name": "stranger", "spec": {} }));
    let (_, orgs) = cloud.api(&admin, "GET", "/v1/orgs?name=stranger", None);
    let org = orgs["items"][0]["id"].as_str().unwrap().to_owned();
    make("/v1/projects", json!({ "scope": org, "name": "elsewhere", "spec": {} }));
    let (_, projects) = cloud.api(&admin, "GET", &format!("/v1/projects?scope={org}"), None);
    let project = projects["items"][0]["id"].as_str().unwrap();
    let hash = std::process::Command::new("sh")
        .args(["-c", &format!("printf %s {TEXT} | sha256sum | cut -d' ' -f1")])
        .output()
        .unwrap();
    let hash = format!("sha256:{}", String::from_utf8_lossy(&hash.stdout).trim());
    make("/v1/tokens", json!({ "scope": org, "name": "strangers", "spec": { "hash": hash } }));
    (TEXT.to_owned(), format!("{org}/{project}"))
}

fn every_route_is_closed(cloud: &Cloud) {
    let folder = cloud.app("shop", "v1", 1);
    cloud.vt(&folder, &["deploy"]).ok();
    let (token, _) = stranger(cloud);
    let (status, me) = cloud.api(&token, "GET", "/v1/whoami", None);
    assert_eq!(status, 200, "{me}");
    let document = curl(&["-k", &format!("https://127.0.0.1:{}/openapi.json", cloud.api_port)]).ok().json();
    let admin = cloud.admin();
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let Some(rest) = path.strip_prefix("/v1/") else { continue };
        let plural = rest.split('/').next().unwrap();
        if !path.contains("{id}") || plural == "admin" {
            continue;
        }
        // An id that is there, and is the first tenant's.
        let (_, rows) = cloud.api(&admin, "GET", &format!("/v1/{plural}"), None);
        let foreign = rows["items"].as_array().and_then(|rows| {
            rows.iter()
                .find(|row| row["name"] != "stranger" && row["name"] != "elsewhere" && row["name"] != "strangers")
        });
        let Some(foreign) = foreign else { continue };
        let before = foreign["version"].clone();
        let id = foreign["id"].as_str().unwrap();
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            if !["GET", "PUT", "DELETE", "POST", "HEAD"].contains(&method.as_str()) {
                continue;
            }
            let full = path
                .replace("{id}", id)
                .replace("{digest}", &format!("sha256:{}", "0".repeat(64)))
                .replace("{hex}", &"0".repeat(64));
            let body = (method == "PUT" || method == "POST").then(|| json!({ "spec": {} }));
            let method = if method == "HEAD" { "GET".to_owned() } else { method };
            let (status, problem) = cloud.api(&token, &method, &full, body.as_ref());
            // A stream asks for its upgrade before anything else only after it has asked who is there.
            assert!(status == 404 || status == 405, "{method} {full}: {status} {problem}");
            tried += 1;
        }
        let (_, after) = cloud.api(&admin, "GET", &format!("/v1/{plural}/{id}"), None);
        assert_eq!(after["version"], before, "{plural} changed");
    }
    assert!(tried > 50, "only {tried} routes were tried");
    for plural in ["apps", "envs", "vms", "releases", "deploys", "routes", "secrets", "nodes"] {
        let (status, rows) = cloud.api(&token, "GET", &format!("/v1/{plural}"), None);
        assert_eq!((status, rows["items"].as_array().map(Vec::len)), (200, Some(0)), "{plural}: {rows}");
    }
    // Nor may it make anything there.
    let scope = cloud.list(&folder, "app")[0]["scope"].clone();
    let (status, _) =
        cloud.api(&token, "POST", "/v1/apps", Some(&json!({ "scope": scope, "name": "mole", "spec": {} })));
    assert_eq!(status, 404);
}

fn no_packets_between_projects(cloud: &Cloud) {
    let folder = cloud.app("shop", "v1", 1);
    cloud.vt(&folder, &["deploy"]).ok();
    let victim = cloud.list(&folder, "vm")[0]["status"].clone();
    let (four, six) = (victim["address4"].as_str().unwrap(), victim["address6"].as_str().unwrap());
    let (token, scope) = stranger(cloud);
    let mut names = scope.split('/');
    let other = cloud.app("mole", "v1", 1);
    let as_stranger = |arguments: &[&str]| {
        let mut command = cloud.command(&other, arguments);
        command.env("VT_TOKEN", &token).env("VT_ORG", "stranger").env("VT_PROJECT", "elsewhere");
        crate::cloud::Ran::of(command.output().unwrap())
    };
    let _ = names.next();
    as_stranger(&["deploy"]).ok();
    // It reaches itself by its own address, so the network works; the other project does not answer.
    let ask = |address: &str| {
        let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 8080");
        as_stranger(&["exec", "--", "sh", "-c", &script])
    };
    let own = as_stranger(&["vm", "list", "--json"]).ok().json()["items"][0]["status"].clone();
    for address in [own["address4"].as_str().unwrap(), own["address6"].as_str().unwrap()] {
        assert!(ask(address).stdout.contains("hello from Photon"), "{address} is its own");
    }
    for address in [four, six] {
        let reached = ask(address);
        assert!(!reached.stdout.contains("hello"), "{address} was reached: {}", reached.stdout);
    }
    as_stranger(&["destroy", "--yes"]).ok();
}
