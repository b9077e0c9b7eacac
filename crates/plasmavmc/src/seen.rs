//! What a machine is right now, as far as the host can see.

use model::guest;
use serde::{Deserialize, Serialize};

use crate::qemu::Accelerator;

/// Where the machine's process is. Where its workload is stands in [`Guest`].
///
/// ```text
///   Stopped --ensure--> Starting --jail proven, CPUs let go--> Running --stop--> Stopping --> Stopped
///      ^                   |  ^                                 |  |  ^
///      +---ensure--- Failed+<-|------ died, for a reason -------+  |  +---------ensure-----------+
///                             +---ensure--- Sleeping <--sleep------+---pause / sleep--> Warm ----+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its process is being made.
    Starting,
    /// Its process lives.
    Running,
    /// Its process lives, and its virtual CPUs stand still.
    Warm,
    /// It has no process; its memory is on the disk.
    Sleeping,
    /// It was asked to end.
    Stopping,
    /// It does not run and was asked not to, or never to yet.
    Stopped,
    /// It does not run though it was asked to; [`End`] says why.
    Failed,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Warm => "warm",
            Phase::Sleeping => "sleeping",
            Phase::Stopping => "stopping",
            Phase::Stopped => "stopped",
            Phase::Failed => "failed",
        }
    }
}

/// What a run went on from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub from: Start,
    /// Why it booted and did not go on from something saved; empty when there was nothing to go on from, or it did.
    pub why: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The kernel's first instruction.
    #[default]
    Boot,
    /// A template of its shape.
    Template,
    /// Its own memory, kept on the disk while it slept.
    Sleep,
}

/// How the last run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub code: EndCode,
    /// For people; may be empty.
    pub detail: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// Stable words for how a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCode {
    /// As asked.
    Stopped,
    /// As asked; its memory is on the disk.
    Asleep,
    /// The guest powered itself off.
    GuestPoweredOff,
    /// The guest's kernel panicked.
    GuestPanicked,
    /// The host's kernel killed the machine for exceeding its memory, the monitor's part included.
    OomKilled,
    /// The monitor was killed by a signal from outside.
    VmmKilled,
    /// The monitor ended by itself with an error.
    VmmFailed,
    /// It never came to life: the process, its jail, or its disks could not be made.
    #[serde(rename = "vm_start_failed")]
    StartFailed,
    /// The guest did not report for duty in time.
    BootTimeout,
    /// Guest and host speak no common protocol, or the guest refused its configuration.
    HandshakeFailed,
    /// The host was restarted, and no process outlives that.
    HostRestarted,
    /// It was gone when the engine came back; how is not known.
    #[serde(rename = "vmm_vanished")]
    Vanished,
}

impl EndCode {
    pub const ALL: [EndCode; 12] = [
        EndCode::Stopped,
        EndCode::Asleep,
        EndCode::GuestPoweredOff,
        EndCode::GuestPanicked,
        EndCode::OomKilled,
        EndCode::VmmKilled,
        EndCode::VmmFailed,
        EndCode::StartFailed,
        EndCode::BootTimeout,
        EndCode::HandshakeFailed,
        EndCode::HostRestarted,
        EndCode::Vanished,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            EndCode::Stopped => "stopped",
            EndCode::Asleep => "asleep",
            EndCode::GuestPoweredOff => "guest_powered_off",
            EndCode::GuestPanicked => "guest_panicked",
            EndCode::OomKilled => "oom_killed",
            EndCode::VmmKilled => "vmm_killed",
            EndCode::VmmFailed => "vmm_failed",
            EndCode::StartFailed => "vm_start_failed",
            EndCode::BootTimeout => "boot_timeout",
            EndCode::HandshakeFailed => "handshake_failed",
            EndCode::HostRestarted => "host_restarted",
            EndCode::Vanished => "vmm_vanished",
        }
    }
}

/// The guest's own account of itself, as it last reached the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// False while the channel to it is down; the rest is then what it said last.
    pub connected: bool,
    /// Changes with each boot.
    pub boot_id: String,
    pub init_version: String,
    pub configured: bool,
    /// Phase of the workload, readiness, restarts, last exit, failure.
    pub state: guest::State,
    /// By the guest's clock at its last hello plus the host's time since, in milliseconds.
    pub uptime_ms: u64,
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    /// Of the specification that runs, or would.
    pub generation: u64,
    pub phase: Phase,
    /// The monitor's process.
    pub pid: Option<u32>,
    /// Of the host's attempt to boot; empty when it does not run.
    pub boot_id: String,
    /// When the process was started, in milliseconds since the Unix epoch.
    pub started_at_ms: Option<u64>,
    /// Since then; 0 when it does not run.
    pub uptime_ms: u64,
    /// How often its process was started since the machine was made.
    pub boots: u64,
    pub accelerator: Option<Accelerator>,
    /// Of the run, when there is one.
    pub origin: Origin,
    /// Since when it sleeps, in milliseconds since the Unix epoch.
    pub asleep_since_ms: Option<u64>,
    /// `None` until it has reported in this run.
    pub guest: Option<Guest>,
    /// How the run before this one ended, or the last one when none runs.
    pub end: Option<End>,
    /// The last end was the host's out-of-memory kill, or the workload's last exit the guest's.
    pub oom_killed: bool,
}

