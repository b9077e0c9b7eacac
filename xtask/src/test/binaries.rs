//! The test binaries of the workspace: built by cargo, run one after the other, each with a log and a time limit.
//!
//! Run by hand instead of by `cargo test`, so that a binary that hangs is ended and named, and so that one line stands
//! for each.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::outcome::{self, Counts, Outcome};
use crate::run::{self, cargo, output_with_progress, show_elapsed};

/// A binary that is not done by then hangs.
const BINARY_SECONDS_MAX: u64 = 15 * 60;
const LOOK_EVERY: Duration = Duration::from_millis(50);

struct Binary {
    /// `crate` for unit tests, `crate/it` for an integration binary.
    name: String,
    program: PathBuf,
    /// The crate's folder: tests are run there, as cargo does.
    folder: PathBuf,
}

/// Builds and runs all of them. Errors when one has failed.
pub fn run(quick: bool, counts: &mut Counts) -> Result<()> {
    let built = output_with_progress(&mut cargo(&[
        "test",
        "--workspace",
        "--locked",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]));
    let binaries = listed(&built.inspect_err(|_| counts.failed += 1)?);
    if binaries.is_empty() {
        bail!("cargo names no test binary");
    }
    let logs = run::target().join("test-logs");
    fs::create_dir_all(&logs).context("the folder of logs")?;
    let mut outcomes = Vec::new();
    for binary in &binaries {
        let log = logs.join(format!("{}.log", binary.name.replace('/', "-")));
        let began = Instant::now();
        let outcome = one(binary, &log, quick)?;
        println!("{:<24} {:<36} {}", binary.name, outcome.counts.to_string(), show_elapsed(began));
        counts.add(outcome.counts);
        outcomes.push((binary, log, outcome));
    }
    tell(&outcomes)
}

fn tell(outcomes: &[(&Binary, PathBuf, Outcome)]) -> Result<()> {
    for (binary, _, outcome) in outcomes {
        for (test, reason) in &outcome.skipped {
            println!("skipped {} {test}: {reason}", binary.name);
        }
    }
    let mut failed = Vec::new();
    for (binary, log, outcome) in outcomes {
        for (test, lines) in &outcome.failures {
            println!("\n-- failed: {} {test}   (log: {})\n{}", binary.name, log.display(), lines.join("\n"));
            failed.push(format!("{} {test}", binary.name));
        }
    }
    if !failed.is_empty() {
        bail!("{} failed: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

/// Test binaries in cargo's messages, sorted by name.
fn listed(messages: &str) -> Vec<Binary> {
    let mut binaries: Vec<Binary> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["profile"]["test"] == true)
        .filter_map(|message| {
            let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
            let package = folder.file_name()?.to_str()?.to_owned();
            let target = message["target"]["name"].as_str()?;
            let unit = target.replace('_', "-") == package;
            let name = if unit { package } else { format!("{package}/{target}") };
            Some(Binary { name, program: message["executable"].as_str()?.into(), folder })
        })
        .collect();
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    binaries
}

fn one(binary: &Binary, log: &Path, quick: bool) -> Result<Outcome> {
    let file = File::create(log).with_context(|| log.display().to_string())?;
    let mut command = Command::new(&binary.program);
    // A group of its own, so that what it started ends with it.
    command.current_dir(&binary.folder).arg("--show-output").process_group(0).stdin(Stdio::null());
    run::forget_package(&mut command);
    command.env("CARGO_MANIFEST_DIR", &binary.folder).env("INSTA_UPDATE", "no").env("RUST_BACKTRACE", "1");
    if quick {
        command.env(super::QUICK, "1");
    }
    command.stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("starting {}", binary.program.display()))?;
    let deadline = Instant::now() + Duration::from_secs(BINARY_SECONDS_MAX);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            run::kill_group(&child);
            child.wait()?;
            break None;
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let mut text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    if status.is_none() {
        let _ = writeln!(text, "\nended: not done after {BINARY_SECONDS_MAX} s");
    }
    Ok(outcome::read(&text, status.is_some_and(|status| status.success())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/t/crates/guest-init/Cargo.toml","target":{"name":"guest-init"},"profile":{"test":true},"executable":"/t/a"}
{"reason":"compiler-artifact","manifest_path":"/t/crates/store/Cargo.toml","target":{"name":"it"},"profile":{"test":true},"executable":"/t/b"}
{"reason":"compiler-artifact","manifest_path":"/t/crates/store/Cargo.toml","target":{"name":"store"},"profile":{"test":false},"executable":null}
{"reason":"build-finished","success":true}"#;
        let names: Vec<String> = listed(messages).into_iter().map(|binary| binary.name).collect();
        assert_eq!(names, ["guest-init", "store/it"]);
    }
}
