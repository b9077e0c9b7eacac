//! etcd's own client, where it stays and watches, and where it meets several members. What it prints of single requests is
//! compared next to the door (`tests/it/door_etcdctl.rs`).

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::program::{output, servers};
use crate::servers::{Server, chainfire, etcd};

const LINE_WAIT: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn is_missing() -> bool {
    let reason = etcd::is_missing().or_else(|| {
        let found = std::process::Command::new("etcdctl").arg("version").env("ETCDCTL_API", "3").output();
        found.is_err().then(|| "no etcdctl (Debian package etcd-client)".to_owned())
    });
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}

fn etcdctl(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &server.endpoint]).args(arguments);
    command
}

async fn say(server: &Server, arguments: &[&str]) -> String {
    output(&mut etcdctl(server, arguments)).await
}

/// An etcdctl that goes on.
struct Going {
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Going {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut command = etcdctl(server, arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().expect("etcdctl");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { lines, child }
    }

    async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let line = timeout(LINE_WAIT, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{count} lines, and there are {lines:?}"));
            lines.push(line.expect("output").expect("it goes on"));
        }
        lines
    }

    /// As a supervisor ends it. The keyboard's signal is ignored in whatever a script started in the background.
    async fn terminate(mut self) {
        let id = self.child.id().expect("it runs").to_string();
        output(Command::new("kill").args(["-TERM", &id])).await;
        let _ = timeout(LINE_WAIT, self.child.wait()).await.expect("it ends");
    }
}

/// Words that are the server's own ids in hexadecimal.
fn plain(text: &str) -> String {
    let is_id = |word: &str| word.len() >= 12 && word.chars().all(|c| c.is_ascii_hexdigit());
    let mut plain = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let letters = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        plain.push_str(&if is_id(letters) { word.replace(letters, "ID") } else { word.to_owned() });
    }
    plain
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let until = Instant::now() + LINE_WAIT;
    while !holds().await {
        assert!(Instant::now() < until, "{what}");
        sleep(LOOK_EVERY).await;
    }
}

