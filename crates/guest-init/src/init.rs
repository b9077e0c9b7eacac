//! The loop. One thread owns everything; it waits for the port, for signals, for output, for probes, and for deadlines.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use model::guest::{Config, Event, Phase, ToHost};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::cgroup::Group;
use crate::disk::{Scratch, Unbound};
use crate::exec::Session;
use crate::health::{self, Change, Probe, Prober, Tracker};
use crate::journal::Journal;
use crate::link::Link;
use crate::messages::Cursors;
use crate::pressure::Pressure;
use crate::workload::{Turn, Workload};
use crate::{clock, console, power, signals};

/// Results of probes that wait to be read.
const PROBES_MAX: usize = 16;
/// While no host is there the port raises a signal when one comes; this is for a signal that was lost.
const AWAY_LOOK_MS: u64 = 1_000;
/// How long the last words may take.
const FAREWELL_MS: u64 = 500;

/// Between the wish to stop and the end.
#[derive(Clone, Copy)]
pub struct Stopping {
    kill_at_ms: u64,
    killed: bool,
}

pub struct Init {
    signals: OwnedFd,
    wake: Arc<OwnedFd>,
    probes: (SyncSender<Probe>, Receiver<Probe>),
    pub link: Link,
    pub journal: Journal,
    pub cursors: Cursors,
    pub boot_id: String,
    pub config: Option<Config>,
    /// Of a machine that was prepared as a template, until it has its configuration.
    pub unbound: Unbound,
    /// The image's root is `/` now.
    pub scratch: Option<Scratch>,
    pub workload: Option<Workload>,
    pub exec_group: Option<Group>,
    pub sessions: BTreeMap<u32, Session>,
    /// Sessions of a host that left, on their way out. Their numbers are free for the next host.
    pub orphans: Vec<Session>,
    health: Option<(Tracker, Prober, u64)>,
    stopping: Option<Stopping>,
    pressure: Option<Pressure>,
    /// A host was attached when the loop last looked.
    attended: bool,
}

