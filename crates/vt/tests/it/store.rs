//! `vt kv` and `vt store`, at a store of our own and at the real etcd: the same words, the same ends.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::run::{Place, Ran};

const PATIENCE: Duration = Duration::from_mins(1);

/// Ports that were free a moment ago.
fn ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// A member of one that runs until this is dropped.
struct Served {
    child: Child,
    client: u16,
    peer: u16,
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(mut command: Command, folder: &Path, more: &[&str]) -> Self {
        let [client, peer] = ports();
        let (client_url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let log = std::fs::File::create(folder.join("store.log")).unwrap();
        command.args(["--name", "one", "--data-dir"]).arg(folder.join("store"));
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("one={peer_url}")]).args(more);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let served = Self { child, client, peer };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", client)).is_err() {
            let log = || std::fs::read_to_string(folder.join("store.log")).unwrap();
            assert!(began.elapsed() < PATIENCE, "not served: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        served
    }

    /// A member of our own among others, on these ports; does not wait for it.
    fn spawn(folder: &Path, name: &str, ports: (u16, u16), cluster: &str, more: &[&str]) -> Self {
        let (client, peer) = ports;
        let (client_url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let log = std::fs::File::options().create(true).append(true).open(folder.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vt"));
        command.args(["store", "serve", "--name", name, "--data-dir"]).arg(folder.join(name));
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", cluster]).args(more);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, client, peer }
    }

    fn terminate(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success(), "a store that is asked to end does so in order");
    }

    fn own(folder: &Path, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vt"));
        command.args(["store", "serve"]);
        Self::start(command, folder, more)
    }

    /// None where it is not installed.
    fn etcd(folder: &Path) -> Option<Self> {
        let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_ok().then(|| Self::start(Command::new("etcd"), folder, &[]))
    }

    fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    fn run(&self, place: &Place, arguments: &[&str], stdin: &str) -> Ran {
        place.vt_with(arguments, &[("VT_STORE_ENDPOINTS", &self.endpoint()), ("VT_TIMEOUT", "20s")], stdin)
    }
}

/// Commands and what they read, in order. Each line is split at spaces; `''` is an empty word.
const KEYS: &[(&str, &str)] = &[
    ("kv put a 1", ""),
    ("kv put b/1 one", ""),
    ("kv put b/2 -", "from stdin"),
    ("kv put b/3 @value.bin", ""),
    ("kv get a", ""),
    ("kv get a --value-only", ""),
    ("kv get --prefix b/", ""),
    ("kv get --prefix b/ --json", ""),
    ("kv get --prefix '' --keys-only --format csv", ""),
    ("kv get --prefix b/ --count-only", ""),
    ("kv get a b/2", ""),
    ("kv get b/2 a", ""),
    ("kv get ''", ""),
    ("kv get nothing", ""),
    ("kv get --from-key b/2 --sort-by mod --descending --limit 1 --format yaml", ""),
    ("kv get YQ== --base64", ""),
    ("kv get a --revision 99", ""),
    ("kv put a 2 --if-revision 2", ""),
    ("kv put a 3 --if-revision 2", ""),
    ("kv put a 3 --if-revision 0 --json", ""),
    ("kv put a 3 --lease 77", ""),
    ("kv put nothing --keep-value", ""),
    (
        "kv txn",
        "{\"when\": [{\"key\": \"a\", \"version\": 2}], \"then\": [{\"put\": {\"key\": \"a\", \"value\": \"4\"}}, {\"get\": {\"key\": \"b/\", \"prefix\": true}}]}",
    ),
    (
        "kv txn",
        "{\"when\": [{\"key\": \"a\", \"version\": 2}], \"then\": [{\"put\": {\"key\": \"a\", \"value\": \"5\"}}]}",
    ),
    ("kv txn --json", "value(\"a\") = \"x\"\n\nput a 5\n\nget a\n\n"),
    (
        "kv txn",
        "{\"then\": [{\"put\": {\"key\": \"a\", \"value\": \"5\"}}, {\"put\": {\"key\": \"a\", \"value\": \"6\"}}]}",
    ),
    ("kv txn", "{\"then\": [{\"put\": {\"key\": \"a\", \"vale\": \"5\"}}]}"),
    ("kv txn", "{}"),
    ("kv delete a", ""),
    ("kv delete a", ""),
    ("kv delete --prefix b/ --previous --json", ""),
    ("kv delete --prefix b/", ""),
    ("store compact --keep 1", ""),
    ("store compact 2", ""),
    ("kv get a --revision 3", ""),
];

fn words(line: &str) -> Vec<&str> {
    line.split(' ').map(|word| if word == "''" { "" } else { word }).collect()
}

fn keys(place: &Place, served: &Served) -> String {
    std::fs::write(place.path().join("value.bin"), [0xff, 0x00, 0x41]).unwrap();
    KEYS.iter().fold(String::new(), |mut out, (line, stdin)| {
        let _ = writeln!(out, "$ vt {line}\n{}", served.run(place, &words(line), stdin).whole());
        out
    })
}

#[test]
fn keys_at_our_own_store_and_at_etcd() {
    let place = Place::new();
    let served = Served::own(place.path(), &[]);
    let own = keys(&place, &served);
    insta::assert_snapshot!(own);
    let other = Place::new();
    match Served::etcd(other.path()) {
        Some(etcd) => assert_eq!(keys(&other, &etcd), own, "etcd answers the same"),
        None => println!("skipped: etcd is not installed"),
    }
}

#[test]
fn a_value_that_is_too_large_is_refused_by_its_name() {
    let place = Place::new();
    let served = Served::own(place.path(), &[]);
    // Above the limit of a request, and above what the door takes in at all.
    for bytes in [1600 << 10, 2 << 20] {
        let ran = served.run(&place, &["kv", "put", "big", "-"], &"x".repeat(bytes));
        assert!(ran.code == 2 && ran.stderr.contains("VT1414"), "{}", ran.whole());
    }
}

#[test]
fn a_store_that_is_away_and_credentials_that_are_wrong() {
    let place = Place::new();
    place.write("ca.pem", "nonsense");
    let mut out = String::new();
    for line in [
        "kv get a --endpoints 127.0.0.1:1 --timeout 2s",
        "kv get a --endpoints ftp://127.0.0.1:1",
        "kv get a --endpoints 127.0.0.1",
        "kv get a --endpoints https://127.0.0.1:1",
        "kv get a --cert client.pem",
        "kv get a --cacert none.pem",
        "kv get a --user root:hidden",
        "kv get a --user root",
        "kv get a --password-file pw",
        "store status --endpoints 127.0.0.1:1 --timeout 2s --json",
        "store compact",
    ] {
        let ran = place.vt(&words(line));
        assert!(!ran.stderr.contains("hidden"), "{}", ran.whole());
        let _ = writeln!(out, "$ vt {line}\n{}", ran.whole());
    }
    insta::assert_snapshot!(out);
}

#[test]
fn a_watch_goes_on_where_it_was_when_the_store_was_away() {
    let place = Place::new();
    let mut served = Served::own(place.path(), &[]);
    assert_eq!(served.run(&place, &["kv", "put", "w/0", "0"], "").code, 0);
    let endpoint = served.endpoint();
    let mut watch = Command::new(env!("CARGO_BIN_EXE_vt"));
    watch.args([
        "kv",
        "watch",
        "--prefix",
        "w/",
        "--revision",
        "2",
        "--limit",
        "3",
        "--json",
        "--endpoints",
        &endpoint,
    ]);
    let mut watch = watch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!((next()["key"].clone(), 0), ("w/0".into(), 0));
    let pid = rustix::process::Pid::from_child(&served.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(served.child.wait().unwrap().success(), "a store that is asked to end does so in order");
    let address = served.client;
    let peer = format!("http://127.0.0.1:{}", served.peer);
    drop(served);
    let url = format!("http://127.0.0.1:{address}");
    let again = Command::new(env!("CARGO_BIN_EXE_vt"))
        .args(["store", "serve", "--name", "one", "--data-dir"])
        .arg(place.path().join("store"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("one={peer}"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let served = Served { child: again, client: address, peer: 0 };
    let began = Instant::now();
    while served.run(&place, &["kv", "put", "w/1", "1"], "").code != 0 {
        assert!(began.elapsed() < PATIENCE, "the store is served again");
    }
    assert_eq!(next()["key"], "w/1");
    assert_eq!(served.run(&place, &["kv", "delete", "w/0"], "").code, 0);
    let last = next();
    assert_eq!((last["type"].as_str(), last["key"].as_str()), (Some("delete"), Some("w/0")));
    assert!(watch.wait().unwrap().success());
}

#[test]
fn it_takes_the_place_of_etcd() {
    let place = Place::new();
    let link = place.path().join("etcd");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vt"), &link).unwrap();
    let version = Command::new(&link).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("etcd Version: 3."));
    let [metrics] = ports();
    let metrics_url = format!("http://127.0.0.1:{metrics}");
    let more = ["--max-wals", "5", "-logger=zap", "--listen-metrics-urls", &metrics_url];
    let served = Served::start(Command::new(&link), place.path(), &more);
    assert_eq!(served.run(&place, &["kv", "put", "a", "1"], "").code, 0);
    let at = |path: &str| {
        let url = format!("http://127.0.0.1:{metrics}{path}");
        let ran =
            Command::new("curl").args(["-sS", "-m", "20", "-o", "-", "-w", "%{http_code}", &url]).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let began = Instant::now();
    while !at("/metrics").contains("etcd_server_has_leader 1") {
        assert!(began.elapsed() < PATIENCE, "{}", at("/metrics"));
    }
    assert!(at("/health").ends_with("200"));
    assert!(at("/etcdserverpb.KV/Put").ends_with("404"), "no calls are answered there");
    let log = place.read("store.log");
    assert!(log.contains("note: --max-wals has no effect") && log.contains("note: --logger"), "{log}");
    let mut out = String::new();
    for line in [
        "store serve --discovery https://discovery.example",
        "store serve --listen-client-urls http://127.0.0.1:1",
        "store serve --nmae x",
        "store serve --name a --initial-cluster b=http://localhost:2380",
        "store serve --election-timeout 100",
    ] {
        let _ = writeln!(out, "$ vt {line}\n{}", place.vt(&words(line)).whole());
    }
    insta::assert_snapshot!(out);
}

#[test]
fn a_folder_of_etcd_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir_all(place.path().join("old/member/wal")).unwrap();
    let ran = place.vt(&["store", "serve", "--data-dir", "old"]);
    assert_eq!(ran.code, 8, "{}", ran.whole());
    assert!(ran.stderr.contains("holds data of etcd"), "{}", ran.whole());
}

#[test]
fn a_store_is_copied_into_an_empty_one() {
    let (place, other) = (Place::new(), Place::new());
    let (from, to) = (Served::own(place.path(), &[]), Served::own(other.path(), &[]));
    for at in 0..20 {
        assert_eq!(from.run(&place, &["kv", "put", &format!("k{at}"), "value"], "").code, 0);
    }
    let (from, to) = (format!("etcd://{}", from.endpoint()), format!("etcd://{}", to.endpoint()));
    let mut out = String::new();
    for line in [
        "store migrate --from FROM --to embedded:copy",
        "store migrate --from FROM --to embedded:copy",
        "store migrate --from embedded:copy --to TO --json",
        "store migrate --from embedded:store --to embedded:x",
        "store migrate --from FROM --to embedded:store",
        "store migrate --from embedded:none --to embedded:x",
        "store migrate --from embedded --to embedded:x",
        "store migrate --from embedded:copy --to embedded:copy",
        "store migrate --from embedded:copy --to memory",
        "store migrate --from postgres://vt:hidden@h/d --to embedded:x",
        "store migrate --from embedded:copy",
    ] {
        let said = line.replace("FROM", &from).replace("TO", &to);
        let ran = place.vt(&words(&said));
        assert!(!ran.stderr.contains("hidden"), "{}", ran.whole());
        // The time that a step took, and ports.
        let shown = ran.whole().replace(&from, "FROM").replace(&to, "TO");
        let shown: Vec<&str> = shown.lines().filter(|line| !line.contains("rows at revision")).collect();
        let shown = shown.join("\n");
        let _ = writeln!(out, "$ vt {line}\n{shown}\n");
    }
    insta::assert_snapshot!(out);
}

/// Members of one cluster: their ports for clients and for each other, and `--initial-cluster`.
fn plan(names: &[&str]) -> (Vec<(u16, u16)>, String) {
    let ports: Vec<(u16, u16)> = names.iter().map(|_| ports::<2>().into()).collect();
    let each = names.iter().zip(&ports).map(|(name, (_, peer))| format!("{name}=http://127.0.0.1:{peer}"));
    let cluster = each.collect::<Vec<_>>().join(",");
    (ports, cluster)
}

fn endpoints(ports: &[(u16, u16)]) -> String {
    ports.iter().map(|(client, _)| format!("127.0.0.1:{client}")).collect::<Vec<_>>().join(",")
}

/// Runs until it ends well.
fn eventually(place: &Place, endpoints: &str, arguments: &[&str]) -> Ran {
    let began = Instant::now();
    loop {
        let ran = place.vt_with(arguments, &[("VT_STORE_ENDPOINTS", endpoints)], "");
        if ran.code == 0 {
            return ran;
        }
        assert!(began.elapsed() < PATIENCE, "{arguments:?}: {}", ran.whole());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn value(place: &Place, endpoints: &str, key: &str) -> String {
    eventually(place, endpoints, &["kv", "get", key, "--value-only"]).stdout
}

#[test]
fn three_members_lose_one_and_change_places() {
    let place = Place::new();
    let names = ["n1", "n2", "n3"];
    let (ports, cluster) = plan(&names);
    let all = endpoints(&ports);
    let start = |at: usize| Served::spawn(place.path(), names[at], ports[at], &cluster, &[]);
    let mut members: Vec<Served> = (0..3).map(start).collect();
    eventually(&place, &all, &["kv", "put", "a", "1"]);
    eventually(&place, &all, &["store", "check"]);
    let leader = |endpoints: &str| -> String {
        let items = eventually(&place, endpoints, &["store", "status", "--json"]).json()["items"].clone();
        let leads = items.as_array().unwrap().iter().find(|item| item["leader"] == true).unwrap().clone();
        leads["name"].as_str().unwrap().to_owned()
    };
    let first = leader(&all);
    let other = names.into_iter().find(|name| **name != *first).unwrap();
    // A member that has just come says its name after a moment.
    eventually(&place, &all, &["store", "transfer", other]);
    assert_eq!(leader(&all), other);

    // The leader is lost, and nothing that was answered.
    let lost = names.iter().position(|name| **name == *other).unwrap();
    drop(members.remove(lost));
    eventually(&place, &all, &["kv", "put", "b", "2"]);
    let status = place.vt(&["store", "status", "--endpoints", &all, "--json"]);
    assert_eq!(status.code, 1, "{}", status.whole());
    let away = status.json()["items"].as_array().unwrap().iter().filter(|item| item["phase"] == "away").count();
    assert_eq!(away, 1, "{}", status.whole());
    assert_eq!((value(&place, &all, "a"), value(&place, &all, "b")), ("1".to_owned(), "2".to_owned()));
    members.insert(lost, start(lost));
    eventually(&place, &all, &["store", "status"]);
    eventually(&place, &all, &["store", "check"]);

    // Another one comes, listens, votes, and the first goes.
    let (more, _) = plan(&["n4"]);
    let url = format!("http://127.0.0.1:{}", more[0].1);
    let added = place.vt(&["store", "add", "n4", "--peer-url", &url, "--endpoints", &all, "--json"]);
    let added = added.json();
    assert_eq!(added["member"]["voter"], false);
    let serve = added["next"][0].as_str().unwrap();
    let told = serve.split("--initial-cluster ").nth(1).unwrap().split(' ').next().unwrap();
    let fourth = Served::spawn(place.path(), "n4", more[0], told, &["--initial-cluster-state", "existing"]);
    eventually(&place, &all, &["store", "promote", "n4"]);
    let members_now = eventually(&place, &all, &["store", "members", "--json"]).json()["items"].clone();
    let voters = members_now.as_array().unwrap().iter().filter(|member| member["voter"] == true).count();
    assert_eq!(voters, 4, "{members_now}");
    eventually(&place, &all, &["store", "remove", "n1"]);
    let rest = endpoints(&[ports[1], ports[2], more[0]]);
    assert_eq!(value(&place, &rest, "b"), "2");
    eventually(&place, &rest, &["store", "check"]);
    let again = place.vt(&["store", "add", "n4", "--peer-url", &url, "--endpoints", &rest]);
    assert_eq!(again.code, 8, "{}", again.whole());

    drop(members);
    fourth.terminate();
    let folder = place.vt(&["store", "check", "--data-dir", "n4", "--json"]).json();
    assert_eq!((folder["engine"].as_str(), folder["name"].as_str()), (Some("member"), Some("n4")));
    assert!(folder["revision"].as_u64().unwrap() >= 3, "{folder}");
}

#[test]
fn a_snapshot_becomes_a_cluster_on_new_addresses() {
    let place = Place::new();
    let served = Served::own(place.path(), &[]);
    for at in 0..30 {
        assert_eq!(served.run(&place, &["kv", "put", &format!("k{at:02}"), &format!("value {at}")], "").code, 0);
    }
    let busy = place.vt(&["store", "check", "--data-dir", "store"]);
    assert_eq!(busy.code, 8, "{}", busy.whole());
    let saved = served.run(&place, &["store", "snapshot", "backup.db", "--json"], "");
    let saved = saved.json();
    let again = served.run(&place, &["store", "snapshot", "backup.db"], "");
    assert_eq!(again.code, 8, "a file that is there is kept\n{}", again.whole());
    let before = served.run(&place, &["kv", "get", "--prefix", "", "--json"], "").stdout;
    // What happens later is not in it.
    assert_eq!(served.run(&place, &["kv", "put", "later", "1"], "").code, 0);
    drop(served);

    let names = ["r1", "r2", "r3"];
    let (ports, cluster) = plan(&names);
    let token = ["--initial-cluster-token", "again"];
    for name in names {
        let arguments =
            ["store", "restore", "backup.db", "--data-dir", name, "--name", name, "--initial-cluster", &cluster];
        let restored = place.vt(&[&arguments[..], &token[..], &["--json"]].concat()).json();
        assert_eq!(restored["rows"], 30, "{restored}");
        let refused = place.vt(&[&arguments[..], &token[..]].concat());
        assert_eq!(refused.code, 8, "{}", refused.whole());
    }
    let members = |more: &[&str]| -> Vec<Served> {
        (0..3).map(|at| Served::spawn(place.path(), names[at], ports[at], &cluster, more)).collect()
    };
    let other = Served::spawn(place.path(), names[0], ports[0], &cluster, &[]);
    let mut other = other;
    assert!(!other.child.wait().unwrap().success(), "another token is another cluster");
    let running = members(&token);
    let all = endpoints(&ports);
    let after = eventually(&place, &all, &["kv", "get", "--prefix", "", "--json"]).stdout;
    assert_eq!(after, before, "rows with their revisions");
    eventually(&place, &all, &["kv", "put", "new", "1"]);
    eventually(&place, &all, &["store", "check"]);
    // They are still there when all of them come again.
    running.into_iter().for_each(Served::terminate);
    let sound = place.vt(&["store", "check", "--data-dir", "r2"]);
    assert_eq!(sound.code, 0, "{}", sound.whole());
    let _running = members(&token);
    assert_eq!(value(&place, &all, "new"), "1");

    // Damage is seen before anything is made.
    let mut bytes = std::fs::read(place.path().join("backup.db")).unwrap();
    assert_eq!(bytes.len() as u64, saved["bytes"].as_u64().unwrap());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(place.path().join("damaged.db"), &bytes).unwrap();
    std::fs::write(place.path().join("cut.db"), &bytes[..bytes.len() - 1]).unwrap();
    place.write("other.db", "something else");
    for file in ["damaged.db", "cut.db", "other.db", "none.db"] {
        let refused = place.vt(&["store", "restore", file, "--data-dir", "bad"]);
        assert!(refused.code != 0 && !place.path().join("bad").exists(), "{}", refused.whole());
    }
}
