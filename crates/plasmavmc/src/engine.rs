//! The one trait of machine engines.

use async_trait::async_trait;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::channel;
use crate::logs::{LineStream, LogQuery};
use crate::{Error, Seen, Spec};

/// What runs machines. Everything is safe to repeat; acts on one machine happen one after the other, acts on different
/// machines at the same time. Dropping a future that acts leaves the machine in a state that the next act mends.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What this engine and this host can do.
    fn facts(&self) -> Facts;

    /// Makes the machine run as specified. Returns when its process runs in a proven jail; the guest boots on.
    ///
    /// Runs already at this generation, or at another with nothing changed but the generation: no effect, but that a
    /// paused machine goes on. Runs otherwise: it is stopped and started anew. An ended machine is started again. A
    /// sleeping machine goes on with its memory, or, when something else changed or what was saved cannot be used,
    /// boots; [`Seen::origin`] says which and why. The specification is kept on disk without secrets, so the caller
    /// passes it whole each time.
    async fn ensure(&self, spec: Spec) -> Result<(), Error>;

    /// Halts the machine's virtual CPUs; its memory stays where it is. Paused or asleep already: no effect.
    ///
    /// # Errors
    /// `NotRunning`; `Guest` before it has reported for the first time.
    async fn pause(&self, id: &str) -> Result<(), Error>;

    /// Lets a paused machine go on, at once and as it is. One that is not paused: no effect.
    ///
    /// # Errors
    /// `Unknown`; `Guest` when its monitor does not answer.
    async fn resume(&self, id: &str) -> Result<(), Error>;

    /// Saves the machine and ends its process. When this returns, what its memory held is on the disk and outlives a
    /// restart of the host. Asleep already: no effect.
    ///
    /// # Errors
    /// As of [`Engine::pause`]; `Sleep` when it cannot be saved, a full disk for one: it goes on running then.
    async fn sleep(&self, id: &str) -> Result<(), Error>;

    /// Ends the machine: TERM to its workload, KILL after `grace_seconds`, power off, then the process. Returns when
    /// it is gone, a few seconds after the grace at the latest. A machine that does not run, or is not known: no effect.
    async fn stop(&self, id: &str, grace_seconds: u32) -> Result<(), Error>;

    /// Ends the machine at once and removes all it left: disks, logs, cgroup. Not known: no effect.
    async fn destroy(&self, id: &str) -> Result<(), Error>;

    /// The ids of all machines here, running or not; sorted.
    fn list(&self) -> Vec<String>;

    /// What the machine is right now; `None` when it is not known. Never waits.
    fn observe(&self, id: &str) -> Option<Seen>;

    /// Starts a program beside the workload.
    async fn exec(&self, id: &str, request: ExecRequest) -> Result<channel::Session, Error>;

    /// The workload's output.
    fn logs(&self, id: &str, query: LogQuery) -> Result<LineStream, Error>;

    /// The last of what the guest's kernel said on its console, for people; at most `bytes_max`.
    fn console_tail(&self, id: &str, bytes_max: usize) -> Result<String, Error>;

    /// Ids of machines of which something may have changed. A receiver that lags looks at all of them.
    fn changes(&self) -> broadcast::Receiver<String>;
}

/// What an engine and its host can do. For people and for placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// `qemu`.
    pub engine: &'static str,
    /// For example `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
    pub engine_version: String,
    /// `kvm` or `tcg` (software emulation).
    pub accelerator: &'static str,
    /// Why this accelerator, in one sentence.
    pub accelerator_why: String,
    /// The guests' kernel, for example `6.1.0-18-cloud-amd64`.
    pub kernel_version: String,
    /// `v2` or `v1`.
    pub cgroups: &'static str,
    /// What a machine's process takes beside its guest's memory, in bytes, for a guest of 1 GiB.
    pub overhead_bytes: u64,
    pub can: Capabilities,
}

/// What this engine offers beyond the trait's acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Halting and resuming the virtual CPUs.
    pub pause: bool,
    pub snapshot: bool,
    pub hotplug_disk: bool,
    pub hotplug_network: bool,
    /// Running machines go on while the engine's program is away.
    pub adopt: bool,
}

/// A program to run in a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Not empty.
    pub argv: Vec<String>,
    /// `KEY=VALUE`, on top of the workload's own.
    pub env: Vec<String>,
    /// The workload's when absent.
    pub cwd: Option<String>,
    /// The workload's when absent.
    pub user: Option<String>,
    /// A terminal of this size; output and errors then come as one stream.
    pub pty: Option<model::guest::Pty>,
}
