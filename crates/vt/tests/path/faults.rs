//! What breaks is healed, and the reason is on record.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::Scenario;
use crate::cloud::{Cloud, qemus};

pub const ALL: &[Scenario] = &[
    ("faults::the_guests_process_is_killed", the_guests_process_is_killed),
    ("faults::the_hypervisor_is_killed", the_hypervisor_is_killed),
    ("faults::a_rule_that_someone_took_away_comes_back", a_rule_comes_back),
    ("faults::vt_is_killed_and_takes_its_machines_back", vt_is_killed),
    ("faults::nothing_acknowledged_is_lost_and_rows_equal_the_log", nothing_acknowledged_is_lost),
    ("faults::everything_goes_with_destroy", everything_goes_with_destroy),
];

fn deployed(cloud: &Cloud) -> (std::path::PathBuf, String) {
    let folder = cloud.app("shop", "v1", 1);
    let url = cloud.vt(&folder, &["deploy", "--json"]).ok().json()["url"].as_str().unwrap().to_owned();
    (folder, url)
}

fn vm(cloud: &Cloud, folder: &std::path::Path) -> Value {
    cloud.list(folder, "vm").into_iter().find(|row| row["phase"] == "ready").expect("a ready instance")
}

fn the_guests_process_is_killed(cloud: &Cloud) {
    let (folder, url) = deployed(cloud);
    let before = vm(cloud, &folder);
    let restarts = before["status"]["restarts"].as_u64().unwrap();
    let script =
        "for p in /proc/[0-9]*; do grep -q 'nginx: master' $p/cmdline 2>/dev/null && kill -9 ${p#/proc/}; done; true";
    cloud.vt(&folder, &["exec", "--", "sh", "-c", script]);
    let after = cloud.eventually("the process runs again", || {
        let rows = cloud.list(&folder, "vm");
        let row = rows.into_iter().find(|row| row["id"] == before["id"])?;
        (row["phase"] == "ready" && row["status"]["restarts"].as_u64()? > restarts).then_some(row)
    });
    assert_eq!(after["status"]["boot_id"], before["status"]["boot_id"], "the machine itself went on");
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"));
    let why = cloud.vt(&folder, &["why", before["name"].as_str().unwrap(), "--json"]).ok().stdout;
    assert!(why.contains("workload_exited") || why.contains("workload_crashed"), "{why}");
}

fn the_hypervisor_is_killed(cloud: &Cloud) {
    let (folder, url) = deployed(cloud);
    let before = vm(cloud, &folder);
    let id = before["id"].as_str().unwrap();
    let pid = qemus(&cloud.data())
        .into_iter()
        .find(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(id))
        })
        .expect("the machine's process");
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    let after = cloud.eventually("the machine runs again", || {
        let rows = cloud.list(&folder, "vm");
        let row = rows.into_iter().find(|row| row["id"] == before["id"])?;
        (row["phase"] == "ready" && row["status"]["boot_id"] != before["status"]["boot_id"]).then_some(row)
    });
    assert_eq!(after["status"]["address6"], before["status"]["address6"], "it keeps its address");
    cloud.eventually("the app answers", || cloud.get(&url).ok().stdout.contains("200 OK").then_some(()));
    let why = cloud.vt(&folder, &["why", before["name"].as_str().unwrap(), "--json"]).ok().stdout;
    assert!(why.contains("vmm_killed"), "{why}");
}

fn a_rule_comes_back(cloud: &Cloud) {
    deployed(cloud);
    let table = format!("vt_{}", crate::cloud::tag(&cloud.data()));
    let listed = || {
        let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
        String::from_utf8_lossy(&tables.stdout).lines().any(|line| line == format!("table inet {table}"))
    };
    assert!(listed(), "the project's packets are filtered");
    assert!(Command::new("nft").args(["delete", "table", "inet", &table]).status().unwrap().success());
    cloud.eventually("the table is back", || listed().then_some(()));
}

