//! What the host says, and what it is answered.

use std::collections::VecDeque;

use model::guest::{
    Config, EXEC_MAX, ExecOpen, FailureCode, Frame, HelloGuest, HelloHost, Kind, LOG_LINE_OVERHEAD, LOG_WINDOW,
    PROTOCOL_MAX, PROTOCOL_MIN, ToGuest, ToHost, negotiate,
};
use rustix::process::Signal;

use crate::exec::Session;
use crate::init::Init;
use crate::journal::Journal;
use crate::link::Link;
use crate::program::{Program, environment, prepare_workdir};
use crate::{apply, clock, console, disk, stats, user};

/// How far this host has read. A new host starts without any and says where it wants to go on.
#[derive(Default)]
pub struct Cursors {
    event: Option<u64>,
    line: Option<u64>,
    /// Lines sent and not acknowledged, with their sizes.
    in_flight: VecDeque<(u64, usize)>,
    in_flight_bytes: usize,
}

impl Cursors {
    /// Queues events, then log lines, as far as there is room.
    pub fn pump(&mut self, journal: &Journal, link: &mut Link) {
        if let Some(next) = &mut self.event {
            *next = (*next).max(journal.event_first());
            while let Some(event) = journal.event_at(*next) {
                link.send(&ToHost::Event(event.clone()));
                *next += 1;
            }
        }
        let Some(next) = &mut self.line else {
            return;
        };
        let first = journal.line_first();
        if *next < first {
            link.send(&ToHost::LogsLost { from: *next, to: first });
            *next = first;
        }
        while link.has_room()
            && self.in_flight_bytes < LOG_WINDOW
            && let Some(line) = journal.line_at(*next)
        {
            link.send_line(line);
            let size = line.text.len() + LOG_LINE_OVERHEAD;
            self.in_flight.push_back((line.seq, size));
            self.in_flight_bytes += size;
            *next += 1;
        }
    }

    fn lines_from(&mut self, asked: u64, journal: &Journal, link: &mut Link) {
        let seq = asked.clamp(journal.line_first(), journal.line_next());
        link.send(&ToHost::LogsStart { asked, seq });
        self.line = Some(seq);
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    fn acknowledge(&mut self, below: u64) {
        while let Some((seq, bytes)) = self.in_flight.front()
            && *seq < below
        {
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_front();
        }
    }
}

impl Init {
    pub fn frame(&mut self, frame: Frame) {
        if frame.kind != Kind::Control {
            self.data(frame);
            return;
        }
        match frame.message::<ToGuest>() {
            Ok(ToGuest::Hello(hello)) => self.hello(&hello),
            // Anything before a hello was meant for an older conversation.
            Ok(_) | Err(_) if !self.link.is_attached() => {}
            Ok(message) => self.message(message),
            Err(error) => self.unreadable(&frame, &error.to_string()),
        }
    }

    fn unreadable(&mut self, frame: &Frame, error: &str) {
        console::error(&format!("an unreadable message: {error}"));
        let value: Option<serde_json::Value> = serde_json::from_slice(&frame.payload).ok();
        if value.is_some_and(|value| value.get("type").is_some_and(|kind| kind == "config")) {
            self.refuse(FailureCode::ConfigParseFailed, error);
        }
    }

    fn refuse(&mut self, code: FailureCode, detail: &str) {
        let boot_id = self.boot_id.clone();
        self.link.send(&ToHost::ConfigAck { accepted: false, boot_id, code: Some(code), detail: detail.to_owned() });
    }

    fn hello(&mut self, hello: &HelloHost) {
        if self.link.is_attached() {
            // The host came back so fast that the port never looked closed.
            self.host_left();
        }
        let answer = ToHost::Hello(HelloGuest {
            nonce: hello.nonce.clone(),
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            init_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.boot_id.clone(),
            uptime_ms: clock::uptime_ms(),
            instance_id: self.config.as_ref().map(|config| config.instance_id.clone()),
            configured: self.config.is_some(),
            state: self.journal.state(),
        });
        if negotiate(hello.protocol_min, hello.protocol_max).is_some() {
            self.link.attach(hello, &answer);
        } else {
            console::error(&format!(
                "the host speaks protocols {} to {}, this init {PROTOCOL_MIN} to {PROTOCOL_MAX}",
                hello.protocol_min, hello.protocol_max
            ));
            self.link.refuse(&answer);
        }
    }

