//! The process that the machine is for.
//!
//! ```text
//! idle --> prestart --> running --(exit)--> backoff --> running ...
//!              |           |                   |
//!              +-> failed  +--> completed | failed
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::guest::{Event, Exit, FailureCode, LogStream, Process};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::cgroup::{self, Group};
use crate::clock;
use crate::exec::output_pipe;
use crate::failure::Failure;
use crate::journal::{Journal, Splitter};
use crate::program::{Program, environment, prepare_workdir};
use crate::restart::{Decision, decide};
use crate::user::{self, Identity};

/// Bytes of output taken in one turn of the loop, so that a chatty process does not starve the channel.
const READ_MAX: usize = 16 * 1024;
/// What may still be in a pipe when its writer is gone: the largest pipe a process may set itself.
const DRAIN_MAX: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Prestart { pid: Pid, deadline_ms: u64 },
    Running { pid: Pid, since_ms: u64, ooms: u64 },
    Backoff { until_ms: u64 },
    Over,
}

struct Output {
    fd: Option<OwnedFd>,
    stream: LogStream,
    splitter: Splitter,
}

/// What the loop has to do beyond recording events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Same,
    /// A run began: probe it.
    Started { run: u64 },
    /// The run ended: stop probing.
    Ended,
}

pub struct Workload {
    process: Process,
    identity: Identity,
    group: Option<Group>,
    stage: Stage,
    outputs: Vec<Output>,
    in_a_row: u32,
    run: u64,
    stopping: bool,
    /// Ended by init for want of memory.
    starved: bool,
}

