//! The path, measured: how long from an accepted deploy to the first answer, beside a bare QEMU command line with the
//! same kernel, root image, memory and vcpus; what the cloud costs at rest; how fast its API is.
//!
//! Everything compared runs in turns in one run, so that a noisy machine is equally noisy to both.

mod bare;
mod figures;
mod machine;
pub mod store;
pub mod vm;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cloud::Cloud;
use crate::http::{self, Connection};
use crate::run::{self, cargo, output, show};
use crate::{cloud, interrupt, packages, sample};
use figures::Figures;

/// Odd, so that the median is one of them.
const ROUNDS: usize = 7;
/// Between two looks at whether it answers, the same for both.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// An attempt to connect; a lost packet must not cost a whole second.
const CONNECT_MAX: Duration = Duration::from_millis(50);
const ANSWER_MAX: Duration = Duration::from_mins(2);
/// Apps that run while the cloud is at rest.
const RESTING_APPS: usize = 3;
const SETTLE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(30);
/// Requests of each sort over one kept connection, timed by another program than ours.
const REQUESTS: &str = include_str!("bench/requests.py");
const MANIFEST: &str = include_str!("bench/vt.toml");

/// Measures and prints. `write` adds a row to docs/benchmarks.md.
pub fn path(json: bool, write: bool) -> Result<()> {
    // On standard output only the figures, so that a program can read them.
    let say = |text: &str| eprintln!("{text}");
    let (cloud, folder) = open("bench", MANIFEST, &say)?;
    let mut figures = Figures::default();
    let measured = measure(&cloud, &folder, &mut figures, &say);
    say("taking the cloud down");
    cloud.stop();
    measured?;
    figures.print(json)?;
    if write { figures.write() } else { Ok(()) }
}

/// A new cloud of the release build, with an app in a folder of its own.
fn open(name: &str, manifest: &str, say: &dyn Fn(&str)) -> Result<(Cloud, PathBuf)> {
    if !run::is_root() {
        bail!("the bench starts machines: run it as root");
    }
    packages::ensure(&[packages::RUN, packages::SAMPLE, packages::TEST])?;
    say("building vt");
    show(cargo(&["build", "--release", "--locked", "--package", "vt"]).stdout(std::io::stderr()))?;
    interrupt::listen();
    let folder = run::target().join(name);
    cloud::sweep(&folder.join("data"));
    for old in ["data", "app"] {
        fs::remove_dir_all(folder.join(old)).ok();
    }
    fs::remove_file(folder.join("config.toml")).ok();
    fs::create_dir_all(folder.join("app"))?;
    let layout = std::path::absolute(sample::images(&run::target().join("sample"))?.layout)?;
    fs::write(folder.join("app/vt.toml"), manifest.replace("LAYOUT", &layout.display().to_string()))?;
    say("starting the cloud");
    Ok((Cloud::start(&run::target().join("release/vt"), &folder, (0, 0), false)?, folder))
}

fn measure(cloud: &Cloud, folder: &Path, figures: &mut Figures, say: &dyn Fn(&str)) -> Result<()> {
    let app = folder.join("app");
    say("a first deploy, so that image and kernel are there");
    cloud.json(&app, &["deploy", "-a", "first"])?;
    let sample = machine::Sample::read(&cloud.data())?;
    figures.note("accelerator", sample.accelerator());
    cloud.destroy("first")?;

    let bare = bare::Bare::prepare(&folder.join("bare"), &cloud.data(), &sample)?;
    let (mut deploys, mut commands, mut boots) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        interrupt::check()?;
        let (accepted, command) = deploy(cloud, &app, &format!("round-{round}"))?;
        let booted = bare.boot()?;
        say(&format!("round {round} of {ROUNDS}: deploy {accepted:.0} ms, bare boot {booted:.0} ms"));
        deploys.push(accepted);
        commands.push(command);
        boots.push(booted);
    }
    let (deploys, boots) = (figures::median(&mut deploys), figures::median(&mut boots));
    figures.add("deploy_over_bare_boot", deploys / boots, "", Some(1.25));
    figures.add("deploy_accepted_to_200_ms", deploys, "ms", None);
    figures.add("deploy_command_to_200_ms", figures::median(&mut commands), "ms", None);
    figures.add("bare_boot_to_200_ms", boots, "ms", None);

    for number in 1..=RESTING_APPS {
        say(&format!("app {number} of {RESTING_APPS} for the cloud at rest"));
        cloud.json(&app, &["deploy", "-a", &format!("rest-{number}")])?;
    }
    requests(cloud, figures, say)?;
    rest(cloud, figures, say)
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}

