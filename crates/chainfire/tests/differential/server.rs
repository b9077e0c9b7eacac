//! The servers that histories are played at: each on loopback, in a folder of its own, ended when dropped.

use std::any::Any;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::play::Clients;

/// A start on a loaded machine takes seconds.
const START_WAIT: Duration = Duration::from_mins(1);
const START_LOOK_EVERY: Duration = Duration::from_millis(50);
/// A port that was free a moment ago may be taken now.
const START_TRIES: usize = 3;

pub struct Server {
    pub endpoint: String,
    log: Option<PathBuf>,
    /// Whatever lives as long as the server.
    _kept: Box<dyn Any + Send + Sync>,
}

impl Server {
    pub fn new(endpoint: String, kept: impl Any + Send + Sync) -> Self {
        Self { endpoint, log: None, _kept: Box::new(kept) }
    }

    /// What it said, to tell why it ended.
    pub fn last_words(&self) -> String {
        self.log.as_ref().and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default()
    }
}

/// Why etcd cannot be started here, if it cannot.
pub fn etcd_is_missing() -> Option<String> {
    match Command::new("etcd").arg("--version").output() {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(format!("etcd --version: {}", done.status)),
        Err(_) => Some("no etcd (Debian package etcd-server)".to_owned()),
    }
}

struct Process {
    child: Child,
    _dir: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's etcd, one member. Call it on a thread that outlives it: it ends with that thread too.
pub async fn etcd() -> Result<Server> {
    let mut last = None;
    for _ in 0..START_TRIES {
        match start_etcd().await {
            Ok(server) => return Ok(server),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("it was tried"))
}

async fn start_etcd() -> Result<Server> {
    let dir = tempfile::tempdir_in(folder()).context("a folder for etcd")?;
    let said = dir.path().join("log");
    let log = File::create(&said)?;
    let (client, peer) = (free_port()?, free_port()?);
    let (endpoint, peers) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    // Ended by the kernel when this process is killed and cannot do it.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "etcd", "--name", "only", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("only={peers}")])
        // The cheapest: what it costs to check a password is nothing that is compared.
        .args(["--bcrypt-cost", "4"])
        .args(["--logger", "zap", "--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("starting etcd")?;
    let mut process = Process { child, _dir: dir };
    let until = Instant::now() + START_WAIT;
    loop {
        if let Ok(clients) = Clients::connect(&endpoint).await
            && clients.answer().await
        {
            return Ok(Server { log: Some(said), ..Server::new(endpoint, process) });
        }
        if let Some(status) = process.child.try_wait()? {
            bail!("etcd ended: {status}\n{}", std::fs::read_to_string(&said)?);
        }
        if Instant::now() > until {
            bail!("etcd does not answer\n{}", std::fs::read_to_string(&said)?);
        }
        sleep(START_LOOK_EVERY).await;
    }
}

/// In memory where there is such a place: etcd waits for the disk at each write, and that is not what is looked at.
pub fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a port on loopback")?;
    Ok(listener.local_addr()?.port())
}
