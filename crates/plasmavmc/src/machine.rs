//! One machine: its record, its run, and the acts on it.
//!
//! ```text
//!   acts (one at a time, behind `gate`)        watch (one task per run)
//!     ensure -> start -> Live --------------->   process ended | monitor's event | guest's word
//!     sleep  -> halts, saves, ends it            -> state, log, console
//!     stop   -> asks the guest, then the         -> at the end: why it ended, record, cgroup removed
//!               monitor, then the kernel
//! ```

mod adopt;
mod end;
mod guest_link;
mod sleep;
mod start;
mod stop;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch as tokio_watch;

use crate::Error;
use crate::channel;
use crate::context::Context;
use crate::jail::cgroup::Group;
use crate::logs;
use crate::process::Process;
use crate::qmp;
use crate::record::Record;
use crate::seen::{EndCode, Guest, Phase, Seen};
use crate::spec::Spec;

pub(crate) struct Machine {
    pub id: String,
    pub folder: PathBuf,
    pub context: Arc<Context>,
    pub logs: logs::Store,
    /// Acts take turns.
    gate: tokio::sync::Mutex<()>,
    /// Records are written one after the other, and nobody who only looks waits for the disk.
    writing: Mutex<()>,
    state: Mutex<State>,
}

/// The writable layer's file in a machine's folder.
const SCRATCH_FILE: &str = "scratch.ext4";

struct State {
    record: Record,
    /// With its secrets; `None` after the engine came back, until the caller says it again.
    spec: Option<Spec>,
    phase: Phase,
    live: Option<Arc<Live>>,
    guest: Option<GuestSeen>,
}

/// The guest's account with the host's time of its last hello.
struct GuestSeen {
    guest: Guest,
    heard_ms: u64,
}

/// A process that runs.
struct Live {
    process: Process,
    group: Group,
    /// `None` when an adopted process did not let itself be asked.
    monitor: Option<qmp::Client>,
    channel: Mutex<Option<channel::Channel>>,
    /// Why the engine itself ends it.
    verdict: Mutex<Option<(EndCode, String)>>,
    /// The specification came (again): a guest that waits for its configuration may have it.
    told: tokio::sync::Notify,
    /// True when the end was taken in: record written, cgroup gone.
    over: tokio_watch::Sender<bool>,
    /// Of this run; see [`Machine::let_go`].
    tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl Live {
    fn new(process: Process, group: Group, monitor: Option<qmp::Client>) -> Arc<Self> {
        Arc::new(Self {
            process,
            group,
            monitor,
            channel: Mutex::new(None),
            verdict: Mutex::new(None),
            told: tokio::sync::Notify::new(),
            over: tokio_watch::Sender::new(false),
            tasks: Mutex::default(),
        })
    }

    /// The first verdict counts.
    fn judge(&self, code: EndCode, detail: impl Into<String>) {
        self.verdict.lock().get_or_insert_with(|| (code, detail.into()));
    }

    async fn until_over(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

impl Machine {
    /// A machine as its record has it, not running.
    pub fn new(context: Arc<Context>, record: Record) -> Result<Arc<Self>, Error> {
        let id = record.spec.id.clone();
        let folder = context.folder(&id);
        let logs = logs::Store::open(&folder).map_err(|source| Error::Log { id: id.clone(), source })?;
        let phase = match &record.end {
            _ if record.asleep.is_some() => Phase::Sleeping,
            Some(end) if record.wanted && end.code != EndCode::Stopped => Phase::Failed,
            _ => Phase::Stopped,
        };
        let state = Mutex::new(State { record, spec: None, phase, live: None, guest: None });
        Ok(Arc::new(Self {
            id,
            folder,
            context,
            logs,
            gate: tokio::sync::Mutex::new(()),
            writing: Mutex::new(()),
            state,
        }))
    }

    pub fn uid(&self) -> u32 {
        self.state.lock().record.spec.uid
    }

    /// Ends the tasks beside its run and leaves the run itself alone.
    pub async fn let_go(&self) {
        let _turn = self.gate.lock().await;
        let live = self.state.lock().live.clone();
        let tasks = live.map(|live| std::mem::take(&mut *live.tasks.lock())).unwrap_or_default();
        for task in tasks {
            task.abort();
            // Cancelled or done; either way it holds nothing any more.
            let _ = task.await;
        }
    }

    /// It has a process, or is about to.
    pub fn is_active(&self) -> bool {
        let state = self.state.lock();
        state.live.is_some() || state.phase == Phase::Starting
    }

    /// It runs, and its guest was not heard of yet.
    pub fn is_booting(&self) -> bool {
        let state = self.state.lock();
        state.phase == Phase::Starting || state.phase == Phase::Running && state.guest.is_none()
    }

    pub fn observe(&self) -> Seen {
        let now_ms = self.context.clock.now_ms();
        let state = self.state.lock();
        let run = state.record.run.as_ref();
        let asleep = state.record.asleep.as_ref();
        let guest = state.guest.as_ref().map(|seen| {
            let since = if state.live.is_some() { now_ms.saturating_sub(seen.heard_ms) } else { 0 };
            let uptime_ms = seen.guest.uptime_ms + since;
            Guest { uptime_ms, ..seen.guest.clone() }
        });
        let oom_in_guest = guest.as_ref().and_then(|guest| guest.state.last_exit).is_some_and(|exit| exit.oom);
        let oom_on_host = state.phase != Phase::Running
            && state.record.end.as_ref().is_some_and(|end| end.code == EndCode::OomKilled);
        Seen {
            id: self.id.clone(),
            generation: state.record.spec.generation,
            phase: state.phase,
            pid: state.live.as_ref().map(|live| live.process.pid),
            boot_id: run.map(|run| &run.boot_id).or(asleep.map(|asleep| &asleep.boot_id)).cloned().unwrap_or_default(),
            started_at_ms: run.map(|run| run.started_at_ms).or(asleep.map(|asleep| asleep.started_at_ms)),
            uptime_ms: run.map_or(0, |run| now_ms.saturating_sub(run.started_at_ms)),
            boots: state.record.boots,
            accelerator: run.map(|run| run.accelerator),
            origin: run.map(|run| run.origin.clone()).unwrap_or_default(),
            asleep_since_ms: asleep.map(|asleep| asleep.since_ms),
            guest,
            end: state.record.end.clone(),
            oom_killed: oom_in_guest || oom_on_host,
        }
    }

    /// The connection to its guest.
    pub fn channel(&self) -> Result<channel::Channel, Error> {
        let (live, phase) = {
            let state = self.state.lock();
            (state.live.clone(), state.phase)
        };
        let live = live.ok_or_else(|| Error::NotRunning { id: self.id.clone() })?;
        if phase == Phase::Warm {
            return Err(Error::Paused { id: self.id.clone() });
        }
        let channel = live.channel.lock().clone();
        channel.ok_or_else(|| Error::Guest { id: self.id.clone(), why: "it has not reported yet".to_owned() })
    }

    fn changed(&self) {
        self.context.changed(&self.id);
    }

    /// Writes the record as `change` leaves it. What could not be written did not happen.
    fn keep(&self, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        let _writing = self.writing.lock();
        let mut record = self.state.lock().record.clone();
        change(&mut record);
        record.write(&self.folder).map_err(|source| {
            let path = self.folder.clone();
            Error::State { id: self.id.clone(), path, source }
        })?;
        self.state.lock().record = record;
        Ok(())
    }

    fn enter(&self, phase: Phase) {
        self.state.lock().phase = phase;
        self.changed();
    }
}
