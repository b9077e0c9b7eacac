//! The life of one app, as a person lives it.

use crate::Scenario;
use crate::cloud::Cloud;

pub const ALL: &[Scenario] = &[
    ("app::from_an_archive_to_an_answer", from_an_archive_to_an_answer),
    ("app::logs_and_exec", logs_and_exec),
    ("app::secrets_reach_the_guest_and_nothing_else", secrets_reach_the_guest_and_nothing_else),
];

fn from_an_archive_to_an_answer(cloud: &Cloud) {
    let folder = cloud.app("shop", "v1", 1);
    let deployed = cloud.vt(&folder, &["deploy", "--json"]).ok().json();
    let url = deployed["url"].as_str().unwrap();
    assert_eq!(url, format!("http://shop-prod.vt.localhost:{}", cloud.http_port));
    assert!(deployed["release"].as_str().is_some() || deployed["release"].is_object(), "{deployed}");
    assert_eq!(deployed["instances"].as_array().unwrap().len(), 1, "{deployed}");
    let answer = cloud.get(url).ok().stdout;
    assert!(answer.contains("200 OK") && answer.contains("hello from Photon, release v1"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("x-instance: web-1"), "{answer}");
    let status = cloud.vt(&folder, &["status", "--json"]).ok().json();
    assert_eq!(status["url"].as_str(), Some(url));
    assert_eq!(cloud.vt(&folder, &["open"]).ok().stdout.trim(), url);
    let vms = cloud.list(&folder, "vm");
    for key in ["id", "name", "kind", "scope", "version", "phase", "reason"] {
        assert!(vms[0].get(key).is_some(), "{key} in {}", vms[0]);
    }
}

fn logs_and_exec(cloud: &Cloud) {
    let folder = cloud.app("shop", "v1", 1);
    cloud.vt(&folder, &["deploy"]).ok();
    let url = cloud.vt(&folder, &["open"]).ok().stdout.trim().to_owned();
    cloud.get(&format!("{url}/marker-in-the-log")).ok();
    cloud.eventually("the request is in the log", || {
        cloud.vt(&folder, &["logs"]).ok().stdout.contains("marker-in-the-log").then_some(())
    });
    let name = cloud.list(&folder, "vm").into_iter().find(|row| row["phase"] == "ready").unwrap()["name"].clone();
    assert_eq!(cloud.vt(&folder, &["exec", "--", "hostname"]).ok().stdout.trim(), name.as_str().unwrap());
    let ran = cloud.vt(&folder, &["exec", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).fails(7);
    assert_eq!(ran.stdout, "out\n");
    assert!(ran.stderr.contains("err\n"), "{}", ran.stderr);
    cloud.vt(&folder, &["exec", "--", "/no/such/program"]).fails(125);
    let echoed = cloud.vt_with_input(&folder, &["exec", "-i", "--", "cat"], "through and back\n").ok();
    assert_eq!(echoed.stdout, "through and back\n");
    // Many at once, and none gets another's output.
    let running: Vec<_> = (0..6)
        .map(|number| {
            let script = format!("sleep 1; echo session-{number}");
            let mut command = cloud.command(&folder, &["exec", "--", "sh", "-c", &script]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for (number, child) in running.into_iter().enumerate() {
        let done = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), format!("session-{number}\n"));
    }
    // A terminal: `script` gives the command one, as a person's shell does.
    let line = format!("{} exec -it -- sh -c 'stty size; tty'", crate::cloud::VT);
    let mut terminal = std::process::Command::new("script");
    terminal.current_dir(&folder).args(["-qec", &line, "/dev/null"]).stdin(std::process::Stdio::null());
    for (key, value) in cloud.command(&folder, &[]).get_envs() {
        match value {
            Some(value) => terminal.env(key, value),
            None => terminal.env_remove(key),
        };
    }
    let shown = String::from_utf8_lossy(&terminal.output().unwrap().stdout).into_owned();
    assert!(shown.contains("/dev/pts/"), "{shown}");
}

fn secrets_reach_the_guest_and_nothing_else(cloud: &Cloud) {
    const CANARY: &str = "canary-7d1f4c9ab2";
    let folder = cloud.app("keeper", "v1", 1);
    cloud.vt(&folder, &["deploy"]).ok();
    let set = cloud.vt_with_input(&folder, &["secrets", "set", "API_KEY=-"], CANARY).ok();
    assert!(!set.stdout.contains(CANARY) && !set.stderr.contains(CANARY));
    let read = cloud.eventually("an instance with the secret is ready", || {
        let ran = cloud.vt(&folder, &["exec", "--", "cat", "/run/secrets/platform.env"]);
        (ran.code == 0).then_some(ran.stdout)
    });
    assert_eq!(read, format!("# VT_SECRETS_V1\nAPI_KEY={CANARY}\n"));
    let mode = cloud.vt(&folder, &["exec", "--", "stat", "-c", "%a", "/run/secrets/platform.env"]).ok();
    assert_eq!(mode.stdout.trim(), "400");
    let listed = cloud.vt(&folder, &["secrets", "list", "--json"]).ok();
    assert!(listed.stdout.contains("API_KEY") && !listed.stdout.contains(CANARY));
    // Nowhere else: not in events, not in the log, not in any file of the cloud.
    let events = cloud.vt(&folder, &["events", "--json"]).ok();
    assert!(!events.stdout.contains(CANARY));
    let found = std::process::Command::new("grep").args(["-rla", CANARY]).arg(&cloud.folder).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the secret lies in a file in the clear");
    cloud.vt(&folder, &["destroy", "--yes"]).ok();
}
