//! The same path with the truth kept elsewhere. Each scenario has a store and a cloud of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cloud::{Cloud, Ran, curl, free_port, which};
use crate::{Scenario, skip};

pub const ALL: &[Scenario] = &[
    ("stores::a_deploy_on_etcd_that_is_away_for_a_while", a_deploy_on_etcd),
    ("stores::a_deploy_on_postgresql_that_is_away_for_a_while", a_deploy_on_postgresql),
    ("stores::a_deploy_on_three_members_of_which_one_dies_and_two", a_deploy_on_three_members),
];

/// A process that ends with its owner.
struct Server {
    child: Option<Child>,
    command: Box<dyn Fn() -> Command>,
}

impl Server {
    fn start(command: impl Fn() -> Command + 'static) -> Self {
        let mut server = Self { child: None, command: Box::new(command) };
        server.run();
        server
    }

    fn run(&mut self) {
        let mut command = (self.command)();
        self.child = Some(command.stdin(Stdio::null()).spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Deploys, goes through what `away` and `back` do to the store, restarts, and leaves nothing behind.
fn path(cloud: &Cloud, name: &str, store: &str, mut away: impl FnMut(&Cloud, &Path), mut back: impl FnMut()) {
    let cloud = cloud.beside(name, store);
    cloud.up();
    let folder = cloud.app("shop", "v1", 1);
    let url = cloud.vt(&folder, &["deploy", "--json"]).ok().json()["url"].as_str().unwrap().to_owned();
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"));

    away(&cloud, &folder);
    let health = || curl(&["-k", &format!("https://127.0.0.1:{}/health", cloud.api_port)]).ok().json();
    cloud.eventually("health says that the store is away", || (health()["store"]["status"] == "away").then_some(()));
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"), "what runs goes on");
    let refused = cloud.vt(&folder, &["status"]).fails(1);
    assert!(refused.stderr.contains("VT1503") && refused.stderr.contains("store"), "{}", refused.stderr);
    back();
    cloud.eventually("health says that the store answers", || (health()["store"]["status"] == "answers").then_some(()));
    changed(&cloud, &folder, "after");

    assert_eq!(cloud.terminate(), 0);
    cloud.up();
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"), "the next start takes everything back from the store");
    cloud.vt(&folder, &["admin", "replay"]).ok();
    let shown = cloud.vt(&folder, &["config", "show", "--cloud", "--json"]).ok().json();
    let setting = shown["items"].as_array().unwrap().iter().find(|item| item["key"] == "store.url").unwrap().clone();
    assert_eq!(setting["value"], store);
    // Nobody else may stand on it.
    let other = cloud.beside(&format!("{name}-other"), store);
    let refused = Ran::of(other.command(&folder, &["up"]).output().unwrap()).fails(8);
    assert!(refused.stderr.contains("belongs to another cloud"), "{}", refused.stderr);
    cloud.stop();
}

/// A change is accepted, at once or soon.
fn changed(cloud: &Cloud, folder: &Path, name: &str) {
    cloud.eventually("a change is accepted", || {
        let ran = Ran::of(cloud.command(folder, &["project", "create", name]).output().unwrap());
        (ran.code == 0 || ran.code == 8).then_some(())
    });
}

fn log(folder: &Path, name: &str) -> fs::File {
    fs::File::options().create(true).append(true).open(folder.join(name)).unwrap()
}

fn a_deploy_on_etcd(cloud: &Cloud) {
    if which("etcd").is_none() {
        return skip("etcd is not installed");
    }
    let folder = tempfile::tempdir().unwrap();
    let (client, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
    let (place, client_url) = (folder.path().to_owned(), client.clone());
    let mut etcd = Server::start(move || {
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(place.join("data"));
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.stdout(log(&place, "log")).stderr(log(&place, "log"));
        command
    });
    let store = client.replace("http", "etcd");
    let etcd = std::cell::RefCell::new(&mut etcd);
    path(cloud, "etcd", &store, |_, _| etcd.borrow_mut().kill(), || etcd.borrow_mut().run());
}

/// Where Debian has it.
fn postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|version| version.path().join("bin"));
    versions.filter(|folder| folder.join("initdb").exists()).max()
}

fn a_deploy_on_postgresql(cloud: &Cloud) {
    let Some(programs) = postgres().filter(|_| which("runuser").is_some()) else {
        return skip("PostgreSQL's server is not installed");
    };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    // It refuses to run as root.
    let as_owner = |program: &Path| {
        let mut command = Command::new("runuser");
        command.current_dir("/").args(["-u", "postgres", "--"]).arg(program);
        command
    };
    assert!(Command::new("chown").arg("postgres").arg(&data).status().unwrap().success());
    let made =
        as_owner(&programs.join("initdb")).args(["-A", "trust", "-U", "photon", "-D"]).arg(&data).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = free_port().to_string();
    let control = |verb: &[&str]| {
        let mut command = as_owner(&programs.join("pg_ctl"));
        command.args(verb).arg("-D").arg(&data).args(["-w", "-l"]).arg(data.join("log"));
        command.arg("-o").arg(format!("-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="));
        let ran = Ran::of(command.stdin(Stdio::null()).stdout(Stdio::null()).output().unwrap());
        assert_eq!(ran.code, 0, "pg_ctl {verb:?}: {}", ran.stderr);
    };
    struct Stop<F: Fn(&[&str])>(F);
    impl<F: Fn(&[&str])> Drop for Stop<F> {
        fn drop(&mut self) {
            (self.0)(&["stop", "-m", "immediate"]);
        }
    }
    control(&["start"]);
    let running = Stop(control);
    let store = format!("postgres://photon@127.0.0.1:{port}/postgres?schema=cloud");
    path(cloud, "postgres", &store, |_, _| running.0(&["stop", "-m", "immediate"]), || running.0(&["start"]));
}

/// One member may die at any time; with two of three gone the store is away, until one of them is back.
fn a_deploy_on_three_members(cloud: &Cloud) {
    let folder = tempfile::tempdir().unwrap();
    let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
    let peers = ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}"));
    let cluster = peers.collect::<Vec<_>>().join(",");
    let members = (0..3).map(|at| {
        let (place, cluster) = (folder.path().to_owned(), cluster.clone());
        let (client, peer) = ports[at];
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        Server::start(move || {
            let mut command = Command::new(crate::cloud::VT);
            command.args(["store", "serve", "--name", &format!("m{at}")]);
            command.arg("--data-dir").arg(place.join(format!("m{at}")));
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &cluster]);
            command.stdout(Stdio::null()).stderr(log(&place, "log"));
            command
        })
    });
    let members = std::cell::RefCell::new(members.collect::<Vec<_>>());
    let endpoints = ports.iter().map(|(client, _)| format!("127.0.0.1:{client}")).collect::<Vec<_>>().join(",");
    let status = || {
        let mut command = Command::new(crate::cloud::VT);
        command.args(["store", "status", "--json", "--endpoints", &endpoints]);
        Ran::of(command.output().unwrap())
    };
    cloud.eventually("there is a leader", || (status().code == 0).then_some(()));
    let leader = || status().json()["items"].as_array()?.iter().position(|item| item["leader"] == true);
    let two = |cloud: &Cloud, folder: &Path| {
        // The leader alone first: the cloud goes on with another.
        let first = leader().unwrap();
        members.borrow_mut()[first].kill();
        changed(cloud, folder, "with-two-of-three");
        members.borrow_mut()[(first + 1) % 3].kill();
    };
    let back = || members.borrow_mut().iter_mut().filter(|member| member.child.is_none()).for_each(Server::run);
    path(cloud, "members", &format!("etcd://{endpoints}"), two, back);
    let check = Command::new(crate::cloud::VT).args(["store", "check", "--endpoints", &endpoints]).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}
