//! Programs with argument vectors.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the tree").to_owned()
}

/// The folder of what is built.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path))
}

/// A cargo command at the root of the tree.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    forget_package(&mut command);
    command
}

/// Takes out what `cargo run` says of this program's own package. Build scripts look at it, and with it there they and all
/// that depends on them would be built anew at each change between `cargo` and `cargo xtask`.
pub fn forget_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
}

/// Runs to the end; what it prints is shown.
pub fn show(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Runs to the end and returns standard output; on failure standard error is in the error.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} failed: {}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Like [`output`], and standard error is shown as it comes.
pub fn output_with_progress(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let done = done.with_context(|| format!("starting {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} failed: {}", done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Time since `began`, for people.
pub fn show_elapsed(began: Instant) -> String {
    let seconds = began.elapsed().as_secs_f64();
    if seconds < 90.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.0} min {:02.0} s", (seconds / 60.0).floor(), seconds % 60.0)
    }
}

/// Sends a signal to a child.
pub fn signal(child: &Child, number: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id fits");
    // SAFETY: kill(2) takes numbers; the child has not been waited for, so the number is its own.
    unsafe { libc::kill(pid, number) };
}

/// True when this program may do anything.
pub fn is_root() -> bool {
    // SAFETY: geteuid(2) has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Ends a child that was started in a process group of its own, and all that it started there.
pub fn kill_group(child: &Child) {
    let group = libc::pid_t::try_from(child.id()).expect("a process id fits");
    // SAFETY: kill(2) takes numbers; the group is the child's, which has not been waited for, so the number is its own.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}
