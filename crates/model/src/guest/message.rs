//! The control messages, as JSON objects tagged by `type`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Config, PROTOCOL_MAX, PROTOCOL_MIN};

/// What the host sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGuest {
    Hello(HelloHost),
    Config(Box<Config>),
    /// Send log lines from this number on, as far as they are still held, and go on with new ones.
    LogsFrom {
        seq: u64,
    },
    /// Every line below `next` arrived; opens the window of [`super::LOG_WINDOW`] again.
    LogsAck {
        next: u64,
    },
    /// Send events from this number on, as far as they are still held, and go on with new ones.
    EventsFrom {
        seq: u64,
    },
    ExecOpen(ExecOpen),
    ExecResize {
        stream: u32,
        rows: u16,
        cols: u16,
    },
    /// A number as in `signal(7)`, to the session's whole process group.
    ExecSignal {
        stream: u32,
        signal: i32,
    },
    /// The client left: HUP now, TERM after 5 s, KILL after 30 s.
    ExecClose {
        stream: u32,
    },
    /// The host took this many more bytes of the session's output.
    ExecCredit {
        stream: u32,
        bytes: u32,
    },
    /// TERM to the process, KILL after the grace time, then power off.
    Shutdown {
        grace_seconds: u32,
    },
    Ping {
        id: u64,
    },
    SetClock {
        unix_ns: u64,
    },
    Stats {
        id: u64,
    },
    /// Let go of everything that another machine would have instead: disks. Only before a configuration; since
    /// protocol 2. The machine is then saved as a template.
    PrepareTemplate,
}

/// What the guest sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToHost {
    Hello(HelloGuest),
    /// The answer to a config: taken, or refused with a reason. A failure while applying it is an event.
    ConfigAck {
        accepted: bool,
        /// From now on; see [`HelloGuest::boot_id`].
        boot_id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<FailureCode>,
        #[serde(default)]
        detail: String,
    },
    Event(Numbered),
    /// The answer to [`ToGuest::LogsFrom`]: lines follow from `seq` on. Larger than `asked` when older ones are lost,
    /// smaller when there never were as many.
    LogsStart {
        asked: u64,
        seq: u64,
    },
    /// Lines from `from` up to, not including, `to` fell out of the ring before they could be sent.
    LogsLost {
        from: u64,
        to: u64,
    },
    ExecStarted {
        stream: u32,
        pid: u32,
    },
    /// The session could not start. Nothing more comes on this stream.
    ExecRefused {
        stream: u32,
        detail: String,
    },
    /// The last message of a stream; all its output came before.
    ExecExit {
        stream: u32,
        exit: Exit,
    },
    /// The guest passed this many more bytes of input to the session.
    ExecCredit {
        stream: u32,
        bytes: u32,
    },
    ShuttingDown,
    Pong {
        id: u64,
    },
    Stats {
        id: u64,
        stats: Stats,
    },
    /// The answer to [`ToGuest::PrepareTemplate`]: `failure` is empty when it is done.
    TemplatePrepared {
        #[serde(default)]
        failure: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloHost {
    /// Fresh for each connection; the guest's answer carries it back.
    pub nonce: String,
    pub protocol_min: u32,
    pub protocol_max: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HelloGuest {
    pub nonce: String,
    pub protocol_min: u32,
    pub protocol_max: u32,
    pub init_version: String,
    /// Changes with each boot, and once more when a config is taken, so that clones of one saved machine differ. Log
    /// and event numbers start at 0 with a boot.
    pub boot_id: String,
    pub uptime_ms: u64,
    /// The id of the config it runs under, when it has one.
    pub instance_id: Option<String>,
    pub configured: bool,
    pub state: State,
}

/// The newest protocol that both ranges hold, if any.
pub fn negotiate(peer_min: u32, peer_max: u32) -> Option<u32> {
    let newest = peer_max.min(PROTOCOL_MAX);
    (newest >= peer_min.max(PROTOCOL_MIN)).then_some(newest)
}

/// Where the workload is. A host that comes back reads it in the hello instead of replaying events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub phase: Phase,
    /// The running process.
    pub pid: Option<u32>,
    pub ready: bool,
    /// Why it is not ready or has failed; may be empty.
    pub detail: String,
    /// Restarts since boot.
    pub restarts: u32,
    pub last_exit: Option<Exit>,
    pub failure: Option<FailureCode>,
    /// The oldest log line still held and the number the next one gets.
    pub log_first: u64,
    pub log_next: u64,
    pub event_first: u64,
    pub event_next: u64,
}

impl State {
    /// The state after `event`. Guest and host fold the same way, so a host that saw every event knows the self.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::ConfigApplied => {}
            Event::Started { pid } => {
                self.phase = Phase::Running;
                self.pid = Some(*pid);
            }
            Event::Ready => {
                self.ready = true;
                self.detail.clear();
            }
            Event::Unready { detail } => {
                self.ready = false;
                self.detail.clone_from(detail);
            }
            Event::Exited(exit) => {
                self.pid = None;
                self.ready = false;
                self.last_exit = Some(*exit);
                self.detail = exit.to_string();
            }
            Event::Restarting { .. } => {
                self.phase = Phase::Backoff;
                self.restarts = self.restarts.saturating_add(1);
            }
            Event::Completed => self.phase = Phase::Completed,
            Event::Failed { code, detail } => {
                self.phase = Phase::Failed;
                self.ready = false;
                self.failure = Some(*code);
                self.detail.clone_from(detail);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for a config.
    #[default]
    Waiting,
    /// Mounting, addressing, writing secrets, running the prestart command.
    Applying,
    Running,
    /// Between an exit and the next start.
    Backoff,
    /// Exited, and its policy does not start it again.
    Completed,
    Failed,
    Stopping,
}

/// An event with its number, counted from 0 at boot without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    pub seq: u64,
    /// By the guest's clock.
    pub unix_ns: u64,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    ConfigApplied,
    Started {
        pid: u32,
    },
    /// Passed its health check, or has none and was started.
    Ready,
    Unready {
        detail: String,
    },
    Exited(Exit),
    Restarting {
        /// From 1, in a row.
        attempt: u32,
        delay_ms: u64,
        /// This often in a row, without staying up, that waiting will not mend it.
        crash_loop: bool,
    },
    /// Exited with 0 and will not be started again.
    Completed,
    Failed {
        code: FailureCode,
        detail: String,
    },
}

/// How a process ended: one of `code` and `signal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// The guest's kernel killed it, or one of its children, for want of memory.
    #[serde(default)]
    pub oom: bool,
}

