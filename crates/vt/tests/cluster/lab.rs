//! A cluster of real processes, each in a network namespace of its own behind one bridge.
//!
//! ```text
//!   this process ── bridge ──┬── veth ── [ns 1] vt store serve
//!    (the clients)           ├── veth ── [ns 2] vt store serve
//!                            └── veth ── [ns 3] vt store serve
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How a faulty network treats what comes from one member to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Both,
    /// Only what the cut-off member sends is lost.
    Out,
    /// Only what is sent to it is lost.
    In,
}

/// Labs of this process so far.
static LABS: AtomicU32 = AtomicU32::new(0);

pub struct Lab {
    pub members: Vec<Member>,
    tag: String,
    net: u8,
    folder: tempfile::TempDir,
    /// Members run with a clock that jumps.
    faketime: Option<PathBuf>,
}

pub struct Member {
    pub name: String,
    pub ip: String,
    namespace: String,
    data: PathBuf,
    child: Option<Child>,
    starts: u32,
    paused: bool,
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Why this machine cannot run a cluster; nothing when it can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root for network namespaces".into());
    }
    for program in ["ip", "nft"] {
        if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            return Some(format!("needs the program {program}"));
        }
    }
    None
}

impl Lab {
    /// Makes the network and the folders; starts nothing.
    pub fn new(members: usize) -> Result<Self> {
        let pid = std::process::id();
        // The kernel takes a lab's interfaces away a little after its namespaces.
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let net = ((pid + lab) % 250) as u8;
        let tag = format!("vt{pid}x{lab}");
        let folder = tempfile::Builder::new().prefix("vt-cluster-").tempdir()?;
        let faketime = [
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        ];
        let faketime = faketime.into_iter().map(PathBuf::from).find(|path| path.exists());
        let mut lab = Self { members: Vec::new(), tag, net, folder, faketime };
        lab.wire(members).inspect_err(|_| lab.unwire())?;
        Ok(lab)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.tag)
    }

    fn wire(&mut self, members: usize) -> Result<()> {
        let bridge = self.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge", "mcast_snooping", "0"])?;
        run("ip", &["addr", "add", &format!("198.18.{}.254/24", self.net), "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        for number in 1..=members {
            let namespace = format!("{}n{number}", self.tag);
            let (outer, inner) = (format!("{}o{number}", self.tag), format!("{}i{number}", self.tag));
            let ip = format!("198.18.{}.{number}", self.net);
            run("ip", &["netns", "add", &namespace])?;
            self.members.push(Member {
                name: format!("m{number}"),
                ip: ip.clone(),
                namespace: namespace.clone(),
                data: self.folder.path().join(format!("m{number}")),
                child: None,
                starts: 0,
                paused: false,
            });
            run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", &inner])?;
            run("ip", &["link", "set", &inner, "netns", &namespace])?;
            run("ip", &["link", "set", &outer, "master", &bridge, "up"])?;
            run("ip", &["-n", &namespace, "addr", "add", &format!("{ip}/24"), "dev", &inner])?;
            run("ip", &["-n", &namespace, "link", "set", &inner, "up"])?;
            run("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn unwire(&mut self) {
        for member in &mut self.members {
            member.end();
            let _ = run("umount", &["-l", &member.data.to_string_lossy()]);
            let _ = run("ip", &["netns", "del", &member.namespace]);
        }
        let _ = run("ip", &["link", "del", &self.bridge()]);
    }

    pub fn endpoint(&self, member: usize) -> String {
        format!("http://{}:2379", self.members[member].ip)
    }

    /// Puts the member's folder on a file system of its own, of `bytes`, so that it can be full.
    pub fn bound(&mut self, member: usize, bytes: u64) -> Result<()> {
        let data = &self.members[member].data;
        fs::create_dir_all(data)?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", &data.to_string_lossy()])
    }

    /// Takes what room there is, or gives it back.
    pub fn fill(&self, member: usize, full: bool) -> Result<()> {
        let ballast = self.members[member].data.join("ballast");
        if !full {
            return fs::remove_file(&ballast).context("remove the ballast");
        }
        let file = File::create(&ballast)?;
        let room = rustix::fs::statvfs(&self.members[member].data)?;
        let bytes = room.f_bavail * room.f_frsize;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes.saturating_sub(4096).max(4096))?;
        Ok(())
    }

    pub fn start_all(&mut self) -> Result<()> {
        (0..self.members.len()).try_for_each(|member| self.start(member))
    }

    pub fn start(&mut self, number: usize) -> Result<()> {
        let cluster: Vec<_> = self.members.iter().map(|m| format!("{}=http://{}:2380", m.name, m.ip)).collect();
        let cluster = cluster.join(",");
        let log = self.folder.path().join(format!("m{}.log", number + 1));
        let log = File::options().create(true).append(true).open(log)?;
        let clock = self.clock(number);
        let faketime = self.faketime.clone();
        let member = &mut self.members[number];
        ensure!(member.child.is_none(), "{} runs already", member.name);
        let (client, peer) = (format!("http://{}:2379", member.ip), format!("http://{}:2380", member.ip));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &member.namespace, env!("CARGO_BIN_EXE_vt"), "store", "serve"]);
        command.args(["--name", &member.name, "--data-dir"]).arg(&member.data);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &cluster, "--initial-cluster-state", "new"]);
        command.args(["--initial-cluster-token", &self.tag]);
        if let Some(library) = faketime {
            fs::write(&clock, "+0\n")?;
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &clock);
            // The wall clock jumps; the monotonic one cannot, on any Linux.
            command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_CACHE_DURATION", "1");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        member.child = Some(command.spawn().context("start a member")?);
        member.starts += 1;
        Ok(())
    }

    fn clock(&self, member: usize) -> PathBuf {
        self.folder.path().join(format!("m{}.clock", member + 1))
    }

    /// Sets a member's wall clock off by so much, where the machine has the library for it.
    pub fn jump(&self, member: usize, seconds: i64) -> Result<bool> {
        if self.faketime.is_none() {
            return Ok(false);
        }
        fs::write(self.clock(member), format!("{seconds:+}\n"))?;
        Ok(true)
    }

    /// From one moment to the next, as by the loss of its power but for the disk.
    pub fn kill(&mut self, member: usize) {
        self.members[member].end();
    }

    pub fn pause(&mut self, member: usize, paused: bool) -> Result<()> {
        let member = &mut self.members[member];
        let Some(child) = &member.child else { return Ok(()) };
        let signal = if paused { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal)?;
        member.paused = paused;
        Ok(())
    }

    /// Cuts a member off from the other members; its clients still reach it.
    pub fn cut(&self, member: usize, way: Way) -> Result<()> {
        let namespace = &self.members[member].namespace;
        let nft = |rule: &str| run("ip", &["netns", "exec", namespace, "nft", rule]);
        nft("add table inet cut")?;
        nft("add chain inet cut in { type filter hook input priority 0 ; }")?;
        nft("add chain inet cut out { type filter hook output priority 0 ; }")?;
        for other in self.members.iter().filter(|other| other.namespace != *namespace) {
            if way != Way::Out {
                nft(&format!("add rule inet cut in ip saddr {} drop", other.ip))?;
            }
            if way != Way::In {
                nft(&format!("add rule inet cut out ip daddr {} drop", other.ip))?;
            }
        }
        Ok(())
    }

    pub fn mend(&self, member: usize) -> Result<()> {
        let namespace = &self.members[member].namespace;
        run("ip", &["netns", "exec", namespace, "nft", "destroy table inet cut"])
            .or_else(|_| run("ip", &["netns", "exec", namespace, "nft", "flush ruleset"]))
    }

    /// Everybody runs, sees everybody, has room and the right time.
    pub fn heal(&mut self) -> Result<()> {
        for member in 0..self.members.len() {
            self.pause(member, false)?;
            self.mend(member)?;
            let _ = self.fill(member, false);
            self.jump(member, 0)?;
            if !self.runs(member)? {
                self.start(member)?;
            }
        }
        Ok(())
    }

    /// Whether the process lives; one that ended by itself is said with its log.
    pub fn runs(&mut self, member: usize) -> Result<bool> {
        let log = self.folder.path().join(format!("m{}.log", member + 1));
        let member = &mut self.members[member];
        let Some(child) = &mut member.child else { return Ok(false) };
        if let Some(status) = child.try_wait()? {
            bail!("{} ended with {status}:\n{}", member.name, tail(&log));
        }
        Ok(true)
    }

    pub fn logs(&self) -> String {
        let log = |member: &Member| {
            let path = self.folder.path().join(format!("{}.log", member.name));
            format!("--- {} ({} starts)\n{}", member.name, member.starts, tail(&path))
        };
        self.members.iter().map(log).collect::<Vec<_>>().join("\n")
    }
}

fn tail(path: &Path) -> String {
    const LINES_MAX: usize = 25;
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

impl Member {
    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.paused = false;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.unwire();
    }
}

/// Waits until `done`, a minute at most.
pub async fn until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) -> Result<()> {
    const WAIT_MAX: Duration = Duration::from_mins(1);
    let reached = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, reached).await.with_context(|| format!("waited too long until {what}"))
}
