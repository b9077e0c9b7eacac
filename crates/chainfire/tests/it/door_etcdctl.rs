//! The door against etcd itself, both asked by etcd's own client: what it prints must be the same.

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use chainfire::door::Options;

use crate::door_support::{Door, serve_with};

fn missing(program: &str) -> bool {
    let missing = Command::new(program).arg("--version").output().is_err();
    if missing {
        println!("skipped: {program} is not installed");
    }
    missing
}

/// A real etcd on free ports; ended when dropped.
struct Etcd {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Etcd {
    async fn start() -> Self {
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (client, peer) = (port(), port());
        let folder = tempfile::tempdir().unwrap();
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(["--name", "solo", "--initial-cluster", &format!("solo={peer}")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { process, address: client.trim_start_matches("http://").to_owned(), _folder: folder };
        while !ctl(&etcd.address, &["get", "x"], "").await.status.success() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        etcd
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn ctl(address: &str, arguments: &[&str], input: &str) -> Output {
    use tokio::io::AsyncWriteExt;
    let mut process = tokio::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", address])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    tokio::time::timeout(Duration::from_mins(1), process.wait_with_output()).await.expect("etcdctl ends").unwrap()
}

/// Without what differs between any two clusters: addresses, ids, and the client's own log lines.
fn plain(address: &str, output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    let lines = text.lines().filter(|line| !line.starts_with('{') || !line.contains("\"level\""));
    let text = lines.collect::<Vec<_>>().join("\n").replace(address, "ADDRESS");
    // etcd counts its own election.
    let text = text.replace("\"raft_term\":2", "\"raft_term\":1").replace("\"RaftTerm\" : 2", "\"RaftTerm\" : 1");
    let mut plain = format!("exit {}\n", output.status.code().unwrap_or(-1));
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let letters = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let id = letters.len() >= 12 && letters.chars().all(|c| c.is_ascii_hexdigit());
        plain.push_str(&if id { word.replace(letters, "ID") } else { word.to_owned() });
    }
    plain
}

async fn both() -> (Door, Etcd) {
    let options = Options { password_rounds: 1000, ..Options::new(["http://127.0.0.1:0".into()]) };
    (serve_with(options).await, Etcd::start().await)
}

async fn same(door: &Door, etcd: &Etcd, steps: &[(&str, &str)]) {
    for (line, input) in steps {
        let arguments: Vec<&str> = line.split(' ').map(|word| if word == "''" { "" } else { word }).collect();
        let (ours, theirs) = (door.address(), &etcd.address);
        let ours = plain(&ours, &ctl(&ours, &arguments, input).await);
        let theirs = plain(theirs, &ctl(theirs, &arguments, input).await);
        assert_eq!(ours, theirs, "etcdctl {line}");
    }
}

#[tokio::test]
async fn keys_transactions_leases_and_compaction_print_the_same() {
    if missing("etcd") || missing("etcdctl") {
        return;
    }
    let (door, etcd) = both().await;
    let txn = "value(\"a\") = \"1\"\nmod(\"b\") > \"1\"\n\nput c 3\nget --prefix a\ndel b\n\nput d 4\n\n";
    same(
        &door,
        &etcd,
        &[
            ("put a 1", ""),
            ("put a 2 --prev-kv", ""),
            ("put b", "from standard input"),
            ("get a -w json", ""),
            ("get a b -w fields", ""),
            ("get --prefix '' --keys-only", ""),
            ("get --from-key a --limit 1 -w json", ""),
            ("get --prefix '' --sort-by modify --order descend", ""),
            ("get --prefix '' --sort-by value --count-only -w fields", ""),
            ("get a --rev 2", ""),
            ("get a --rev 99", ""),
            ("get b a", ""),
            ("put nothing --ignore-value", ""),
            ("put a --ignore-value", ""),
            ("txn -i", txn),
            ("txn -i", txn),
            ("txn", "\nput x 1\nput x 2\n\n\n"),
            ("del b c --prev-kv", ""),
            ("del b a", ""),
            ("del --prefix a -w json", ""),
            ("put k v --lease 123", ""),
            ("lease revoke 123", ""),
            ("lease timetolive 123", ""),
            ("lease keep-alive --once 123", ""),
            ("lease list", ""),
            ("compaction 5", ""),
            ("compaction 5", ""),
            ("compaction 500", ""),
            ("get a --rev 3", ""),
            ("watch a --rev 3", ""),
            ("del --prefix ''", ""),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_cluster_and_its_upkeep_print_the_same() {
    if missing("etcd") || missing("etcdctl") {
        return;
    }
    let (door, etcd) = both().await;
    same(
        &door,
        &etcd,
        &[
            ("alarm list", ""),
            ("alarm disarm", ""),
            ("defrag", ""),
            ("move-leader 8e9e05c52164694d", ""),
            ("member promote 8e9e05c52164694d", ""),
            ("member remove 8e9e05c52164694d", ""),
            ("member update 8e9e05c52164694d --peer-urls=http://127.0.0.1:1", ""),
            ("member add x --peer-urls=nonsense", ""),
        ],
    )
    .await;
    let address = door.address();
    let text = |output: Output| String::from_utf8(output.stdout).unwrap();
    let health = ctl(&address, &["endpoint", "health"], "").await;
    let health = [&health.stdout[..], &health.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(health.contains("is healthy"), "{health}");
    let status = text(ctl(&address, &["endpoint", "status"], "").await);
    assert!(status.contains(Options::VERSION) && status.contains(", true, false,"), "{status}");
    assert!(text(ctl(&address, &["endpoint", "hashkv"], "").await).starts_with(&address));
    let members = text(ctl(&address, &["member", "list"], "").await);
    assert!(members.contains(", started, solo, "), "{members}");
    let add = ctl(&address, &["member", "add", "x", "--peer-urls=http://127.0.0.1:1"], "").await;
    assert!(String::from_utf8(add.stderr).unwrap().contains("this store has one member"));
    let scale = text(ctl(&address, &["check", "datascale", "--load", "s"], "").await);
    assert!(scale.contains("PASS"), "{scale}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    ctl(&address, &["put", "in-the-snapshot", "yes"], "").await;
    let saved = ctl(&address, &["snapshot", "save", file.to_str().unwrap()], "").await;
    assert!(saved.status.success(), "{saved:?}");
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(bytes.len() % 512, 32, "whole blocks and a digest");
    assert!(bytes.windows(15).any(|window| window == b"in-the-snapshot"));
}

#[tokio::test]
async fn users_and_roles_print_the_same_and_hold_the_same_back() {
    if missing("etcd") || missing("etcdctl") {
        return;
    }
    let (door, etcd) = both().await;
    same(
        &door,
        &etcd,
        &[
            ("auth enable", ""),
            ("user add root:rootpw", ""),
            ("user add root:rootpw", ""),
            ("user add :x", ""),
            ("auth enable", ""),
            ("user grant-role root nothing", ""),
            ("role add root", ""),
            ("user grant-role root root", ""),
            ("user grant-role nobody root", ""),
            ("user add alice:pw", ""),
            ("user add bob --no-password", ""),
            ("role add reader", ""),
            ("role add reader", ""),
            ("role add writer", ""),
            ("role grant-permission reader read a c", ""),
            ("role grant-permission writer readwrite w --prefix", ""),
            ("role grant-permission writer write b", ""),
            ("role grant-permission writer write z a", ""),
            ("role grant-permission nothing write z", ""),
            ("role get reader", ""),
            ("role get writer", ""),
            ("role get nothing", ""),
            ("role list", ""),
            ("user grant-role alice reader", ""),
            ("user grant-role alice writer", ""),
            ("user get alice", ""),
            ("user get alice --detail", ""),
            ("user get nobody", ""),
            ("user list", ""),
            ("put a 1", ""),
            ("auth enable", ""),
            ("auth enable", ""),
            ("put a 1", ""),
            ("get a", ""),
            ("--user alice:wrong get a", ""),
            ("--user nobody:pw get a", ""),
            ("--user bob:pw get a", ""),
            ("--user alice:pw get a", ""),
            ("--user alice:pw get a c", ""),
            ("--user alice:pw get a d", ""),
            ("--user alice:pw get --prefix ''", ""),
            ("--user alice:pw put a 2", ""),
            ("--user alice:pw put b 2", ""),
            ("--user alice:pw put b 3 --prev-kv", ""),
            ("--user alice:pw put x 3", ""),
            ("--user alice:pw put w1 3", ""),
            ("--user alice:pw del w --prefix", ""),
            ("--user alice:pw del a", ""),
            ("--user alice:pw txn", "\nput b 1\n\nput x 1\n\n"),
            ("--user alice:pw txn", "value(\"x\") = \"1\"\n\nput b 1\n\n\n"),
            ("--user alice:pw txn", "\nput b 1\nget a c\n\n\n"),
            ("--user alice:pw watch x", ""),
            ("--user alice:pw user list", ""),
            ("--user alice:pw user get alice", ""),
            ("--user alice:pw user get root", ""),
            ("--user alice:pw role get reader", ""),
            ("--user alice:pw role get root", ""),
            ("--user alice:pw defrag", ""),
            ("--user alice:pw member add x --peer-urls=http://127.0.0.1:1", ""),
            ("--user alice:pw auth disable", ""),
            ("--user root:rootpw user delete root", ""),
            ("--user root:rootpw user revoke-role root root", ""),
            ("--user root:rootpw role delete root", ""),
            ("--user root:rootpw put anything 1", ""),
            ("--user root:rootpw role revoke-permission writer b", ""),
            ("--user root:rootpw role revoke-permission writer b", ""),
            ("--user alice:pw put b 2", ""),
            ("--user root:rootpw user revoke-role alice reader", ""),
            ("--user root:rootpw user revoke-role alice reader", ""),
            ("--user alice:pw get a", ""),
            ("--user root:rootpw user passwd alice --interactive=false", "new\n"),
            ("--user alice:pw get w", ""),
            ("--user alice:new get w", ""),
            ("--user root:rootpw role delete writer", ""),
            ("--user alice:new get w", ""),
            ("--user root:rootpw user get alice", ""),
            ("--user root:rootpw user delete alice", ""),
            ("--user alice:new get w", ""),
            ("--user root:rootpw auth disable", ""),
            ("get a", ""),
            ("--user root:rootpw get a", ""),
        ],
    )
    .await;
}

/// Status and body of a request in JSON.
async fn post(address: &str, path: &str, body: &str) -> (String, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].to_owned(), body.to_owned())
}

/// Without ids and terms, and with fields in alphabetical order.
fn sorted(body: &str) -> serde_json::Value {
    fn walk(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                for id in ["cluster_id", "member_id", "raft_term"] {
                    fields.remove(id);
                }
                fields.values_mut().for_each(walk);
                fields.sort_keys();
            }
            serde_json::Value::Array(values) => values.iter_mut().for_each(walk),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(body).unwrap_or_else(|_| serde_json::json!(body));
    walk(&mut value);
    value
}

#[tokio::test]
async fn what_is_asked_in_json_is_answered_the_same() {
    if missing("etcd") || missing("etcdctl") {
        return;
    }
    let (door, etcd) = both().await;
    for (path, body) in [
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFyMg==","prev_kv":true}"#),
        ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy","prevKv":true}"#),
        ("/v3/kv/put", r#"{"value":"YmFy"}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v"}"#),
        ("/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","count_only":true}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","revision":"99"}"#),
        ("/v3/kv/range", r#"{"key":"Zm9v","sort_order":"DESCEND","sort_target":"MOD","limit":"1"}"#),
        ("/v3/kv/range", "{}"),
        (
            "/v3/kv/txn",
            r#"{"compare":[{"result":"EQUAL","target":"CREATE","key":"Zm9v","create_revision":"2"}],
                "success":[{"request_put":{"key":"Zm9v","value":"eA=="}},{"request_range":{"key":"Zm9v"}}]}"#,
        ),
        ("/v3/kv/deleterange", r#"{"key":"Zm9v","prev_kv":true}"#),
        ("/v3/kv/compaction", r#"{"revision":"3"}"#),
        ("/v3/lease/grant", r#"{"TTL":"100","ID":"77"}"#),
        ("/v3/lease/timetolive", r#"{"ID":"78","keys":true}"#),
        ("/v3/lease/keepalive", r#"{"ID":"77"}"#),
        ("/v3/lease/revoke", r#"{"ID":"77"}"#),
        ("/v3/lease/revoke", r#"{"ID":"77"}"#),
        ("/v3/auth/user/list", "{}"),
        ("/v3/auth/enable", ""),
        ("/v3/auth/authenticate", r#"{"name":"root","password":"x"}"#),
        ("/v3/election/leader", r#"{"name":"bA=="}"#),
    ] {
        let (ours, theirs) = (post(&door.address(), path, body).await, post(&etcd.address, path, body).await);
        assert_eq!((ours.0, sorted(&ours.1)), (theirs.0, sorted(&theirs.1)), "{path} {body}");
    }
    for (path, body) in [("/v3/kv/put", "{"), ("/v3/kv/put", r#"{"key":5}"#), ("/v3/kv/put", r#"{"nothing":5}"#)] {
        let (ours, theirs) = (post(&door.address(), path, body).await, post(&etcd.address, path, body).await);
        assert_eq!(ours.0, theirs.0, "{path} {body}");
    }
}
