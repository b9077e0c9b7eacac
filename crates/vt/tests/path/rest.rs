//! Instances that nobody asks, and the first who asks again.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::Scenario;
use crate::cloud::{Cloud, Ran, qemus};

pub const ALL: &[Scenario] = &[
    ("rest::an_idle_app_sleeps_and_a_request_wakes_it", an_idle_app_sleeps_and_a_request_wakes_it),
    ("rest::sleep_by_hand_outlives_the_program", sleep_by_hand_outlives_the_program),
];

/// An app that rests after four seconds and sleeps two seconds later.
fn idler(cloud: &Cloud, name: &str) -> PathBuf {
    let folder = cloud.app(name, "v1", 1);
    let manifest = cloud.manifest(name, "v1", 1);
    let rests = "scaling = { min = 0, idle_seconds = 4, warm_seconds = 2 }";
    fs::write(folder.join("vt.toml"), manifest.replace("scaling = { min = 1, max = 5 }", rests)).unwrap();
    folder
}

fn instance(cloud: &Cloud, folder: &std::path::Path) -> Value {
    cloud.list(folder, "vm").into_iter().find(|row| row["phase"] != "draining").expect("an instance")
}

#[track_caller]
fn phase(cloud: &Cloud, folder: &std::path::Path, phase: &str) -> Value {
    cloud.eventually(phase, || Some(instance(cloud, folder)).filter(|row| row["phase"] == phase))
}

fn an_idle_app_sleeps_and_a_request_wakes_it(cloud: &Cloud) {
    let folder = idler(cloud, "idler");
    let url = cloud.vt(&folder, &["deploy", "--json"]).ok().json()["url"].as_str().unwrap().to_owned();
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"));
    cloud.vt(&folder, &["exec", "--", "sh", "-c", "echo kept > /run/mark"]).ok();
    let first = instance(cloud, &folder);
    // Who asks keeps it awake.
    for _ in 0..12 {
        assert!(cloud.get(&url).ok().stdout.contains("200 OK"));
        assert_eq!(instance(cloud, &folder)["phase"], "ready");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    phase(cloud, &folder, "warm");
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"), "from standing still");
    let before = qemus(&cloud.data()).len();
    let asleep = phase(cloud, &folder, "sleeping");
    assert_eq!(qemus(&cloud.data()).len(), before - 1, "a sleeping instance has no process");
    assert_eq!(asleep["status"]["boot_id"], first["status"]["boot_id"]);
    let status = cloud.vt(&folder, &["status"]).ok().stdout;
    assert!(status.contains("sleeping"), "{status}");

    // Many at once, one wake; each of them is answered.
    let asking: Vec<_> = (0..8)
        .map(|number| {
            let host = url.trim_start_matches("http://").split(':').next().unwrap();
            let resolve = format!("{host}:{}:127.0.0.1", cloud.http_port);
            let mut curl = std::process::Command::new("curl");
            curl.args(["-s", "-i", "--max-time", "20", "--resolve", &resolve, &format!("{url}/?{number}")]);
            curl.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for curl in asking {
        let answer = Ran::of(curl.wait_with_output().unwrap()).ok().stdout;
        assert!(answer.contains("200 OK"), "{answer}");
    }
    let woken = phase(cloud, &folder, "ready");
    assert_eq!(woken["status"]["began"], "sleep", "{woken}");
    assert_eq!(woken["status"]["boot_id"], first["status"]["boot_id"]);
    assert_eq!(woken["status"]["reboots"], 0);
    let mark = cloud.vt(&folder, &["exec", "--", "cat", "/run/mark"]).ok().stdout;
    assert_eq!(mark, "kept\n", "its memory");

    // What cannot be woken is not accepted.
    let text = fs::read_to_string(folder.join("vt.toml")).unwrap();
    let deaf = text.split("[[processes.web.ports]]").next().unwrap();
    fs::write(folder.join("vt.toml"), deaf).unwrap();
    let refused = cloud.vt(&folder, &["deploy"]).fails(2);
    assert!(refused.stderr.contains("scaling.min"), "{}", refused.stderr);
    cloud.vt(&folder, &["destroy", "--yes"]).ok();
}

fn sleep_by_hand_outlives_the_program(cloud: &Cloud) {
    let folder = cloud.app("sleeper", "v1", 1);
    let url = cloud.vt(&folder, &["deploy", "--json"]).ok().json()["url"].as_str().unwrap().to_owned();
    cloud.vt(&folder, &["exec", "--", "sh", "-c", "echo kept > /run/mark"]).ok();
    let boot = instance(cloud, &folder)["status"]["boot_id"].clone();
    cloud.vt(&folder, &["sleep", "--warm"]).ok();
    assert_eq!(instance(cloud, &folder)["phase"], "warm");
    cloud.vt(&folder, &["wake"]).ok();
    cloud.vt(&folder, &["sleep"]).ok();
    assert_eq!(instance(cloud, &folder)["phase"], "sleeping");
    cloud.kill();
    cloud.up();
    assert_eq!(phase(cloud, &folder, "sleeping")["status"]["boot_id"], boot);
    let answer = cloud.get(&url).ok().stdout;
    assert!(answer.contains("200 OK"), "{answer}");
    let woken = phase(cloud, &folder, "ready");
    assert_eq!((&woken["status"]["boot_id"], &woken["status"]["began"]), (&boot, &Value::from("sleep")));
    assert_eq!(cloud.vt(&folder, &["exec", "--", "cat", "/run/mark"]).ok().stdout, "kept\n");
    // A deploy replaces what sleeps as it replaces what runs.
    cloud.vt(&folder, &["sleep"]).ok();
    fs::write(folder.join("vt.toml"), cloud.manifest("sleeper", "v2", 1)).unwrap();
    cloud.vt(&folder, &["deploy"]).ok();
    let answer = cloud.get(&url).ok().stdout;
    assert!(answer.contains("release v2"), "{answer}");
    cloud.vt(&folder, &["destroy", "--yes"]).ok();
}