impl Seen {
    /// Restarts of the workload inside of this boot.
    pub fn restarts(&self) -> u32 {
        self.guest.as_ref().map_or(0, |guest| guest.state.restarts)
    }

    /// Runs, reports, and passed its health check or has none.
    pub fn ready(&self) -> bool {
        self.phase == Phase::Running && self.guest.as_ref().is_some_and(|guest| guest.connected && guest.state.ready)
    }

    /// The most telling word and sentence for why it is not ready: a fault first, else the step it is at.
    pub fn why_not_ready(&self) -> Option<(&'static str, String)> {
        if self.ready() {
            return None;
        }
        if self.phase != Phase::Running {
            return Some(match (&self.end, self.phase) {
                (Some(end), Phase::Failed) => (end.code.as_str(), end.detail.clone()),
                _ => (self.phase.as_str(), String::new()),
            });
        }
        let Some(guest) = &self.guest else { return Some(("booting", "the guest's kernel is starting".to_owned())) };
        let state = &guest.state;
        if !guest.connected {
            return Some(("guest_unreachable", "the guest does not answer".to_owned()));
        }
        if state.last_exit.is_some_and(|exit| exit.oom) {
            return Some(("oom_killed", "the workload was killed for exceeding the machine's memory".to_owned()));
        }
        if let Some(failure) = state.failure {
            return Some((failure.as_str(), state.detail.clone()));
        }
        Some(match state.phase {
            guest::Phase::Waiting => ("booting", "the guest waits for its configuration".to_owned()),
            guest::Phase::Applying => ("configuring", "the guest mounts and addresses itself".to_owned()),
            guest::Phase::Running if state.detail.is_empty() => {
                ("healthcheck_waiting", "no health check has passed yet".to_owned())
            }
            guest::Phase::Running => ("healthcheck_failed", state.detail.clone()),
            guest::Phase::Backoff => ("crash_loop_backoff", state.detail.clone()),
            guest::Phase::Completed => {
                ("completed", "the workload ended, and its policy does not start it again".to_owned())
            }
            guest::Phase::Failed => ("workload_crashed", state.detail.clone()),
            guest::Phase::Stopping => ("stopping", String::new()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_on_the_disk_are_the_words_in_the_api() {
        for code in EndCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn a_machine_that_is_not_ready_says_why() {
        let guest = Guest {
            connected: true,
            boot_id: "b".to_owned(),
            init_version: "1".to_owned(),
            configured: true,
            state: guest::State { phase: guest::Phase::Running, ready: true, ..guest::State::default() },
            uptime_ms: 1,
        };
        let mut seen = Seen {
            id: "vm_1".to_owned(),
            generation: 1,
            phase: Phase::Running,
            pid: Some(2),
            boot_id: "a".to_owned(),
            started_at_ms: Some(1),
            uptime_ms: 1,
            boots: 1,
            accelerator: Some(Accelerator::Tcg),
            origin: Origin::default(),
            asleep_since_ms: None,
            guest: Some(guest),
            end: None,
            oom_killed: false,
        };
        assert_eq!(seen.why_not_ready(), None);
        seen.guest.as_mut().unwrap().state.ready = false;
        assert_eq!(seen.why_not_ready().unwrap().0, "healthcheck_waiting");
        seen.guest.as_mut().unwrap().state.last_exit = Some(guest::Exit { code: None, signal: Some(9), oom: true });
        assert_eq!(seen.why_not_ready().unwrap().0, "oom_killed");
        seen.guest = None;
        assert_eq!(seen.why_not_ready().unwrap().0, "booting");
        seen.phase = Phase::Failed;
        seen.end = Some(End { code: EndCode::VmmKilled, detail: "signal 9".to_owned(), at_ms: 5 });
        assert_eq!(seen.why_not_ready(), Some(("vmm_killed", "signal 9".to_owned())));
    }
}