async fn watched(server: &Server) -> Vec<String> {
    let mut past = Vec::new();
    say(server, &["put", "w/0", "before"]).await;
    for revision in ["1", "2"] {
        let mut from = Going::start(server, &["watch", "--prefix", "", "--rev", revision]);
        // What etcd had to write to show that it is up comes first.
        while from.lines(1).await != ["before"] {}
        from.terminate().await;
    }
    let mut going = Going::start(server, &["watch", "--prefix", "w/", "--prev-kv", "--rev", "1"]);
    past.extend(going.lines(3).await);
    say(server, &["put", "w/a", "1"]).await;
    say(server, &["put", "w/a", "2"]).await;
    say(server, &["del", "w/", "--prefix"]).await;
    // Key and value of each put and what was there before, and twice key and value of each of two deletes.
    past.extend(going.lines(3 + 5 + 2 * 5).await);
    going.terminate().await;
    past
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_print_what_happens() {
    if is_missing() {
        return;
    }
    let mut expected = None;
    for (name, server) in servers().await {
        let told = watched(&server).await;
        let expected = expected.get_or_insert_with(|| told.clone());
        assert_eq!(told, *expected, "{name}");
    }
}

async fn locked_and_elected(server: &Server) -> Vec<String> {
    let mut told = Vec::new();
    let mut lock = Going::start(server, &["lock", "mine"]);
    told.extend(lock.lines(1).await.iter().map(|line| plain(line)));
    let mut second = Going::start(server, &["lock", "mine"]);
    until("somebody waits for the lock", async || {
        say(server, &["get", "mine", "--prefix", "--keys-only"])
            .await
            .lines()
            .filter(|line| line.starts_with("mine"))
            .count()
            == 2
    })
    .await;
    lock.terminate().await;
    told.extend(second.lines(1).await.iter().map(|line| plain(line)));
    second.terminate().await;
    told.push(say(server, &["lock", "mine", "echo", "held"]).await);
    let mut leader = Going::start(server, &["elect", "boss", "one"]);
    told.extend(leader.lines(2).await.iter().map(|line| plain(line)));
    let mut listener = Going::start(server, &["elect", "boss", "-l"]);
    told.extend(listener.lines(2).await.iter().map(|line| plain(line)));
    let mut next = Going::start(server, &["elect", "boss", "two"]);
    leader.terminate().await;
    told.extend(next.lines(2).await.iter().map(|line| plain(line)));
    told.extend(listener.lines(2).await.iter().map(|line| plain(line)));
    listener.terminate().await;
    next.terminate().await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_and_elections_go_from_one_to_the_next() {
    if is_missing() {
        return;
    }
    let mut expected = None;
    for (name, server) in servers().await {
        let told = locked_and_elected(&server).await;
        let expected = expected.get_or_insert_with(|| told.clone());
        assert_eq!(told, *expected, "{name}");
    }
}

async fn kept_alive(server: &Server) -> Vec<String> {
    let granted = say(server, &["lease", "grant", "2"]).await;
    let id = granted.split(' ').nth(1).expect("lease ID granted ...").to_owned();
    say(server, &["put", "leased", "1", "--lease", &id]).await;
    let mut told = vec![plain(&granted), plain(&say(server, &["lease", "keep-alive", "--once", &id]).await)];
    let mut alive = Going::start(server, &["lease", "keep-alive", &id]);
    told.extend(alive.lines(4).await.iter().map(|line| plain(line)));
    told.push(say(server, &["get", "leased"]).await);
    alive.terminate().await;
    until("the lease runs out", async || say(server, &["get", "leased"]).await.is_empty()).await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lives_as_long_as_it_is_kept_alive() {
    if is_missing() {
        return;
    }
    let mut expected = None;
    for (name, server) in servers().await {
        let told = kept_alive(&server).await;
        let expected = expected.get_or_insert_with(|| told.clone());
        assert_eq!(told, *expected, "{name}");
    }
}

/// How fast is not asked here: the load goes through without an error.
#[tokio::test(flavor = "multi_thread")]
async fn check_perf_goes_through() {
    if is_missing() {
        return;
    }
    let server = chainfire::embedded().await.expect("a door");
    let mut command = etcdctl(&server, &["check", "perf", "--load", "s", "--auto-compact", "--auto-defrag"]);
    let done = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("etcdctl");
    let said = [&done.stdout[..], &done.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(said.contains("Throughput") && said.contains("Slowest request"), "{said}");
    assert!(!said.contains("rpc error"), "{said}");
    let left = say(&server, &["get", "/etcdctl-check-perf/", "--prefix", "--keys-only", "--limit", "1"]).await;
    assert_eq!(left, "", "it tidied up after itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_etcd_is_made_and_kept() {
    if is_missing() {
        return;
    }
    let from = etcd::start().await.expect("etcd");
    let to = chainfire::embedded().await.expect("a door");
    for n in 0..20 {
        say(&from, &["put", &format!("m/{n:02}"), "1"]).await;
    }
    let destination = to.endpoint.trim_start_matches("http://").to_owned();
    let mirror = Going::start(&from, &["make-mirror", "--prefix", "m/", &destination]);
    let all = say(&from, &["get", "m/", "--prefix"]).await;
    until("what is there is copied", async || say(&to, &["get", "m/", "--prefix"]).await == all).await;
    say(&from, &["put", "m/00", "2"]).await;
    say(&from, &["del", "m/01"]).await;
    let all = say(&from, &["get", "m/", "--prefix"]).await;
    until("what happens is followed", async || say(&to, &["get", "m/", "--prefix"]).await == all).await;
    mirror.terminate().await;
}

/// The status of each endpoint: its address, and whether it leads.
async fn leads(servers: &[Server]) -> Vec<bool> {
    let mut leads = Vec::new();
    for server in servers {
        let status = say(server, &["endpoint", "status"]).await;
        let word = status.trim().split(", ").nth(4).expect("address, id, version, size, leader ...").to_owned();
        leads.push(word == "true");
    }
    leads
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_goes_from_member_to_member() {
    if is_missing() {
        return;
    }
    let servers = chainfire::three().await.expect("three members");
    until("all have told what they are called", async || {
        say(&servers[0], &["member", "list"]).await.matches(", started, ").count() == 3
    })
    .await;
    for (n, server) in servers.iter().enumerate() {
        say(server, &["put", &format!("by/{n}"), "1"]).await;
        for other in &servers {
            assert!(say(other, &["get", &format!("by/{n}")]).await.contains("by/"), "all of them have it at once");
        }
    }
    for _ in 0..3 {
        let before = leads(&servers).await;
        let leader = before.iter().position(|leads| *leads).expect("somebody leads");
        let next = (leader + 1) % servers.len();
        let status = say(&servers[next], &["endpoint", "status"]).await;
        let id = status.split(", ").nth(1).expect("an id").to_owned();
        let moved = say(&servers[leader], &["move-leader", &id]).await;
        assert!(moved.starts_with("Leadership transferred from "), "{moved}");
        until("the next one leads", async || leads(&servers).await[next]).await;
        say(&servers[leader], &["put", "after", "1"]).await;
    }
    // It fails when one is not healthy.
    say(&servers[0], &["endpoint", "health", "--cluster"]).await;
    let hashes: Vec<String> = {
        let mut hashes = Vec::new();
        for server in &servers {
            let hash = say(server, &["endpoint", "hashkv"]).await;
            hashes.push(hash.split(", ").nth(1).expect("address, hash").to_owned());
        }
        hashes
    };
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "all have the same: {hashes:?}");
}