impl Init {
    pub fn new(signals: OwnedFd, link: Link) -> std::io::Result<Self> {
        Ok(Self {
            signals,
            wake: Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?),
            probes: sync_channel(PROBES_MAX),
            link,
            journal: Journal::default(),
            cursors: Cursors::default(),
            boot_id: crate::entropy::id(),
            config: None,
            unbound: Unbound::default(),
            scratch: None,
            workload: None,
            exec_group: None,
            sessions: BTreeMap::new(),
            orphans: Vec::new(),
            health: None,
            stopping: None,
            pressure: Pressure::watch(),
            attended: false,
        })
    }

    /// Never returns; the machine ends within.
    pub fn run(mut self) -> ! {
        loop {
            let now_ms = clock::monotonic_ms();
            self.reap(now_ms);
            self.take_probes();
            self.tick(now_ms);
            self.pump(now_ms);
            self.link.flush();
            if self.is_finished() {
                self.link.drain(FAREWELL_MS);
                power::off(self.scratch.as_ref());
            }
            self.wait();
            self.listen();
            if self.attended && !self.link.is_attached() {
                self.host_left();
            }
            self.attended = self.link.is_attached();
        }
    }

    pub fn event(&mut self, event: Event) {
        self.journal.event(clock::realtime_ns(), event);
    }

    /// Acts on what the workload says has changed.
    pub fn follow(&mut self, turn: Turn) {
        match turn {
            Turn::Same => {}
            Turn::Ended => self.health = None,
            Turn::Started { run } => {
                let health = self.config.as_ref().and_then(|config| Some((config.health.clone()?, config)));
                let Some((health, config)) = health else {
                    // Nothing to ask: it is as ready as it will be.
                    self.event(Event::Ready);
                    return;
                };
                let tracker = Tracker::new(&health, clock::monotonic_ms());
                let addresses = health::addresses(config);
                let prober = health::start(health, addresses, run, self.probes.0.clone(), Arc::clone(&self.wake));
                self.health = Some((tracker, prober, run));
            }
        }
    }

    fn take_probes(&mut self) {
        while let Ok(probe) = self.probes.1.try_recv() {
            let Some((tracker, _, run)) = &mut self.health else { continue };
            if probe.run != *run {
                continue;
            }
            match tracker.take(probe.at_ms, probe.result) {
                Some(Change::Ready) => self.event(Event::Ready),
                Some(Change::Unready(detail)) => self.event(Event::Unready { detail }),
                None => {}
            }
        }
    }

    fn reap(&mut self, now_ms: u64) {
        if signals::read(&self.signals).stop {
            let grace = self.config.as_ref().map_or(0, |config| config.process.grace_seconds);
            self.stop(grace);
        }
        while let Some((pid, exit)) = signals::reap() {
            let mut sessions = self.sessions.values_mut().chain(&mut self.orphans);
            if let Some(session) = sessions.find(|session| session.leader() == pid) {
                session.exited(exit, now_ms);
            } else if let Some(workload) = &mut self.workload
                && let Some(turn) = workload.reaped(pid, exit, &mut self.journal)
            {
                self.follow(turn);
            }
        }
    }

    fn tick(&mut self, now_ms: u64) {
        if let Some(workload) = &mut self.workload {
            let turn = workload.tick(now_ms, &mut self.journal);
            self.follow(turn);
        }
        for session in self.sessions.values_mut().chain(&mut self.orphans) {
            session.tick(now_ms);
        }
        if let (Some(stopping), Some(workload)) = (&mut self.stopping, &self.workload)
            && now_ms >= stopping.kill_at_ms
            && !stopping.killed
        {
            stopping.killed = true;
            workload.kill();
        }
    }

    fn pump(&mut self, now_ms: u64) {
        if let Some(workload) = &mut self.workload {
            workload.pump(now_ms, &mut self.journal);
        }
        self.cursors.pump(&self.journal, &mut self.link);
        let link = &mut self.link;
        self.sessions.retain(|_, session| !session.pump(link));
        self.orphans.retain(|session| !session.is_over());
    }

    /// Asks the workload to end; the machine ends after it.
    pub fn stop(&mut self, grace_seconds: u32) {
        if self.stopping.is_some() {
            return;
        }
        console::info(&format!("stopping, {grace_seconds} s of grace"));
        let kill_at_ms = clock::monotonic_ms() + u64::from(grace_seconds) * 1000;
        self.stopping = Some(Stopping { kill_at_ms, killed: false });
        self.journal.phase(Phase::Stopping);
        self.link.send(&ToHost::ShuttingDown);
        self.health = None;
        let now_ms = clock::monotonic_ms();
        for session in self.sessions.values_mut() {
            session.close(now_ms);
        }
        if let Some(workload) = &mut self.workload {
            workload.terminate();
        }
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    fn is_finished(&self) -> bool {
        self.stopping.is_some() && !self.workload.as_ref().is_some_and(Workload::is_alive)
    }

    fn deadline(&self) -> Option<u64> {
        let workload = self.workload.as_ref().and_then(Workload::deadline);
        let sessions = self.sessions.values().chain(&self.orphans).filter_map(Session::deadline);
        let stopping = self.stopping.filter(|stopping| !stopping.killed).map(|stopping| stopping.kill_at_ms);
        let away = (!self.link.is_present()).then(|| clock::monotonic_ms() + AWAY_LOOK_MS);
        [workload, stopping, away].into_iter().flatten().chain(sessions).min()
    }

    fn wait(&mut self) {
        if self.poll()
            && let Some(pressure) = &mut self.pressure
            && pressure.report(clock::monotonic_ms())
            && let Some(workload) = &mut self.workload
        {
            console::error("memory is out, the workload is ended");
            workload.starve();
        }
    }

    /// Waits for anything to do. True when the kernel reports that memory is scarce.
    fn poll(&self) -> bool {
        let room = self.link.has_room();
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&*self.wake, PollFlags::IN)];
        if let Some(pressure) = &self.pressure {
            fds.push(PollFd::from_borrowed_fd(pressure.fd(), PollFlags::PRI));
        }
        if self.link.is_present() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, self.link.wants_read());
            flags.set(PollFlags::OUT, self.link.wants_write());
            fds.push(PollFd::from_borrowed_fd(self.link.fd(), flags));
        }
        for fd in self.workload.iter().flat_map(Workload::interests) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        for (fd, flags) in self.sessions.values().flat_map(|session| session.interests(room)) {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let timeout = self.deadline().map(|at| {
            let ms = at.saturating_sub(clock::monotonic_ms());
            Timespec { tv_sec: (ms / 1000) as _, tv_nsec: (ms % 1000 * 1_000_000) as _ }
        });
        if let Err(error) = poll(&mut fds, timeout.as_ref())
            && error != rustix::io::Errno::INTR
        {
            console::error(&format!("poll: {error}"));
            clock::nap(100);
        }
        let scarce = self.pressure.is_some() && fds[2].revents().contains(PollFlags::PRI);
        let mut count = [0u8; 8];
        let _ = rustix::io::read(self.wake.as_fd(), &mut count);
        scarce
    }

    /// Reads the port and answers.
    fn listen(&mut self) {
        if !self.link.is_present() || !self.link.wants_read() {
            self.link.look();
        }
        if !self.link.is_present() || !self.link.wants_read() {
            return;
        }
        self.link.read();
        while let Some(frame) = self.link.pop() {
            self.frame(frame);
        }
    }

    /// The workload goes on, output is kept; sessions belong to the host's clients and end.
    pub fn host_left(&mut self) {
        console::info("the host is away");
        self.cursors = Cursors::default();
        let now_ms = clock::monotonic_ms();
        for mut session in std::mem::take(&mut self.sessions).into_values() {
            session.close(now_ms);
            self.orphans.push(session);
        }
    }
}