/// Milliseconds from the accepted deploy, and from the start of the command, to the first 200 on the app's URL.
fn deploy(cloud: &Cloud, app: &Path, name: &str) -> Result<(f64, f64)> {
    let url = format!("http://{name}-prod.vt.localhost:{}", cloud.ingress_port);
    let (addr, host) = http::place(&url)?;
    let watch = std::thread::spawn(move || first_answer(|| Connection::open(addr, &host, CONNECT_MAX)));
    let began = now_ms();
    cloud.json(app, &["deploy", "-a", name, "--no-wait"])?;
    let answered = watch.join().map_err(|_| anyhow::anyhow!("the watch of {url} fell over"))?;
    let answered = answered.with_context(|| url.clone())?;
    let deploys = cloud.json(app, &["deploy", "list", "-a", name])?;
    let accepted = deploys["items"][0]["created_ms"].as_f64().context("a deploy says when it was made")?;
    cloud.json(app, &["status", "-a", name])?;
    cloud.destroy(name)?;
    Ok((answered - accepted, answered - began))
}

/// When the first 200 came.
fn first_answer(open: impl Fn() -> std::io::Result<Connection>) -> Result<f64> {
    let deadline = Instant::now() + ANSWER_MAX;
    while Instant::now() < deadline {
        let answer = open().and_then(|mut connection| connection.get("/"));
        if answer.is_ok_and(|answer| answer.status == 200) {
            return Ok(now_ms());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    bail!("no answer within {} s", ANSWER_MAX.as_secs())
}

/// Resident memory and CPU share of `vt up` with apps deployed and nobody asking for anything.
fn rest(cloud: &Cloud, figures: &mut Figures, say: &dyn Fn(&str)) -> Result<()> {
    say("the cloud at rest");
    std::thread::sleep(SETTLE);
    let (before, began) = (machine::cpu_seconds(cloud.pid())?, Instant::now());
    std::thread::sleep(REST);
    let share = (machine::cpu_seconds(cloud.pid())? - before) / began.elapsed().as_secs_f64();
    figures.add("rest_resident_mb", machine::resident_mb(cloud.pid())?, "MB", Some(80.0));
    figures.add("rest_cpu_percent", share * 100.0, "% of a core", Some(1.0));
    Ok(())
}

/// Reads and creates over HTTPS; a create is on disk before its answer, so the disk's own pace stands beside it.
fn requests(cloud: &Cloud, figures: &mut Figures, say: &dyn Fn(&str)) -> Result<()> {
    say("requests to the API");
    let projects = cloud.json(Path::new("/"), &["project", "list"])?;
    let project = &projects["items"][0];
    let text = |key: &str| project[key].as_str().with_context(|| format!("a project has its {key}"));
    let scope = format!("{}/{}", text("scope")?, text("id")?);
    let mut python = Command::new("python3");
    python.args(["-c", REQUESTS, &cloud.api, &scope]).arg(cloud.data());
    let answer: Value = serde_json::from_str(&output(&mut python)?).context("what requests.py says")?;
    for name in ["get_p50_ms", "get_p99_ms", "create_p50_ms", "create_p99_ms", "fdatasync_p50_ms"] {
        figures.add(name, answer[name].as_f64().with_context(|| format!("requests.py names no {name}"))?, "ms", None);
    }
    Ok(())
}
