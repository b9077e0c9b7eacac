//! Releases come and go under load.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::Scenario;
use crate::cloud::{Cloud, Ran, free_port};

pub const ALL: &[Scenario] = &[
    ("rollout::three_instances_roll_and_return_without_a_failed_request", three_instances_roll),
    ("rollout::a_bad_release_returns_to_the_last_good_one", a_bad_release_returns),
    ("rollout::the_newest_of_two_deploys_wins", the_newest_wins),
];

/// A real registry on loopback, ended when dropped.
pub struct Registry {
    child: Child,
    pub port: u16,
}

impl Registry {
    pub fn start(cloud: &Cloud) -> Self {
        let port = free_port();
        let folder = cloud.folder.join("registry");
        fs::create_dir_all(&folder).unwrap();
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            folder.join("blobs").display()
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { child, port };
        cloud.eventually("the registry answers", || {
            (crate::cloud::curl(&[&format!("http://127.0.0.1:{port}/v2/")]).code == 0).then_some(())
        });
        registry
    }

    pub fn push(&self, cloud: &Cloud, tag: &str) -> String {
        let target = format!("127.0.0.1:{}/sample:{tag}", self.port);
        let source = format!("oci:{}:{tag}", cloud.layout.display());
        let copied = Command::new("skopeo")
            .args([
                "copy",
                "-q",
                "--insecure-policy",
                "--dest-tls-verify=false",
                &source,
                &format!("docker://{target}"),
            ])
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        target
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A bounded load on one URL; `end` says how many requests failed of how many.
struct Load(Child);

impl Load {
    fn start(cloud: &Cloud, host: &str, keep_alive: bool) -> Self {
        let mut command = Command::new("ab");
        command.args(["-q", "-r", "-s", "10", "-n", "1000000", "-t", "120", "-c", "4"]);
        if keep_alive {
            command.arg("-k");
        }
        command.args(["-H", &format!("Host: {host}"), &format!("http://127.0.0.1:{}/healthz", cloud.http_port)]);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn end(self) -> (u64, u64) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ran = Ran::of(self.0.wait_with_output().unwrap());
        let number = |name: &str| {
            let line = ran.stdout.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().last().and_then(|word| word.parse().ok()))
        };
        let complete = number("Complete requests:").unwrap_or_else(|| panic!("{}", ran.stdout));
        (complete, number("Failed requests:").unwrap_or(0) + number("Non-2xx responses:").unwrap_or(0))
    }
}

fn three_instances_roll(cloud: &Cloud) {
    let registry = Registry::start(cloud);
    let folder = cloud.app("rolling", "v1", 1);
    let url = cloud.vt(&folder, &["deploy", "--json"]).ok().json()["url"].as_str().unwrap().to_owned();
    cloud.vt(&folder, &["scale", "web=3"]).ok();
    cloud.vt(&folder, &["wait", "rolling"]).ok();
    let mut names = std::collections::BTreeSet::new();
    cloud.eventually("three instances answer", || {
        let answer = cloud.get(&url).ok().stdout.to_ascii_lowercase();
        names.extend(answer.lines().filter_map(|line| line.strip_prefix("x-instance: ").map(str::to_owned)));
        (names.len() == 3).then_some(())
    });
    let host = "rolling-prod.vt.localhost";
    let loads = [Load::start(cloud, host, false), Load::start(cloud, host, true)];
    let image = registry.push(cloud, "v2");
    cloud.vt(&folder, &["deploy", "--image", &image]).ok();
    assert!(cloud.get(&url).ok().stdout.contains("release v2"));
    let releases = cloud.vt(&folder, &["releases"]).ok().stdout;
    assert!(releases.contains("v1") && releases.contains("v2"), "{releases}");
    cloud.vt(&folder, &["rollback"]).ok();
    assert!(cloud.get(&url).ok().stdout.contains("release v1"));
    for load in loads {
        let (complete, failed) = load.end();
        println!("    {complete} requests, {failed} failed");
        assert!(complete > 50, "the load did not load");
        assert_eq!(failed, 0, "of {complete}");
    }
    // The tag moves; the release does not.
    let before =
        cloud.list(&folder, "release").iter().find(|row| row["name"] == "v2").unwrap()["status"]["digest"].clone();
    let layout = format!("oci:{}:v1", cloud.layout.display());
    let moved = Command::new("skopeo")
        .args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", &layout, &format!("docker://{image}")])
        .status()
        .unwrap();
    assert!(moved.success());
    cloud.vt(&folder, &["rollback", "2"]).ok();
    assert!(cloud.get(&url).ok().stdout.contains("release v2"));
    let after =
        cloud.list(&folder, "release").iter().find(|row| row["name"] == "v2").unwrap()["status"]["digest"].clone();
    assert_eq!(before, after);
    cloud.vt(&folder, &["destroy", "--yes"]).ok();
}

fn a_bad_release_returns(cloud: &Cloud) {
    let folder = cloud.app("careful", "v1", 1);
    let url = cloud.vt(&folder, &["deploy", "--json"]).ok().json()["url"].as_str().unwrap().to_owned();
    let bad = format!("oci:{}:exits", cloud.layout.display());
    let ran = cloud.vt(&folder, &["deploy", "--image", &bad]).fails(1);
    assert!(ran.stderr.contains("crash_loop_backoff"), "{}", ran.stderr);
    assert!(cloud.get(&url).ok().stdout.contains("release v1"), "the good release still answers");
    // The failed instance is still there for its log to be read.
    let failed = cloud.list(&folder, "vm").into_iter().find(|row| row["phase"] == "failed").expect("a failed instance");
    let log = cloud.vt(&folder, &["logs", "--vm", failed["name"].as_str().unwrap()]).ok().stdout;
    assert!(log.contains("going down"), "{log}");
    cloud.vt(&folder, &["destroy", "--yes"]).ok();
}

fn the_newest_wins(cloud: &Cloud) {
    let folder = cloud.app("hasty", "v1", 1);
    let spawn = |tag: &str| {
        let image = format!("oci:{}:{tag}", cloud.layout.display());
        let mut command = cloud.command(&folder, &["deploy", "--image", &image]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let first = spawn("v1");
    cloud.eventually("the first deploy rolls", || {
        let listed = cloud.command(&folder, &["deploy", "list", "--json"]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).contains("\"rolling\"").then_some(())
    });
    let second = Ran::of(spawn("v2").wait_with_output().unwrap()).ok();
    let first = Ran::of(first.wait_with_output().unwrap());
    assert_eq!(first.code, 8, "someone else changed it: {}", first.stderr);
    assert!(first.stderr.contains("superseded"), "{}", first.stderr);
    assert!(cloud.get(second.stdout.trim()).ok().stdout.contains("release v2"));
    cloud.vt(&folder, &["destroy", "--yes"]).ok();
}
