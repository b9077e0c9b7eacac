//! An etcd of one's own: free ports, a folder that goes away, ended with the test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd::{Client, Etcd, Options, Tls};
use tempfile::TempDir;

/// A loaded machine may take long to start it.
const START_TIME_MAX: Duration = Duration::from_mins(1);
/// Ports that were free may be taken when etcd comes to take them.
const STARTS_MAX: usize = 5;

pub struct Server {
    child: Child,
    dir: TempDir,
    ports: Ports,
    /// `name=url,...` of all members.
    members: String,
    settings: Settings,
}

#[derive(Clone, Copy)]
struct Ports {
    client: u16,
    peer: u16,
}

impl Ports {
    fn free() -> Self {
        Self { client: free_port(), peer: free_port() }
    }

    /// A member is named after its port.
    fn member(self) -> String {
        format!("m{0}=http://127.0.0.1:{0}", self.peer)
    }
}

#[derive(Clone, Default)]
pub struct Settings {
    pub flags: Vec<String>,
    /// Certificate, key and authority for its clients, who must show one of their own.
    pub secure: Option<Secure>,
}

#[derive(Clone)]
pub struct Secure {
    pub certificate: String,
    pub key: String,
    pub authority: String,
    /// What is used to see whether it is up.
    pub client: Tls,
}

/// Whether there is an etcd here. Says why a test is skipped.
pub fn available() -> bool {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: no etcd (Debian: etcd-server)");
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

impl Server {
    pub async fn start(settings: Settings) -> Self {
        Self::start_members(1, settings).await.pop().expect("one member")
    }

    /// A cluster.
    pub async fn start_members(count: usize, settings: Settings) -> Vec<Self> {
        'start: for _ in 0..STARTS_MAX {
            let ports: Vec<Ports> = (0..count).map(|_| Ports::free()).collect();
            let members = ports.iter().map(|ports| ports.member()).collect::<Vec<_>>().join(",");
            let spawned = ports.iter().map(|ports| {
                let dir = tempfile::tempdir().expect("a folder");
                let child = spawn(&dir, *ports, &members, &settings);
                Self { child, dir, ports: *ports, members: members.clone(), settings: settings.clone() }
            });
            let mut servers: Vec<Self> = spawned.collect();
            for server in &mut servers {
                if !server.up().await {
                    continue 'start;
                }
            }
            return servers;
        }
        panic!("etcd does not start");
    }

    pub fn endpoint(&self) -> String {
        let scheme = if self.settings.secure.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.ports.client)
    }

    pub fn options(&self) -> Options {
        let tls = self.settings.secure.as_ref().map(|secure| secure.client.clone());
        Options { tls, ..Options::new([self.endpoint()]) }
    }

    pub async fn store(&self) -> Etcd {
        Etcd::new(self.client().await)
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.options()).await.expect("a client")
    }

    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.ports.client).into()
    }

    /// At once, as when the power goes.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    pub async fn start_again(&mut self) {
        self.child = spawn(&self.dir, self.ports, &self.members, &self.settings);
        assert!(self.up().await, "etcd does not start again: {}", self.log());
    }

    /// False when it ended.
    async fn up(&mut self) -> bool {
        let deadline = tokio::time::Instant::now() + START_TIME_MAX;
        let options = self.options();
        loop {
            if self.child.try_wait().expect("it is ours").is_some() {
                return false;
            }
            if Client::connect(&options).await.is_ok() {
                return true;
            }
            assert!(tokio::time::Instant::now() < deadline, "etcd does not come up: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn spawn(dir: &TempDir, ports: Ports, members: &str, settings: &Settings) -> Child {
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let scheme = if settings.secure.is_some() { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{}", ports.client);
    let member = ports.member();
    let (name, peer) = member.split_once('=').expect("name and url");
    let log = std::fs::File::create(path("log")).expect("a log");
    let mut command = Command::new("etcd");
    command.args(["--name", name, "--logger", "zap", "--log-level", "warn", "--data-dir"]).arg(path("data"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    command.args(["--initial-cluster", members]).args(&settings.flags);
    if let Some(Secure { certificate, key, authority, .. }) = &settings.secure {
        for (flag, name, pem) in [
            ("--cert-file", "server.pem", certificate),
            ("--key-file", "server.key", key),
            ("--trusted-ca-file", "authority.pem", authority),
        ] {
            std::fs::write(path(name), pem).expect("a file");
            command.arg(flag).arg(path(name));
        }
        command.arg("--client-cert-auth");
    }
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    command.spawn().expect("etcd starts")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
