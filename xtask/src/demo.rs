//! The cloud with a real image in it, shown step by step, in a folder of its own.
//!
//! ```text
//! target/sample           images that umoci made of Debian's nginx
//! target/demo/registry    a docker-registry on loopback
//! target/demo/data        the cloud
//! target/demo/app         where vt.toml is
//! ```
//!
//! Everything ends with it: apps, machines, networks, the registry, vt.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cloud::{Cloud, shown};
use crate::http::{self, Load};
use crate::registry::Registry;
use crate::run::{self, cargo, show};
use crate::{cloud, interrupt, packages, sample};

/// Ports that the demo takes when they are free.
const PORTS: (u16, u16) = (7700, 8080);
/// Workers of the load while a release rolls out.
const WORKERS: usize = 3;
/// Requests that have to be answered by as many instances as there are.
const SPREAD_REQUESTS: usize = 60;
const APP: &str = "hello";

/// Installs, builds, shows. `once` ends after the walk instead of waiting for Ctrl-C.
pub fn demo(once: bool) -> Result<()> {
    heading("packages");
    packages::ensure(&[packages::RUN, packages::SAMPLE])?;
    heading("building vt (the first time takes some minutes)");
    show(&mut cargo(&["build", "--release", "--locked", "--package", "vt"]))?;
    if !run::is_root() {
        // Networks, cgroups and jails are root's.
        let mut again = Command::new("sudo");
        interrupt::listen();
        again.arg("-E").arg(std::env::current_exe()?).args(["demo", "--built"]);
        return show(again.args(once.then_some("--once")));
    }
    walk(once)
}

/// The part that needs root.
pub fn walk(once: bool) -> Result<()> {
    interrupt::listen();
    let folder = run::target().join("demo");
    let app = folder.join("app");
    // What an earlier demo left when it was killed, and its data: a demo begins with an empty cloud.
    cloud::sweep(&folder.join("data"));
    for old in [folder.join("data"), folder.join("config.toml"), app.clone()] {
        if old.is_dir() {
            fs::remove_dir_all(&old)?;
        } else if old.exists() {
            fs::remove_file(&old)?;
        }
    }
    fs::create_dir_all(&app)?;
    heading("sample images: Debian's nginx, put together by umoci");
    let layout = std::path::absolute(sample::images(&run::target().join("sample"))?.layout)?;
    heading("the cloud");
    let program = run::target().join("release/vt");
    let cloud = Cloud::start(&program, &folder, PORTS, true)?;
    let walked = Walk { cloud: &cloud, app: &app }.all(&layout, &folder.join("registry"), once);
    heading("the end: apps, machines, networks and vt are taken down");
    cloud.stop();
    walked
}

fn heading(text: &str) {
    println!("\n== {text}");
}

struct Walk<'a> {
    cloud: &'a Cloud,
    app: &'a Path,
}

impl Walk<'_> {
    fn all(&self, layout: &Path, registry: &Path, once: bool) -> Result<()> {
        heading("a manifest, from the image's own settings");
        let image = format!("oci:{}:v1", layout.display());
        self.vt(&["launch", "--image", &image, "-a", APP])?;
        println!("\n$ cat vt.toml\n{}", fs::read_to_string(self.app.join("vt.toml"))?);
        heading("a deploy of an image that is only on this machine");
        self.vt(&["deploy"])?;
        let url = self.url()?;
        heading("the answer, from a microVM");
        curl(&url)?;
        expect(&url, "release v1")?;
        heading("looking around");
        self.vt(&["status"])?;
        self.vt(&["logs", "--tail", "5"])?;
        self.vt(&["exec", "--", "hostname"])?;
        self.vt(&["exec", "--", "uptime"])?;
        heading("three instances behind one URL");
        self.vt(&["scale", "web=3"])?;
        spread(&url, 3)?;
        heading("a second release, from a registry, while requests go on");
        let registry = Registry::start(registry)?;
        let reference = registry.push(layout, "v2")?;
        self.under_load(&url, &["deploy", "--image", &reference])?;
        expect(&url, "release v2")?;
        self.vt(&["releases"])?;
        heading("and back, while requests go on");
        self.under_load(&url, &["rollback"])?;
        expect(&url, "release v1")?;
        heading("why is it as it is");
        self.vt(&["why"])?;
        self.vt(&["admin", "replay"])?;
        if !once {
            self.stay(&url);
        }
        Ok(())
    }

    /// Shows a command, runs it, and fails when it fails.
    fn vt(&self, arguments: &[&str]) -> Result<()> {
        interrupt::check()?;
        let mut command = self.cloud.vt(arguments);
        println!("\n$ {}", shown(&command));
        show(command.current_dir(self.app)).with_context(|| format!("vt {}", arguments.join(" ")))
    }

    fn url(&self) -> Result<String> {
        let status: Value = self.cloud.json(self.app, &["status"])?;
        Ok(status["url"].as_str().context("vt status --json has no url")?.to_owned())
    }

    /// Runs a command while requests go on, and fails when one of them does.
    fn under_load(&self, url: &str, arguments: &[&str]) -> Result<()> {
        let load = Load::start(url, WORKERS)?;
        let outcome = self.vt(arguments);
        // The old instances' last requests belong to it.
        std::thread::sleep(Duration::from_secs(2));
        let (sent, faults) = load.stop()?;
        outcome?;
        println!("  {sent} requests meanwhile, {} failed", faults.len());
        if !faults.is_empty() {
            bail!("requests failed while vt {} ran: {}", arguments.join(" "), faults.join("; "));
        }
        Ok(())
    }

    fn stay(&self, url: &str) {
        let program = run::target().join("release");
        heading("it is yours");
        println!("In another terminal, as root:");
        println!("  export VT_CONFIG={} PATH={}:$PATH", absolute(&self.cloud.config()), absolute(&program));
        println!("  cd {}", absolute(self.app));
        println!("  vt status; vt logs -f; vt exec -it -- sh; vt events -f; vt why; vt --help");
        println!("  curl -i {url}");
        println!("The API is {}, its log {}.", self.cloud.api, absolute(&self.cloud.log()));
        println!("Ctrl-C takes all of it down.");
        while !interrupt::asked() {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn curl(url: &str) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--include", "--max-time", "30", url]);
    println!("\n$ {}", shown(&curl));
    show(&mut curl)
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path)).display().to_string()
}

fn expect(url: &str, words: &str) -> Result<()> {
    let answer = http::get(url)?;
    if answer.status != 200 || !answer.body.contains(words) {
        bail!("{url} answers {} with {:?}, which is not {words:?}", answer.status, answer.body);
    }
    Ok(())
}

/// Asks until as many instances have answered as there are.
fn spread(url: &str, instances: usize) -> Result<()> {
    let mut seen = BTreeSet::new();
    println!("\n$ curl --silent --include {url} | grep X-Instance     (some times)");
    for _ in 0..SPREAD_REQUESTS {
        let answer = http::get(url)?;
        let name = answer.header("x-instance").with_context(|| format!("{url} names no instance"))?.to_owned();
        if seen.insert(name.clone()) {
            println!("X-Instance: {name}");
        }
        if seen.len() == instances {
            return Ok(());
        }
    }
    bail!("{SPREAD_REQUESTS} requests were answered by {} of {instances} instances", seen.len());
}
