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
    ("stores::a_deploy_of_a_member_that_loses_the_other_two", a_deploy_of_a_member),
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
fn path(cloud: &Cloud, mut away: impl FnMut(&Cloud, &Path), mut back: impl FnMut()) {
    cloud.up();
    let folder = cloud.app("shop", "v1", 1);
    let url = cloud.vt(&folder, &["deploy", "--json"]).ok().json()["url"].as_str().unwrap().to_owned();
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"));

    away(cloud, &folder);
    let health = || curl(&["-k", &format!("https://127.0.0.1:{}/health", cloud.api_port)]).ok().json();
    cloud.eventually("health says that the store is away", || (health()["store"]["status"] == "away").then_some(()));
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"), "what runs goes on");
    let refused = cloud.vt(&folder, &["status"]).fails(1);
    assert!(refused.stderr.contains("VT1503") && refused.stderr.contains("store"), "{}", refused.stderr);
    back();
    cloud.eventually("health says that the store answers", || (health()["store"]["status"] == "answers").then_some(()));
    changed(cloud, &folder, "after");

    assert_eq!(cloud.terminate(), 0);
    cloud.up();
    assert!(cloud.get(&url).ok().stdout.contains("200 OK"), "the next start takes everything back from the store");
    cloud.vt(&folder, &["admin", "replay"]).ok();
    let shown = cloud.vt(&folder, &["config", "show", "--cloud", "--json"]).ok().json();
    let setting = shown["items"].as_array().unwrap().iter().find(|item| item["key"] == "store.url").unwrap().clone();
    let store = setting["value"].as_str().unwrap();
    if store.contains("://") {
        // Nobody else may stand on it.
        let other = cloud.beside("other", store);
        let refused = Ran::of(other.command(&folder, &["up"]).output().unwrap()).fails(8);
        assert!(refused.stderr.contains("belongs to another cloud"), "{}", refused.stderr);
    }
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
    path(&cloud.beside("etcd", &store), |_, _| etcd.borrow_mut().kill(), || etcd.borrow_mut().run());
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
    path(&cloud.beside("postgres", &store), |_, _| running.0(&["stop", "-m", "immediate"]), || running.0(&["start"]));
}

/// Where members of one cluster listen, on this machine.
struct Plan {
    clients: Vec<String>,
    peers: Vec<String>,
    folder: tempfile::TempDir,
}

impl Plan {
    fn new(members: usize) -> Self {
        let urls = || (0..members).map(|_| format!("http://127.0.0.1:{}", free_port())).collect();
        Self { clients: urls(), peers: urls(), folder: tempfile::tempdir().unwrap() }
    }

    fn initial_cluster(&self) -> String {
        let each = self.peers.iter().enumerate().map(|(at, peer)| format!("m{at}={peer}"));
        each.collect::<Vec<_>>().join(",")
    }

    fn endpoints(&self) -> String {
        self.clients.join(",").replace("http://", "")
    }

    fn serve(&self, at: usize) -> Server {
        let (place, cluster) = (self.folder.path().to_owned(), self.initial_cluster());
        let (client, peer) = (self.clients[at].clone(), self.peers[at].clone());
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
    }

    /// All members hold the same.
    fn check(&self) {
        let mut command = Command::new(crate::cloud::VT);
        let check = command.args(["store", "check", "--endpoints", &self.endpoints()]).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }
}

/// One member may die at any time; with two of three gone the store is away, until one of them is back.
fn a_deploy_on_three_members(cloud: &Cloud) {
    let plan = Plan::new(3);
    let members = std::cell::RefCell::new((0..3).map(|at| plan.serve(at)).collect::<Vec<_>>());
    let endpoints = plan.endpoints();
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
    path(&cloud.beside("members", &format!("etcd://{endpoints}")), two, back);
    plan.check();
}

/// The cloud is a member itself, and stops and comes back while the others go on.
fn a_deploy_of_a_member(cloud: &Cloud) {
    let plan = Plan::new(3);
    let others = std::cell::RefCell::new([1, 2].map(|at| plan.serve(at)));
    let cloud = cloud.beside("member", "replicated").with([
        ("VT_STORE_NAME", "m0".to_owned()),
        ("VT_STORE_LISTEN_CLIENT", plan.clients[0].clone()),
        ("VT_STORE_LISTEN_PEER", plan.peers[0].clone()),
        ("VT_STORE_INITIAL_CLUSTER", plan.initial_cluster()),
    ]);
    let both = |cloud: &Cloud, folder: &Path| {
        others.borrow_mut()[0].kill();
        changed(cloud, folder, "with-two-of-three");
        others.borrow_mut()[1].kill();
    };
    path(&cloud, both, || others.borrow_mut().iter_mut().for_each(Server::run));
}
