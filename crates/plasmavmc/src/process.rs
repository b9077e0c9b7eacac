//! Processes that may not be our children: told apart by pid and start time, watched and killed by descriptor.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// One process. The descriptor stays its own even after its pid is another's.
#[derive(Debug)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks between the host's boot and its start.
    pub started_ticks: u64,
    descriptor: AsyncFd<OwnedFd>,
}

impl Process {
    /// The process with this pid, alive.
    pub fn open(pid: u32) -> io::Result<Self> {
        let gone = || io::Error::from(rustix::io::Errno::SRCH);
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let descriptor = pidfd_open(number, PidfdFlags::NONBLOCK)?;
        // Read after the descriptor is open: from here on it can be no other process.
        let started_ticks = started_ticks(pid).ok_or_else(gone)?;
        // SAFETY: the `OwnedFd` owns an open descriptor, and nothing replaces or closes it while the `AsyncFd` has it.
        let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        Ok(Self { pid, started_ticks, descriptor: registered.map_err(io::Error::from)? })
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        // A descriptor that cannot be watched would end every wait at once; it never happened, and polling covers it.
        if self.descriptor.readable().await.is_err() {
            while self.alive() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// True when it ended within `limit`.
    pub async fn ended_within(&self, limit: Duration) -> bool {
        timeout(limit, self.ended()).await.is_ok()
    }

    /// False when it has ended, reaped or not.
    pub fn alive(&self) -> bool {
        started_ticks(self.pid) == Some(self.started_ticks)
    }

    pub fn kill(&self) {
        // The only failure is that it is gone.
        let _ = pidfd_send_signal(self.descriptor.get_ref(), Signal::KILL);
    }
}

/// When the process with this pid started, in clock ticks since boot; `None` when there is none, or a dead one.
pub fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, so the fields are counted from the last one. Source: proc(5).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The arguments it was started with.
pub fn arguments(pid: u32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = |argument: &[u8]| String::from_utf8_lossy(argument).into_owned();
    Some(bytes.strip_suffix(&[0]).unwrap_or(&bytes).split(|&byte| byte == 0).map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_seen_to_live_and_to_end() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        assert!(process.alive() && process.started_ticks > 0);
        // Right after exec the kernel has no arguments to show yet.
        while arguments(child.id()).unwrap() == [""] {
            tokio::task::yield_now().await;
        }
        assert_eq!(arguments(child.id()).unwrap(), ["sleep", "60"]);
        assert!(!process.ended_within(Duration::from_millis(20)).await);
        process.kill();
        assert!(process.ended_within(Duration::from_secs(10)).await);
        // Dead and not yet reaped: gone all the same.
        assert!(!process.alive());
        child.wait().unwrap();
        assert!(Process::open(child.id()).is_err());
    }
}
