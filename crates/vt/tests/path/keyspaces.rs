//! Key spaces of projects, as etcd's own client sees them.

use std::process::Command;

use serde_json::{Value, json};

use crate::Scenario;
use crate::cloud::{Cloud, Ran, which};
use crate::tenancy::stranger;

pub const ALL: &[Scenario] =
    &[("keyspaces::a_tenant_has_a_store_of_its_own_and_no_more", a_tenant_has_a_store_of_its_own_and_no_more)];

fn etcdctl(cloud: &Cloud, user: &str, token: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &format!("https://127.0.0.1:{}", cloud.keyspace_port)]);
    command.arg("--cacert").arg(cloud.data().join("tls/ca.pem")).args(["--command-timeout", "20s"]);
    command.args(["--user", &format!("{user}:{token}")]).args(arguments);
    Ran::of(command.output().unwrap())
}

fn make(cloud: &Cloud, token: &str, scope: &str, name: &str, spec: Value) -> String {
    let body = json!({ "scope": scope, "name": name, "spec": spec });
    let (status, row) = cloud.api(token, "POST", "/v1/keyspaces", Some(&body));
    assert_eq!(status, 201, "{row}");
    row["id"].as_str().unwrap().to_owned()
}

fn a_tenant_has_a_store_of_its_own_and_no_more(cloud: &Cloud) {
    if which("etcdctl").is_none() {
        println!("skipped: etcdctl is not installed");
        return;
    }
    let admin = cloud.admin();
    let (token, scope) = stranger(cloud);
    let mine = make(cloud, &token, &scope, "config", json!({ "keys": 3, "bytes": 1000 }));
    let (_, projects) = cloud.api(&admin, "GET", "/v1/projects", None);
    let home = projects["items"].as_array().unwrap().iter().find(|row| row["name"] != "elsewhere").unwrap().clone();
    let home = format!("{}/{}", home["scope"].as_str().unwrap(), home["id"].as_str().unwrap());
    let theirs = make(cloud, &admin, &home, "config", json!({}));

    let ctl = |arguments: &[&str]| etcdctl(cloud, &mine, &token, arguments);
    assert_eq!(ctl(&["put", "a", "one"]).ok().stdout, "OK\n");
    assert_eq!(etcdctl(cloud, &theirs, &admin, &["put", "a", "other"]).ok().stdout, "OK\n");
    assert_eq!(ctl(&["get", "a"]).ok().stdout, "a\none\n");
    // Everything, by every way of saying so, is one key; the cloud's rows are none of it.
    for everything in [&["get", "", "--prefix"][..], &["get", "\u{1}", "--from-key"], &["get", "\u{1}", "zzzz"]] {
        assert_eq!(ctl(everything).ok().stdout, "a\none\n", "{everything:?}");
    }
    assert_eq!(ctl(&["del", "", "--prefix"]).ok().stdout, "1\n");
    assert_eq!(etcdctl(cloud, &theirs, &admin, &["get", "a"]).ok().stdout, "a\nother\n");
    let (status, _) = cloud.api(&admin, "GET", "/v1/whoami", None);
    assert_eq!(status, 200, "the cloud's rows are all there");

    // The quota.
    for key in ["1", "2", "3"] {
        ctl(&["put", key, "x"]).ok();
    }
    let full = ctl(&["put", "4", "x"]);
    assert!(full.code != 0 && full.stderr.contains("space exceeded"), "{}", full.stderr);
    ctl(&["put", "3", "y"]).ok();

    // Another's space, an unknown one, a wrong token: the same answer.
    for (user, secret) in
        [(&theirs[..], &token[..]), ("ks_00000000000000000000000000", &token), (&mine, "vt_at_wrong"), ("row", &admin)]
    {
        let refused = etcdctl(cloud, user, secret, &["get", "", "--prefix"]);
        assert!(refused.code != 0 && refused.stderr.contains("authentication failed"), "{user}: {}", refused.stderr);
    }
    // What is the cloud's is not a tenant's to do.
    for arguments in [&["snapshot", "save", "/dev/null"][..], &["user", "list"], &["member", "remove", "1"]] {
        assert_ne!(ctl(arguments).code, 0, "{arguments:?}");
    }
    let (status, gone) = cloud.api(&token, "DELETE", &format!("/v1/keyspaces/{mine}"), None);
    assert!(status < 300, "{gone}");
    cloud.eventually("the key space is gone", || {
        let (status, _) = cloud.api(&token, "GET", &format!("/v1/keyspaces/{mine}"), None);
        (status == 404).then_some(())
    });
    assert_ne!(ctl(&["get", "a"]).code, 0);
    let (status, _) = cloud.api(&admin, "DELETE", &format!("/v1/keyspaces/{theirs}"), None);
    assert!(status < 300);
}
