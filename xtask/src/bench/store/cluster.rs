//! One or three members on loopback, started with the same flags whichever program they are.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::run;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Etcd,
    Own,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Etcd => "etcd",
            Kind::Own => "ours",
        }
    }
}

struct Member {
    child: Option<Child>,
    client: u16,
    arguments: Vec<String>,
    log: PathBuf,
}

impl Member {
    fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }
}

/// Reads until it is answered.
fn reader(vt: &Path, endpoints: &str) -> Command {
    let mut command = Command::new(vt);
    command.args(["store", "load", "read", "--patience", "60", "--endpoints", endpoints]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Ended when it is dropped.
pub struct Cluster {
    program: PathBuf,
    kind: Kind,
    members: Vec<Member>,
}

fn ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

impl Cluster {
    /// Answers once each member has answered a linearizable read.
    pub fn start(kind: Kind, program: &Path, vt: &Path, count: usize, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let ports = ports(count * 2)?;
        let peer = |at: usize| format!("http://127.0.0.1:{}", ports[count + at]);
        let initial: Vec<String> = (0..count).map(|at| format!("m{at}={}", peer(at))).collect();
        let members = (0..count).map(|at| {
            let client = format!("http://127.0.0.1:{}", ports[at]);
            let flag = |name: &str, value: String| [format!("--{name}"), value];
            let arguments = [
                flag("name", format!("m{at}")),
                flag("data-dir", folder.join(format!("m{at}")).display().to_string()),
                flag("listen-client-urls", client.clone()),
                flag("advertise-client-urls", client),
                flag("listen-peer-urls", peer(at)),
                flag("initial-advertise-peer-urls", peer(at)),
                flag("initial-cluster", initial.join(",")),
                flag("log-level", "warn".into()),
            ];
            Member {
                child: None,
                client: ports[at],
                arguments: arguments.concat(),
                log: folder.join(format!("m{at}.log")),
            }
        });
        let mut cluster = Self { program: program.to_owned(), kind, members: members.collect() };
        cluster.spawn()?;
        for member in &cluster.members {
            let mut wait = reader(vt, &member.endpoint()).spawn().context("vt store load")?;
            if !wait.wait()?.success() {
                bail!("{} does not serve: {}", kind.name(), cluster.last_words());
            }
        }
        Ok(cluster)
    }

    fn spawn(&mut self) -> Result<()> {
        for member in &mut self.members {
            let log = File::options().create(true).append(true).open(&member.log)?;
            let mut command = Command::new(&self.program);
            if self.kind == Kind::Own {
                command.args(["store", "serve"]);
            }
            command.args(&member.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            let child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
            member.child = Some(child);
        }
        Ok(())
    }

    pub fn endpoints(&self) -> String {
        self.members.iter().map(Member::endpoint).collect::<Vec<_>>().join(",")
    }

    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| Some(member.child.as_ref()?.id())).collect()
    }

    fn last_words(&self) -> String {
        let words = self.members.iter().map(|member| fs::read_to_string(&member.log).unwrap_or_default());
        words.map(|text| text.lines().rev().take(5).collect::<Vec<_>>().join("\n")).collect()
    }

    /// SIGTERM, and the end of it.
    pub fn terminate(&mut self) -> Result<()> {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            run::signal(child, libc::SIGTERM);
        }
        for member in &mut self.members {
            if let Some(mut child) = member.child.take() {
                child.wait()?;
            }
        }
        Ok(())
    }

    pub fn stop(mut self) -> Result<()> {
        self.terminate()
    }

    /// Seconds from the start of the process to its first answered read; whoever asks is there already.
    pub fn restart(&mut self, vt: &Path) -> Result<f64> {
        let mut wait = reader(vt, &self.endpoints()).spawn().context("vt store load")?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        let began = Instant::now();
        self.spawn()?;
        if !wait.wait()?.success() {
            bail!("{} does not serve again: {}", self.kind.name(), self.last_words());
        }
        Ok(began.elapsed().as_secs_f64())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            // One that has ended already is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
