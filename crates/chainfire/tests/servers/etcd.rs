//! Debian's etcd, one member.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd::proto::etcdserverpb::PutRequest;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{Server, folder, free_port};

/// A start on a loaded machine takes seconds.
const START_WAIT: Duration = Duration::from_mins(1);
const START_LOOK_EVERY: Duration = Duration::from_millis(50);
/// A port that was free a moment ago may be taken now.
const START_TRIES: usize = 3;

/// Why etcd cannot be started here, if it cannot.
pub fn is_missing() -> Option<String> {
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

/// Call it on a thread that outlives the server: it ends with that thread too.
pub async fn start() -> Result<Server> {
    let mut last = None;
    for _ in 0..START_TRIES {
        match start_once().await {
            Ok(server) => return Ok(server),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("it was tried"))
}

async fn start_once() -> Result<Server> {
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
        let takes_writes = takes_writes(&endpoint).await;
        // Where this one did not get its port, another one answers.
        if let Some(status) = process.child.try_wait()? {
            bail!("etcd ended: {status}\n{}", std::fs::read_to_string(&said)?);
        }
        if takes_writes {
            return Ok(Server { log: Some(said), ..Server::new(endpoint, process) });
        }
        if Instant::now() > until {
            bail!("etcd does not answer\n{}", std::fs::read_to_string(&said)?);
        }
        sleep(START_LOOK_EVERY).await;
    }
}

/// Writes one key.
pub async fn takes_writes(endpoint: &str) -> bool {
    let Ok(mut client) = KvClient::connect(endpoint.to_owned()).await else { return false };
    client.put(PutRequest { key: "up".into(), ..PutRequest::default() }).await.is_ok()
}
