//! The tests that come with the crate `etcd-client`, unchanged, at the real etcd and at `vt store serve`.
//!
//! No part of `cargo xtask test`: the crate and what it stands on are built anew, which takes minutes, and its build needs
//! protoc. The tests talk to port 2379 of this machine, so each server gets a network of its own and the tests run there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::packages;
use crate::run::{self, cargo, output, show};

const CRATE: &str = "etcd-client";
const VERSION: &str = "=0.21.1";
const ENDPOINT: &str = "http://127.0.0.1:2379";
const PEER: &str = "http://127.0.0.1:2380";

const NEEDED: &[(&str, &str)] = &[
    ("protobuf-compiler", "the build of etcd-client"),
    ("libprotobuf-dev", "what its protocol includes"),
    ("etcd-server", "the real etcd, to compare with"),
    ("iproute2", "a network for each server"),
];

const START_WAIT: Duration = Duration::from_mins(1);
const START_LOOK_EVERY: Duration = Duration::from_millis(100);

/// A network with nothing but itself in it, removed when dropped.
struct Network {
    name: String,
}

impl Network {
    fn new(of: &str) -> Result<Self> {
        let network = Self { name: format!("photon-{of}-{}", std::process::id()) };
        show(Command::new("ip").args(["netns", "add", &network.name]))?;
        show(&mut network.command("ip", &["link", "set", "lo", "up"]))?;
        Ok(network)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).args(arguments);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the crate's tests at both servers. Whatever passes at etcd has to pass at `vt`.
pub fn clients() -> Result<()> {
    if !run::is_root() {
        bail!("networks of their own need root");
    }
    packages::ensure(&[NEEDED])?;
    let home = run::target().join(CRATE);
    show(&mut cargo(&["build", "--package", "vt", "--locked"]))?;
    let tests = built(&home)?;
    let vt = run::target().join("debug/vt");
    let data = home.join("data");
    let at_etcd = tested("etcd", &tests, |network| {
        let mut command = network.command("etcd", &["--name", "only", "--data-dir"]);
        command.arg(data.join("etcd")).args(["--listen-client-urls", ENDPOINT, "--advertise-client-urls", ENDPOINT]);
        command.args(["--listen-peer-urls", PEER, "--initial-advertise-peer-urls", PEER]);
        command.args(["--initial-cluster", &format!("only={PEER}")]);
        command
    })?;
    let at_vt = tested("vt", &tests, |network| {
        let mut command = network.command(&vt, &["store", "serve", "--name", "only", "--data-dir"]);
        command.arg(data.join("vt")).args(["--listen-client-urls", ENDPOINT, "--advertise-client-urls", ENDPOINT]);
        command
    })?;
    fs::remove_dir_all(&data).ok();
    println!("{} tests of {CRATE} pass at etcd, {} at vt", at_etcd.len(), at_vt.len());
    let missing: Vec<_> = at_etcd.difference(&at_vt).collect();
    if at_etcd.is_empty() || !missing.is_empty() {
        bail!("these pass at etcd and not at vt: {missing:?}");
    }
    Ok(())
}

/// The crate's own test programs.
fn built(home: &Path) -> Result<Vec<PathBuf>> {
    let source = home.join("source");
    let _ = fs::remove_dir_all(&source);
    fs::create_dir_all(home)?;
    copy(&fetched(home)?, &source)?;
    let manifest = source.join("Cargo.toml");
    // It lies below this workspace and is none of it.
    let text = fs::read_to_string(&manifest)? + "\n[workspace]\n";
    fs::write(&manifest, text)?;
    let mut build = cargo(&["test", "--no-run", "--message-format=json-render-diagnostics", "--manifest-path"]);
    build.arg(&manifest).arg("--target-dir").arg(home.join("build")).env("CARGO_PROFILE_DEV_DEBUG", "0");
    let lines = run::output_with_progress(&mut build)?;
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["kind"][0] == "test";
        message["executable"].as_str().filter(|_| is_test).map(PathBuf::from)
    };
    Ok(lines.lines().filter_map(program).collect())
}

/// Where cargo has put the crate's source.
fn fetched(home: &Path) -> Result<PathBuf> {
    let asking = home.join("asking");
    fs::create_dir_all(asking.join("src"))?;
    fs::write(asking.join("src/lib.rs"), "")?;
    let manifest = asking.join("Cargo.toml");
    let text = "[package]\nname = \"asking\"\nversion = \"0.0.0\"\nedition = \"2024\"\n";
    fs::write(&manifest, format!("{text}[dependencies]\n{CRATE} = \"{VERSION}\"\n[workspace]\n"))?;
    let told = output(cargo(&["metadata", "--format-version=1", "--manifest-path"]).arg(&manifest))?;
    let told: Value = serde_json::from_str(&told).context("what cargo tells")?;
    let packages = told["packages"].as_array().context("a list of packages")?;
    let package = packages.iter().find(|package| package["name"] == CRATE).context("the crate among them")?;
    let path = package["manifest_path"].as_str().context("where it lies")?;
    Ok(Path::new(path).parent().context("a folder")?.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Names of the tests that pass.
fn tested(name: &str, tests: &[PathBuf], server: impl Fn(&Network) -> Command) -> Result<BTreeSet<String>> {
    println!("\n== at {name}");
    let network = Network::new(name)?;
    let log = run::target().join(CRATE).join(format!("{name}.log"));
    let file = fs::File::create(&log)?;
    let mut command = server(&network);
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let running = Server(command.spawn().with_context(|| format!("starting {name}"))?);
    let until = Instant::now() + START_WAIT;
    let asks = ["--endpoints", ENDPOINT, "get", "up"];
    while !network.command("etcdctl", &asks).env("ETCDCTL_API", "3").output()?.status.success() {
        if Instant::now() > until {
            bail!("{name} does not answer; its log is {}", log.display());
        }
        thread::sleep(START_LOOK_EVERY);
    }
    let mut passed = BTreeSet::new();
    for test in tests {
        let done = network.command(test, &["--test-threads", "4"]).output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        print!("{said}");
        passed.extend(said.lines().filter_map(|line| {
            let name = line.strip_prefix("test ")?.strip_suffix(" ... ok")?;
            Some(name.to_owned())
        }));
    }
    drop(running);
    Ok(passed)
}
