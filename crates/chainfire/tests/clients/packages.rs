//! Packages of other languages, below the folder of what is built.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs into a new folder by `install`, which gets it and answers why not; a folder that is there already stays. Two who
/// do it at once do not meet: each fills a folder of its own, and the first one is kept.
pub fn installed(name: &str, install: impl Fn(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    let place = home.join(name);
    if place.exists() {
        return Ok(place);
    }
    std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
    let fresh = tempfile::Builder::new().prefix(name).tempdir_in(&home).map_err(|error| error.to_string())?;
    install(fresh.path())?;
    let fresh = fresh.keep();
    if std::fs::rename(&fresh, &place).is_err() {
        // Somebody else was first.
        let _ = std::fs::remove_dir_all(&fresh);
    }
    if place.exists() { Ok(place) } else { Err(format!("{} is not there", place.display())) }
}

/// Where a registry is not reached, installers try again and again.
const INSTALL_MAX: &str = "150s";

/// Runs an installer; the end of what it says is why it failed.
pub fn run(command: &Command) -> Result<(), String> {
    let mut limited = Command::new("timeout");
    limited.arg(INSTALL_MAX).arg(command.get_program()).args(command.get_args());
    let done = limited.output().map_err(|error| format!("timeout: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    if done.status.code() == Some(124) {
        return Err(format!("{} was not done after {INSTALL_MAX}", command.get_program().to_string_lossy()));
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
    Err(format!("{} failed: {last}", command.get_program().to_string_lossy()))
}
