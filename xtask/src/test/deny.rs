//! Licenses, bans and sources of every dependency, by `cargo deny` and deny.toml.
//!
//! Advisories are no part of it: they change while the source does not, and their database is not to be had everywhere.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::run::{self, cargo, show};

const VERSION: &str = "=0.20.2";

/// The program on PATH, or one that is built into the target folder: nothing of the user's is touched.
fn program() -> Result<PathBuf> {
    if Command::new("cargo-deny").arg("--version").output().is_ok_and(|done| done.status.success()) {
        return Ok("cargo-deny".into());
    }
    let tools = run::target().join("tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        println!("building cargo-deny into {}", tools.display());
        // It runs for a second and is built for minutes: fast to build comes before fast to run.
        let mut install = cargo(&["install", "cargo-deny", "--locked", "--quiet", "--no-default-features", "--debug"]);
        install.args(["--version", VERSION, "--root"]).arg(&tools).arg("--target-dir").arg(tools.join("build"));
        install.env("CARGO_PROFILE_DEV_DEBUG", "0");
        show(&mut install)?;
        // The build's own files are large and of no more use.
        std::fs::remove_dir_all(tools.join("build")).ok();
    }
    Ok(program)
}

pub fn check() -> Result<()> {
    let mut deny = Command::new(program()?);
    deny.current_dir(run::root()).args(["--log-level", "warn", "check", "licenses", "bans", "sources"]);
    show(&mut deny)
}