fn uptime(cloud: &Cloud, folder: &std::path::Path) -> f64 {
    let text = cloud.vt(folder, &["exec", "--", "cat", "/proc/uptime"]).ok().stdout;
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn vt_is_killed(cloud: &Cloud) {
    let (folder, url) = deployed(cloud);
    // An earlier release's machine may still be on its way out.
    cloud.eventually("one machine is left", || (qemus(&cloud.data()).len() == 1).then_some(()));
    let before = vm(cloud, &folder);
    let (machines, up) = (qemus(&cloud.data()), uptime(cloud, &folder));
    assert!(!machines.is_empty());
    cloud.kill();
    assert_eq!(qemus(&cloud.data()), machines, "machines go on");
    cloud.up();
    let after = vm(cloud, &folder);
    assert_eq!((&after["id"], &after["status"]["boot_id"]), (&before["id"], &before["status"]["boot_id"]));
    assert_eq!(qemus(&cloud.data()), machines, "the same processes");
    assert!(uptime(cloud, &folder) > up, "the guest's uptime goes on");
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"));
    // Ended in order, the same holds.
    assert_eq!(cloud.terminate(), 0);
    assert_eq!(qemus(&cloud.data()), machines);
    cloud.up();
    assert_eq!(qemus(&cloud.data()), machines);
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"));
}

/// Writers create apps while `vt` is killed again and again; whatever was acknowledged is there afterwards.
fn nothing_acknowledged_is_lost(cloud: &Cloud) {
    const ROUNDS: usize = 3;
    let admin = cloud.admin();
    let scope = {
        let (_, projects) = cloud.api(&admin, "GET", "/v1/projects?name=default", None);
        format!("{}/{}", projects["items"][0]["scope"].as_str().unwrap(), projects["items"][0]["id"].as_str().unwrap())
    };
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let (api_port, data, admin, scope) = (cloud.api_port, cloud.data(), admin.clone(), scope.clone());
        let writer = std::thread::spawn(move || {
            let mut made = Vec::new();
            for number in 0..10_000 {
                let name = format!("kept-{round}-{number}");
                let body = format!("{{\"scope\":\"{scope}\",\"name\":\"{name}\",\"spec\":{{}}}}");
                let status = Command::new("curl")
                    .args(["-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
                    .arg(data.join("tls/ca.pem"))
                    .args([
                        "-H",
                        &format!("Authorization: Bearer {admin}"),
                        "-H",
                        "Content-Type: application/json",
                        "-d",
                        &body,
                    ])
                    .arg(format!("https://127.0.0.1:{api_port}/v1/apps"))
                    .output()
                    .unwrap();
                if status.stdout != b"201" {
                    break;
                }
                made.push(name);
            }
            made
        });
        std::thread::sleep(std::time::Duration::from_millis(700 + 400 * round as u64));
        cloud.kill();
        let made = writer.join().unwrap();
        assert!(!made.is_empty(), "nothing was written before the kill");
        acknowledged.extend(made);
        cloud.up();
    }
    println!("    {} creates acknowledged over {ROUNDS} kills", acknowledged.len());
    for name in &acknowledged {
        let (_, found) = cloud.api(&admin, "GET", &format!("/v1/apps?name={name}"), None);
        let id = found["items"][0]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{name} was acknowledged and is gone"))
            .to_owned();
        cloud.api(&admin, "DELETE", &format!("/v1/apps/{id}"), None);
    }
    let replay = cloud.vt(&cloud.folder, &["admin", "replay", "--json"]).ok().json();
    assert_eq!(replay["differences"].as_array().map(Vec::len), Some(0), "{replay}");
    assert_eq!(replay["quarantined"].as_array().map(Vec::len), Some(0), "{replay}");
    assert!(replay["events"].as_u64().unwrap() > acknowledged.len() as u64);
}

fn everything_goes_with_destroy(cloud: &Cloud) {
    let (folder, _) = deployed(cloud);
    cloud.vt(&folder, &["destroy", "--yes"]).ok();
    cloud.eventually("the machine is gone", || qemus(&cloud.data()).is_empty().then_some(()));
    let tag = crate::cloud::tag(&cloud.data());
    cloud.eventually("no device is left", || {
        let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
        (!String::from_utf8_lossy(&links.stdout).contains(&format!("vt{tag}p"))).then_some(())
    });
    // Of the whole cloud: no other scenario leaves a machine behind.
    for path in ["/v1/vms", "/v1/routes", "/v1/deploys", "/v1/apps?name=shop"] {
        let (_, rows) = cloud.api(&cloud.admin(), "GET", path, None);
        assert_eq!(rows["items"].as_array().map(Vec::len), Some(0), "{path}: {rows}");
    }
    let left = fs::read_dir(cloud.data().join("vms"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("vm_"))
        .count();
    assert_eq!(left, 0, "a machine's folder is left");
}
