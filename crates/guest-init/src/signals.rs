//! Signals as something to read, and children as something to collect.

use std::os::fd::{FromRawFd, OwnedFd};

use model::guest::Exit;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

/// What the loop cares about. SIGIO comes from the port; the others ask the machine to stop.
const WATCHED: [libc::c_int; 7] =
    [libc::SIGCHLD, libc::SIGIO, libc::SIGTERM, libc::SIGINT, libc::SIGPWR, libc::SIGUSR1, libc::SIGUSR2];

/// What came in since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A program of the machine asked init to stop it, as `poweroff` and `reboot` do.
    pub stop: bool,
}

/// Blocks the watched signals, in this and all later threads, and gives a descriptor to read them from.
pub fn watch() -> std::io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use, and the descriptor is ours alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in WATCHED {
            libc::sigaddset(&raw mut set, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) < 0 {
            return Err(std::io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(std::io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Empties the descriptor.
pub fn read(signals: &OwnedFd) -> Seen {
    const RECORD: usize = size_of::<libc::signalfd_siginfo>();
    let mut seen = Seen::default();
    let mut buffer = [0u8; RECORD * 8];
    while let Ok(length) = rustix::io::read(signals, &mut buffer) {
        if length == 0 {
            break;
        }
        for record in buffer[..length].chunks_exact(RECORD) {
            // The number stands first in the kernel's record.
            let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]) as libc::c_int;
            seen.stop |= number != libc::SIGCHLD && number != libc::SIGIO;
        }
    }
    seen
}

/// The next dead child, whoever started it: orphans of the whole machine end up here.
pub fn reap() -> Option<(Pid, Exit)> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => return Some((pid, exit_of(status))),
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

fn exit_of(status: WaitStatus) -> Exit {
    Exit { code: status.exit_status(), signal: status.terminating_signal(), oom: false }
}
