//! Machines, measured: a clone's start, a wake from the disk and from standing still, beside a bare QEMU boot of the same
//! kernel, root image, memory and vcpus; twenty clones at once, and what they take of the memory.
//!
//! Everything compared runs in turns in one run.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::bare::Bare;
use super::figures::{Figures, median};
use super::{CONNECT_MAX, MANIFEST, deploy, first_answer, machine, now_ms, open};
use crate::cloud::Cloud;
use crate::http::{self, Connection};
use crate::interrupt;

const ROUNDS: usize = 7;
const MANY: usize = 20;
/// For the template of a first machine's shape to be there.
const TEMPLATE_MAX: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const SETTLE: Duration = Duration::from_secs(10);
/// It rests when it is told to, and its memory is a file from the start.
const RESTS: &str = "scaling = { min = 0, idle_seconds = 86400, warm_seconds = 86400 }\n\n[[processes.web.ports]]";

pub fn vm(json: bool) -> Result<()> {
    let say = |text: &str| eprintln!("{text}");
    let (cloud, folder) = open("bench-vm", MANIFEST, &say)?;
    let mut figures = Figures::default();
    let measured = measure(&cloud, &folder, &mut figures, &say);
    say("taking the cloud down");
    cloud.stop();
    measured?;
    figures.print(json)
}

fn measure(cloud: &Cloud, folder: &Path, figures: &mut Figures, say: &dyn Fn(&str)) -> Result<()> {
    let app = folder.join("app");
    say("a first deploy, so that image, kernel and template are there");
    cloud.json(&app, &["deploy", "-a", "first"])?;
    let sample = machine::Sample::read(&cloud.data())?;
    figures.note("accelerator", sample.accelerator());
    let bare = Bare::prepare(&folder.join("bare"), &cloud.data(), &sample)?;
    template(cloud)?;
    cloud.destroy("first")?;

    let sleeper = folder.join("sleeper");
    fs::create_dir_all(&sleeper)?;
    let manifest = fs::read_to_string(app.join("vt.toml"))?;
    fs::write(sleeper.join("vt.toml"), manifest.replacen("[[processes.web.ports]]", RESTS, 1))?;
    cloud.json(&sleeper, &["deploy", "-a", "sleeper"])?;

    let (mut clones, mut boots, mut wakes, mut warms, mut awake) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        interrupt::check()?;
        boots.push(bare.boot()?);
        clones.push(deploy(cloud, &app, &format!("clone-{round}"))?.0);
        cloud.json(&sleeper, &["sleep", "-a", "sleeper"])?;
        wakes.push(ask(cloud, "sleeper")?);
        began(cloud, &sleeper, "sleeper", "sleep")?;
        cloud.json(&sleeper, &["sleep", "--warm", "-a", "sleeper"])?;
        warms.push(ask(cloud, "sleeper")?);
        awake.push(ask(cloud, "sleeper")?);
        let last = |values: &[f64]| values.last().copied().unwrap_or_default();
        say(&format!(
            "round {round} of {ROUNDS}: bare boot {:.0} ms, clone {:.0}, wake {:.0}, from warm {:.1}, awake {:.1}",
            last(&boots),
            last(&clones),
            last(&wakes),
            last(&warms),
            last(&awake)
        ));
    }
    cloud.destroy("sleeper")?;
    let (boot, clone) = (median(&mut boots), median(&mut clones));
    let (wake, warm, awake) = (median(&mut wakes), median(&mut warms), median(&mut awake));
    figures.add("clone_start_over_bare_boot", clone / boot, "", Some(0.25));
    figures.add("wake_over_bare_boot", wake / boot, "", Some(0.15));
    figures.add("warm_answer_more_ms", warm - awake, "ms", Some(10.0));
    figures.add("bare_boot_to_200_ms", boot, "ms", None);
    figures.add("clone_start_to_200_ms", clone, "ms", None);
    figures.add("wake_to_200_ms", wake, "ms", None);

    say(&format!("{MANY} clones at once"));
    let took = many(cloud, folder, &manifest)?;
    figures.add("twenty_clones_over_bare_boot", took / boot, "", Some(2.5));
    std::thread::sleep(SETTLE);
    figures.add("clone_proportional_mb", machine::proportional_mb(&cloud.data())?, "MB", Some(40.0));
    cloud.destroy("many")
}

/// Waits until a template is there.
fn template(cloud: &Cloud) -> Result<()> {
    let deadline = Instant::now() + TEMPLATE_MAX;
    while Instant::now() < deadline {
        let folders = fs::read_dir(cloud.data().join("vms/.templates")).into_iter().flatten().flatten();
        if folders.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("machine-")) {
            std::thread::sleep(Duration::from_secs(1));
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    bail!("no template after {} s", TEMPLATE_MAX.as_secs())
}

/// Milliseconds from a request to its answer, over a new connection.
fn ask(cloud: &Cloud, name: &str) -> Result<f64> {
    let url = format!("http://{name}-prod.vt.localhost:{}", cloud.ingress_port);
    let (addr, host) = http::place(&url)?;
    let began = now_ms();
    let answered = first_answer(|| Connection::open(addr, &host, CONNECT_MAX)).with_context(|| url)?;
    Ok(answered - began)
}

/// What is measured must be what it is called.
fn began(cloud: &Cloud, folder: &Path, name: &str, wanted: &str) -> Result<()> {
    let vms = cloud.json(folder, &["vm", "list", "-a", name])?;
    let how = &vms["items"][0]["status"];
    if how["began"] != wanted {
        bail!("it began by {} ({})", how["began"], how["began_why"]);
    }
    Ok(())
}

/// Milliseconds from an accepted deploy of many instances until all of them are ready.
fn many(cloud: &Cloud, folder: &Path, manifest: &str) -> Result<f64> {
    let app = folder.join("many");
    fs::create_dir_all(&app)?;
    let scaling = format!("scaling = {{ min = {MANY}, max = {MANY} }}\n\n[[processes.web.ports]]");
    fs::write(app.join("vt.toml"), manifest.replacen("[[processes.web.ports]]", &scaling, 1))?;
    cloud.json(&app, &["deploy", "-a", "many"])?;
    let deploys = cloud.json(&app, &["deploy", "list", "-a", "many"])?;
    let accepted = deploys["items"][0]["created_ms"].as_f64().context("a deploy says when it was made")?;
    let vms = cloud.json(&app, &["vm", "list", "-a", "many"])?;
    let vms = vms["items"].as_array().context("a list of instances")?;
    let since: Vec<f64> = vms.iter().filter_map(|vm| vm["status"]["state_since_ms"].as_f64()).collect();
    let clones = vms.iter().filter(|vm: &&Value| vm["status"]["began"] == "template").count();
    if since.len() != MANY || clones != MANY {
        bail!("{} of {MANY} instances are ready, {clones} began as clones", since.len());
    }
    Ok(since.into_iter().fold(accepted, f64::max) - accepted)
}