    fn message(&mut self, message: ToGuest) {
        match message {
            ToGuest::Hello(hello) => self.hello(&hello),
            ToGuest::Config(config) => self.configure(*config),
            ToGuest::LogsFrom { seq } => self.cursors.lines_from(seq, &self.journal, &mut self.link),
            ToGuest::LogsAck { next } => self.cursors.acknowledge(next),
            ToGuest::EventsFrom { seq } => self.cursors.event = Some(seq),
            ToGuest::ExecOpen(open) => self.exec_open(&open),
            ToGuest::ExecResize { stream, rows, cols } => {
                if let Some(session) = self.sessions.get(&stream) {
                    session.resize(rows, cols);
                }
            }
            ToGuest::ExecSignal { stream, signal } => {
                if let (Some(session), Some(signal)) = (self.sessions.get(&stream), Signal::from_named_raw(signal)) {
                    session.signal(signal);
                }
            }
            ToGuest::ExecClose { stream } => {
                if let Some(session) = self.sessions.get_mut(&stream) {
                    session.close(clock::monotonic_ms());
                }
            }
            ToGuest::ExecCredit { stream, bytes } => {
                if let Some(session) = self.sessions.get_mut(&stream) {
                    session.add_credit(bytes);
                }
            }
            ToGuest::Shutdown { grace_seconds } => self.stop(grace_seconds),
            ToGuest::Ping { id } => self.link.send(&ToHost::Pong { id }),
            ToGuest::SetClock { unix_ns } => {
                if let Err(error) = clock::set_realtime(unix_ns) {
                    console::error(&format!("set the clock: {error}"));
                }
            }
            ToGuest::PrepareTemplate => {
                let failure = self.prepare_template().err().unwrap_or_default();
                self.link.send(&ToHost::TemplatePrepared { failure });
            }
            ToGuest::Stats { id } => {
                let pid = self.workload.as_ref().and_then(crate::workload::Workload::pid);
                self.link
                    .send(&ToHost::Stats { id, stats: stats::read(pid, self.sessions.len() + self.orphans.len()) });
            }
        }
    }

    fn prepare_template(&mut self) -> Result<(), String> {
        if self.config.is_some() {
            return Err("this machine has its configuration already".to_owned());
        }
        self.unbound = disk::unbind().map_err(|error| format!("unbind the disks: {error}"))?;
        Ok(())
    }

    fn configure(&mut self, config: Config) {
        if self.config.is_some() {
            self.refuse(FailureCode::ConfigParseFailed, "this machine has its configuration already");
            return;
        }
        if let Err(failure) = apply::check(&config) {
            self.refuse(failure.code, &failure.detail);
            return;
        }
        apply::freshen(&config);
        // Clones of one saved machine part ways here.
        self.boot_id = crate::entropy::id();
        let boot_id = self.boot_id.clone();
        self.link.send(&ToHost::ConfigAck { accepted: true, boot_id, code: None, detail: String::new() });
        self.link.flush();
        self.config = Some(config.clone());
        self.apply(&config);
    }

    fn data(&mut self, frame: Frame) {
        if !self.link.is_attached() {
            return;
        }
        let Some(session) = self.sessions.get_mut(&frame.stream) else {
            return;
        };
        match frame.kind {
            Kind::ExecStdin if !session.stdin(&frame.payload) => {
                console::error(&format!("session {} was sent more than its window", frame.stream));
                session.close(clock::monotonic_ms());
            }
            Kind::ExecStdinEof => session.stdin_end(),
            _ => {}
        }
    }

    fn exec_open(&mut self, open: &ExecOpen) {
        match self.try_exec(open) {
            Ok(pid) => self.link.send(&ToHost::ExecStarted { stream: open.stream, pid }),
            Err(detail) => self.link.send(&ToHost::ExecRefused { stream: open.stream, detail }),
        }
    }

    fn try_exec(&mut self, open: &ExecOpen) -> Result<u32, String> {
        if self.is_stopping() {
            return Err("the machine is stopping".to_owned());
        }
        let config = self.config.as_ref().filter(|_| self.scratch.is_some());
        let Some(config) = config else {
            return Err("the machine has no root file system yet".to_owned());
        };
        if self.sessions.len() + self.orphans.len() >= EXEC_MAX {
            return Err(format!("{EXEC_MAX} sessions are open already"));
        }
        if open.stream == 0 || self.sessions.contains_key(&open.stream) {
            return Err(format!("stream {} is in use", open.stream));
        }
        let identity = user::resolve(open.user.as_deref().unwrap_or(&config.process.user))?;
        let workdir = open.cwd.as_deref().unwrap_or(&config.process.workdir);
        let workdir = if workdir.is_empty() { "/" } else { workdir };
        if open.cwd.is_none() {
            prepare_workdir(workdir, &identity)?;
        } else if !std::fs::metadata(workdir).is_ok_and(|meta| meta.is_dir()) {
            return Err(format!("{workdir} is no folder"));
        }
        let env = environment(&[&config.process.env, &open.env], &identity, open.pty.is_some());
        let group = self.exec_group.as_ref().map(crate::cgroup::Group::entrance);
        let started = Session::start(open, &identity, |stdio| Program {
            argv: &open.argv,
            env,
            workdir,
            identity: &identity,
            stdio,
            terminal: open.pty.is_some(),
            group,
        })?;
        self.sessions.insert(open.stream, started.session);
        Ok(started.pid.as_raw_nonzero().get() as u32)
    }
}
