//! A whole cloud in a folder of its own, started and taken down again without a trace.
//!
//! ```text
//! FOLDER/data          what vt up writes
//! FOLDER/config.toml   the context of its command line; the user's own is not touched
//! FOLDER/cloud.log     what vt up says
//! ```

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::interrupt;
use crate::run::{self, kill_group, signal};

/// From the start to the first answer; the first one fetches a kernel.
const START_MAX: Duration = Duration::from_mins(10);
const STOP_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Lines of the log that are shown when it does not start.
const LOG_LINES: usize = 30;
/// Where cgroups may be mounted: version 2, then the trees of version 1.
const CGROUPS: &[&str] = &["", "unified", "memory", "cpu", "cpu,cpuacct", "pids"];

pub struct Cloud {
    program: PathBuf,
    folder: PathBuf,
    process: Child,
    pub api: String,
    pub ingress_port: u16,
}

/// A port of loopback that nobody has: `wanted`, or any.
pub fn free_port(wanted: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    Ok(listener.context("a free port")?.local_addr()?.port())
}

impl Cloud {
    /// Starts `program up` below `folder` and waits until it answers. `echo` shows what it says meanwhile.
    pub fn start(program: &Path, folder: &Path, ports: (u16, u16), echo: bool) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (api, http, tls) = (free_port(ports.0)?, free_port(ports.1)?, free_port(0)?);
        let log = File::create(folder.join("cloud.log"))?;
        let mut command = Command::new(program);
        command.arg("up").arg("--data-dir").arg(folder.join("data"));
        command.args(["--listen", &format!("127.0.0.1:{api}"), "--http-port", &http.to_string()]);
        command.env("VT_CONFIG", folder.join("config.toml")).env("VT_INGRESS_TLS", format!("127.0.0.1:{tls}"));
        command.env("VT_KEYSPACE_LISTEN", format!("127.0.0.1:{}", free_port(0)?));
        // A Ctrl-C on the terminal is for us; the cloud is stopped when all in it is gone.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if echo {
            println!("$ {}", shown(&command));
        }
        let process = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let mut cloud = Cloud {
            program: program.to_owned(),
            folder: folder.to_owned(),
            process,
            api: format!("https://127.0.0.1:{api}"),
            ingress_port: http,
        };
        match cloud.answers(echo) {
            Ok(()) => Ok(cloud),
            Err(error) => {
                cloud.stop();
                Err(error)
            }
        }
    }

    fn answers(&mut self, echo: bool) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        let mut seen = 0;
        loop {
            interrupt::check()?;
            let text = fs::read_to_string(self.log()).unwrap_or_default();
            if echo {
                let whole = text[seen..].rfind('\n').map_or(0, |end| end + 1);
                text[seen..seen + whole].lines().for_each(|line| println!("  {line}"));
                seen += whole;
            }
            if let Some(status) = self.process.try_wait()? {
                let lines: Vec<&str> = text.lines().collect();
                let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
                bail!("vt up ended with {status}:\n  {last}");
            }
            if self.vt(&["auth", "whoami"]).output().is_ok_and(|done| done.status.success()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("vt up does not answer after {} s; its log: {}", START_MAX.as_secs(), self.log().display());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("cloud.log")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Process id of `vt up`.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A command line of this cloud.
    pub fn vt(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("VT_CONFIG", self.config()).env("VT_NO_INPUT", "true").stdin(Stdio::null());
        command
    }

    /// Runs a command with `--json` and reads its answer.
    pub fn json(&self, folder: &Path, arguments: &[&str]) -> Result<Value> {
        let mut command = self.vt(arguments);
        let text = run::output(command.arg("--json").current_dir(folder))?;
        serde_json::from_str(&text).with_context(|| format!("the answer of vt {}", arguments.join(" ")))
    }

    /// Removes an app with all that runs in it.
    pub fn destroy(&self, app: &str) -> Result<()> {
        run::output(&mut self.vt(&["destroy", "-a", app, "--yes"])).map(drop)
    }

    fn destroy_all(&self) -> Result<()> {
        let apps = self.json(Path::new("/"), &["app", "list"])?;
        for app in apps["items"].as_array().into_iter().flatten() {
            if let Some(name) = app["name"].as_str() {
                self.destroy(name)?;
            }
        }
        Ok(())
    }

    /// Removes all apps, ends `vt up`, and takes away what it would leave running or standing for its next start.
    pub fn stop(mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            if let Err(error) = self.destroy_all() {
                println!("  (its apps are ended the hard way: {error:#})");
            }
            signal(&self.process, libc::SIGTERM);
            let deadline = Instant::now() + STOP_MAX;
            while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        if matches!(self.process.try_wait(), Ok(None)) {
            kill_group(&self.process);
            self.process.wait().ok();
        }
        sweep(&self.data());
    }
}

/// A command as a person would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Takes away machines, devices, tables and groups of the cloud that lived in `data`. Each carries the cloud's tag; what
/// has none is not touched.
pub fn sweep(data: &Path) {
    let Ok(text) = fs::read_to_string(data.join("identity.json")) else { return };
    let identity: Value = serde_json::from_str(&text).unwrap_or_default();
    let Some(tag) = identity["tag"].as_str().filter(|tag| tag.len() >= 4) else { return };
    for entry in fs::read_dir(data.join("vms")).into_iter().flatten().flatten() {
        end_machine(&entry.path(), tag);
    }
    let quiet = |program: &str, arguments: &[&str]| {
        // What is not there needs no removing; what stays is swept by the next start with this folder.
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().ok();
    };
    for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if [format!("vt{tag}n"), format!("vt{tag}p")].iter().any(|ours| name.starts_with(ours)) {
            quiet("ip", &["link", "delete", &name]);
        }
    }
    for family in ["inet", "bridge"] {
        quiet("nft", &["delete", "table", family, &format!("vt_{tag}")]);
    }
    for tree in CGROUPS {
        let group = Path::new("/sys/fs/cgroup").join(tree).join(format!("photon-{tag}"));
        for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
            fs::remove_dir(entry.path()).ok();
        }
        fs::remove_dir(group).ok();
    }
}

/// Ends the process of one machine's record, if it is still that machine's.
fn end_machine(folder: &Path, tag: &str) {
    let Ok(text) = fs::read_to_string(folder.join("machine.json")) else { return };
    let record: Value = serde_json::from_str(&text).unwrap_or_default();
    let Some(pid) = record["run"]["pid"].as_i64().and_then(|pid| libc::pid_t::try_from(pid).ok()) else { return };
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if pid > 1 && String::from_utf8_lossy(&line).contains(&format!("vt-{tag}-")) {
        // SAFETY: kill(2) takes numbers; the process carries this cloud's mark on its command line.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}
