//! The end.

use rustix::system::{RebootCommand, reboot};

use crate::disk::{self, Scratch};
use crate::{clock, console, signals};

/// For processes that neither the workload nor a session accounts for.
const STRAGGLERS_MS: u64 = 200;

/// Ends every other process, settles the disks and leaves. A restart is asked for, not a power-off: the hypervisor ends
/// on either, and a triple fault needs neither ACPI nor a keyboard controller.
pub fn off(scratch: Option<&Scratch>) -> ! {
    // SAFETY: -1 means every process but this one.
    unsafe { libc::kill(-1, libc::SIGKILL) };
    let deadline = clock::monotonic_ms() + STRAGGLERS_MS;
    while clock::monotonic_ms() < deadline && any_child() {
        clock::nap(5);
    }
    match scratch {
        Some(scratch) => disk::settle(scratch),
        None => rustix::fs::sync(),
    }
    for command in [RebootCommand::Restart, RebootCommand::PowerOff] {
        if let Err(error) = reboot(command) {
            console::error(&format!("power: {error}"));
        }
    }
    loop {
        clock::nap(1000);
    }
}

fn any_child() -> bool {
    while signals::reap().is_some() {}
    !matches!(rustix::process::wait(rustix::process::WaitOptions::NOHANG), Err(rustix::io::Errno::CHILD))
}