impl Exit {
    pub fn success(self) -> bool {
        self.code == Some(0)
    }

    /// As a shell reports it: the code, or 128 plus the signal.
    pub fn shell_code(self) -> i32 {
        self.code.unwrap_or_else(|| 128 + self.signal.unwrap_or(0))
    }
}

/// For people: `exited with 3`, `killed by signal 9 for want of memory`.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with {code}")?,
            (None, Some(signal)) => write!(f, "killed by signal {signal}")?,
            (None, None) => f.write_str("ended")?,
        }
        if self.oom { f.write_str(" for want of memory") } else { Ok(()) }
    }
}

/// Why a guest's workload does not run. The names are stable; people and rules match on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    ConfigParseFailed,
    NetConfigFailed,
    MountFailed,
    SecretsMissing,
    SecretsWriteFailed,
    WorkloadStartFailed,
    WorkloadCrashed,
    GuestInitProtocolMismatch,
}

impl FailureCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigParseFailed => "config_parse_failed",
            Self::NetConfigFailed => "net_config_failed",
            Self::MountFailed => "mount_failed",
            Self::SecretsMissing => "secrets_missing",
            Self::SecretsWriteFailed => "secrets_write_failed",
            Self::WorkloadStartFailed => "workload_start_failed",
            Self::WorkloadCrashed => "workload_crashed",
            Self::GuestInitProtocolMismatch => "guest_init_protocol_mismatch",
        }
    }
}

/// A session beside the workload, in the same root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOpen {
    /// Chosen by the host, not 0, not in use.
    pub stream: u32,
    /// Not empty.
    pub argv: Vec<String>,
    /// `KEY=VALUE`, on top of the workload's own.
    #[serde(default)]
    pub env: Vec<String>,
    /// The workload's when absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// The workload's when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// With a terminal, output and errors come as one stream.
    #[serde(default)]
    pub pty: Option<Pty>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pty {
    pub rows: u16,
    pub cols: u16,
}

/// Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub uptime_ms: u64,
    pub memory_total: u64,
    pub memory_available: u64,
    /// The workload's own process, without its children; 0 when it does not run.
    pub process_rss: u64,
    /// User and system time of all vCPUs since boot.
    pub cpu_ms: u64,
    pub exec_sessions: u32,
}