impl Workload {
    pub fn new(process: Process) -> Result<Self, Failure> {
        let refused = |detail| Failure::new(FailureCode::WorkloadStartFailed, detail);
        let identity = user::resolve(&process.user).map_err(refused)?;
        Ok(Self {
            process,
            identity,
            group: Group::create("workload"),
            stage: Stage::Idle,
            outputs: Vec::new(),
            in_a_row: 0,
            run: 0,
            stopping: false,
            starved: false,
        })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The pid of the process itself, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        match self.stage {
            Stage::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    pub fn is_alive(&self) -> bool {
        matches!(self.stage, Stage::Running { .. } | Stage::Prestart { .. })
    }

    fn workdir(&self) -> &str {
        if self.process.workdir.is_empty() { "/" } else { &self.process.workdir }
    }

    /// The first start: the prestart command when there is one, else the process.
    pub fn begin(&mut self, journal: &mut Journal) -> Turn {
        if self.process.prestart.is_empty() {
            return self.launch(journal);
        }
        match self.spawn(&self.process.prestart.clone()) {
            Ok(pid) => {
                let limit = u64::from(self.process.prestart_timeout_seconds) * 1000;
                self.stage = Stage::Prestart { pid, deadline_ms: clock::monotonic_ms() + limit };
            }
            Err(detail) => self.fail(journal, FailureCode::WorkloadStartFailed, format!("prestart: {detail}")),
        }
        Turn::Same
    }

    fn launch(&mut self, journal: &mut Journal) -> Turn {
        let ooms = cgroup::oom_kills(self.group.as_ref());
        match self.spawn(&self.process.argv.clone()) {
            Ok(pid) => {
                self.run += 1;
                self.stage = Stage::Running { pid, since_ms: clock::monotonic_ms(), ooms };
                journal.event(clock::realtime_ns(), Event::Started { pid: pid.as_raw_nonzero().get() as u32 });
                Turn::Started { run: self.run }
            }
            Err(detail) => {
                self.fail(journal, FailureCode::WorkloadStartFailed, detail);
                Turn::Same
            }
        }
    }

    fn fail(&mut self, journal: &mut Journal, code: FailureCode, detail: String) {
        self.stage = Stage::Over;
        journal.event(clock::realtime_ns(), Event::Failed { code, detail });
    }

    fn spawn(&mut self, argv: &[String]) -> Result<Pid, String> {
        prepare_workdir(self.workdir(), &self.identity)?;
        let null = std::fs::File::open("/dev/null").map_err(|error| format!("open /dev/null: {error}"))?;
        let (output, their_output) = output_pipe(&self.identity)?;
        let (errors, their_errors) = output_pipe(&self.identity)?;
        let program = Program {
            argv,
            env: environment(&[&self.process.env], &self.identity, false),
            workdir: self.workdir(),
            identity: &self.identity,
            stdio: [null.into(), their_output, their_errors],
            terminal: false,
            group: self.group.as_ref().map(Group::entrance),
        };
        let pid = program.start()?;
        let source = |fd, stream| Output { fd: Some(fd), stream, splitter: Splitter::default() };
        self.outputs = vec![source(output, LogStream::Stdout), source(errors, LogStream::Stderr)];
        Ok(pid)
    }

    /// The descriptors to wait on for output.
    pub fn interests(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.outputs.iter().filter_map(|output| output.fd.as_ref()).map(AsFd::as_fd)
    }

    /// When something is due without anything else happening.
    pub fn deadline(&self) -> Option<u64> {
        let stage = match self.stage {
            Stage::Prestart { deadline_ms, .. } => Some(deadline_ms),
            Stage::Backoff { until_ms } => Some(until_ms),
            Stage::Idle | Stage::Running { .. } | Stage::Over => None,
        };
        let partial = self.outputs.iter().filter_map(|output| output.splitter.deadline());
        stage.into_iter().chain(partial).min()
    }

    pub fn tick(&mut self, now_ms: u64, journal: &mut Journal) -> Turn {
        for output in &mut self.outputs {
            if output.splitter.deadline().is_some_and(|at| now_ms >= at)
                && let Some(text) = output.splitter.finish()
            {
                journal.line(clock::realtime_ns(), output.stream, true, text);
            }
        }
        match self.stage {
            Stage::Prestart { deadline_ms, .. } if now_ms >= deadline_ms => {
                self.kill();
                let detail = format!("prestart ran longer than {} s", self.process.prestart_timeout_seconds);
                self.fail(journal, FailureCode::WorkloadStartFailed, detail);
                Turn::Same
            }
            Stage::Backoff { until_ms } if now_ms >= until_ms => self.launch(journal),
            _ => Turn::Same,
        }
    }

    /// Takes what the process printed, a bounded amount a turn.
    pub fn pump(&mut self, now_ms: u64, journal: &mut Journal) {
        for output in &mut self.outputs {
            output.read(now_ms, journal);
        }
    }

    /// A reaped child. `None` when it was none of ours.
    pub fn reaped(&mut self, pid: Pid, exit: Exit, journal: &mut Journal) -> Option<Turn> {
        match self.stage {
            Stage::Prestart { pid: prestart, .. } if prestart == pid => {
                self.end_outputs(journal);
                if self.stopping {
                    self.stage = Stage::Over;
                    return Some(Turn::Same);
                }
                if exit.success() {
                    return Some(self.launch(journal));
                }
                self.fail(journal, FailureCode::WorkloadStartFailed, format!("prestart {exit}"));
                Some(Turn::Same)
            }
            Stage::Running { pid: running, since_ms, ooms } if running == pid => {
                self.kill();
                self.end_outputs(journal);
                let killed = cgroup::oom_kills(self.group.as_ref()) > ooms;
                let oom = !exit.success() && (killed || std::mem::take(&mut self.starved));
                self.ended(Exit { oom, ..exit }, clock::monotonic_ms().saturating_sub(since_ms), journal);
                Some(Turn::Ended)
            }
            _ => None,
        }
    }

    fn ended(&mut self, exit: Exit, ran_ms: u64, journal: &mut Journal) {
        let now_ns = clock::realtime_ns();
        journal.event(now_ns, Event::Exited(exit));
        if self.stopping {
            self.stage = Stage::Over;
            return;
        }
        match decide(&self.process.restart, self.in_a_row, exit, ran_ms) {
            Decision::Restart { attempt, delay_ms, crash_loop } => {
                self.in_a_row = attempt;
                self.stage = Stage::Backoff { until_ms: clock::monotonic_ms() + delay_ms };
                journal.event(now_ns, Event::Restarting { attempt, delay_ms, crash_loop });
            }
            Decision::Complete => {
                self.stage = Stage::Over;
                journal.event(now_ns, Event::Completed);
            }
            Decision::GiveUp => {
                let detail = match self.in_a_row {
                    0 => exit.to_string(),
                    restarts => format!("{exit} after {restarts} restarts"),
                };
                self.fail(journal, FailureCode::WorkloadCrashed, detail);
            }
        }
    }

    /// What is left in the pipes, and the unfinished lines. A child that went on in the background loses its voice.
    fn end_outputs(&mut self, journal: &mut Journal) {
        let now_ms = clock::monotonic_ms();
        for output in &mut self.outputs {
            let mut taken = 0;
            while taken < DRAIN_MAX {
                match output.read(now_ms, journal) {
                    0 => break,
                    length => taken += length,
                }
            }
            if let Some(text) = output.splitter.finish() {
                journal.line(clock::realtime_ns(), output.stream, false, text);
            }
        }
        self.outputs.clear();
    }

    /// SIGTERM to the whole process group; nothing is started again after this.
    pub fn terminate(&mut self) {
        self.stopping = true;
        match self.stage {
            Stage::Running { pid, .. } | Stage::Prestart { pid, .. } => {
                let _ = kill_process_group(pid, Signal::TERM);
            }
            Stage::Idle | Stage::Backoff { .. } | Stage::Over => self.stage = Stage::Over,
        }
    }

    /// As the kernel would, but sooner.
    pub fn starve(&mut self) {
        if matches!(self.stage, Stage::Running { .. }) {
            self.starved = true;
            self.kill();
        }
    }

    /// SIGKILL to every process of the workload, those that left its process group included.
    pub fn kill(&self) {
        if let Stage::Running { pid, .. } | Stage::Prestart { pid, .. } = self.stage {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        if let Some(group) = &self.group {
            group.kill();
        }
    }
}

impl Output {
    /// Reads once; gives the number of bytes, 0 when there are none for now or any more.
    fn read(&mut self, now_ms: u64, journal: &mut Journal) -> usize {
        let Some(fd) = &self.fd else {
            return 0;
        };
        let mut buffer = [0u8; READ_MAX];
        match rustix::io::read(fd, &mut buffer) {
            Ok(length) if length > 0 => {
                let (stream, now_ns) = (self.stream, clock::realtime_ns());
                self.splitter.push(now_ms, &buffer[..length], |text, partial| {
                    journal.line(now_ns, stream, partial, text);
                });
                length
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Ok(_) | Err(_) => {
                self.fd = None;
                0
            }
        }
    }
}
