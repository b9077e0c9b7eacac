//! Exec sessions: programs beside the workload, each with its own stream on the channel.
//!
//! ```text
//! open --> running --(reaped)--> exited --(output passed on)--> gone
//!             | client or host left
//!             v
//!          closing: HUP now, TERM after 5 s, KILL after 30 s; output is thrown away
//! ```

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::guest::{EXEC_WINDOW, ExecOpen, Exit, Kind, PAYLOAD_MAX, Pty, ToHost};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::link::Link;
use crate::program::Program;
use crate::user::Identity;

const TERM_AFTER_MS: u64 = 5_000;
const KILL_AFTER_MS: u64 = 30_000;
const LINGER_MS: u64 = 500;
/// Bytes of output taken in one turn of the loop.
const READ_MAX: usize = 16 * 1024;
/// What a terminal sends for the end of input.
const END_OF_TRANSMISSION: u8 = 4;
/// The group that terminals belong to, as in `devpts`' `gid=5`.
const TTY_GROUP: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    Term { at_ms: u64, kill_at_ms: u64 },
    Kill { at_ms: u64 },
    Killed,
}

pub struct Session {
    stream: u32,
    leader: Pid,
    /// The terminal, or the pipe to the program's input.
    input: Option<OwnedFd>,
    /// `None` after its end. With a terminal only `output` is used.
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
    terminal: bool,
    pending: VecDeque<u8>,
    input_ends: bool,
    credit: u32,
    exit: Option<Exit>,
    /// Until when a terminal may still deliver what its program printed last.
    linger_until_ms: Option<u64>,
    closing: Option<Closing>,
}

pub struct Started {
    pub session: Session,
    pub pid: Pid,
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| format!("make a pipe: {error}"))
}

/// Both ends of a pipe for a child's output; the child's end belongs to its user, who may open it again by
/// `/dev/stdout`.
pub fn output_pipe(identity: &Identity) -> Result<(OwnedFd, OwnedFd), String> {
    let (ours, theirs) = pipe()?;
    give(&theirs, identity)?;
    nonblocking(&ours)?;
    Ok((ours, theirs))
}

fn give(fd: &OwnedFd, identity: &Identity) -> Result<(), String> {
    use rustix::fs::{Gid, Uid, fchown};
    fchown(fd, Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)))
        .map_err(|error| format!("give a pipe to its user: {error}"))
}

fn nonblocking(fd: &OwnedFd) -> Result<(), String> {
    rustix::io::ioctl_fionbio(fd, true).map_err(|error| format!("set non-blocking: {error}"))
}

fn size(rows: u16, cols: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Session {
    /// Starts the program. `program` makes the rest of its surroundings around the given descriptors.
    pub fn start<'a>(
        open: &ExecOpen,
        identity: &Identity,
        program: impl FnOnce([OwnedFd; 3]) -> Program<'a>,
    ) -> Result<Started, String> {
        let dup = |fd: &OwnedFd| fd.try_clone().map_err(|error| format!("copy a descriptor: {error}"));
        let (stdio, input, output, errors) = match open.pty {
            Some(pty) => {
                let (ours, theirs) = terminal(pty, identity)?;
                let stdio = [dup(&theirs)?, dup(&theirs)?, theirs];
                (stdio, dup(&ours)?, ours, None)
            }
            None => {
                let (their_input, input) = pipe()?;
                give(&their_input, identity)?;
                nonblocking(&input)?;
                let (output, their_output) = output_pipe(identity)?;
                let (errors, their_errors) = output_pipe(identity)?;
                ([their_input, their_output, their_errors], input, output, Some(errors))
            }
        };
        let leader = program(stdio).start()?;
        let session = Self {
            stream: open.stream,
            leader,
            input: Some(input),
            output: Some(output),
            errors,
            terminal: open.pty.is_some(),
            pending: VecDeque::new(),
            input_ends: false,
            credit: EXEC_WINDOW,
            exit: None,
            linger_until_ms: None,
            closing: None,
        };
        Ok(Started { session, pid: leader })
    }

    pub fn leader(&self) -> Pid {
        self.leader
    }

    /// What to wait for: readable output while there is credit, writable input while some is pending.
    pub fn interests(&self, room: bool) -> impl Iterator<Item = (BorrowedFd<'_>, rustix::event::PollFlags)> {
        use rustix::event::PollFlags;
        let reads = room && self.credit > 0 && self.closing.is_none();
        let outputs = [&self.output, &self.errors].into_iter().flatten().filter(move |_| reads);
        let inputs = self.input.iter().filter(|_| !self.pending.is_empty());
        outputs.map(|fd| (fd.as_fd(), PollFlags::IN)).chain(inputs.map(|fd| (fd.as_fd(), PollFlags::OUT)))
    }

    /// Input from the host. False when it sent more than its window allows.
    pub fn stdin(&mut self, data: &[u8]) -> bool {
        if self.pending.len() + data.len() > EXEC_WINDOW as usize {
            return false;
        }
        if self.input.is_some() && !self.input_ends {
            self.pending.extend(data);
        }
        true
    }

    pub fn stdin_end(&mut self) {
        if self.terminal && !self.input_ends {
            self.pending.push_back(END_OF_TRANSMISSION);
        }
        self.input_ends = true;
    }

    pub fn add_credit(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes).min(EXEC_WINDOW);
    }

    pub fn resize(&self, rows: u16, cols: u16) {
        if let Some(fd) = self.output.as_ref().filter(|_| self.terminal) {
            let _ = tcsetwinsize(fd, size(rows, cols));
        }
    }

    /// To the foreground group of a terminal it would be the shell's business; here it is the session's group.
    pub fn signal(&self, signal: Signal) {
        if self.exit.is_none() {
            let _ = kill_process_group(self.leader, signal);
        }
    }

    pub fn exited(&mut self, exit: Exit, now_ms: u64) {
        self.exit = Some(exit);
        // A terminal hangs up by itself when its leader is gone, after its last output passed the line discipline.
        self.linger_until_ms = (self.terminal && self.output.is_some()).then_some(now_ms + LINGER_MS);
    }

    /// The client is gone.
    pub fn close(&mut self, now_ms: u64) {
        if self.closing.is_some() {
            return;
        }
        self.signal(Signal::HUP);
        // Closing our ends tells programs that read or write, too.
        self.input = None;
        self.output = None;
        self.errors = None;
        self.pending.clear();
        self.closing = Some(Closing::Term { at_ms: now_ms + TERM_AFTER_MS, kill_at_ms: now_ms + KILL_AFTER_MS });
    }

    /// Its leader is gone. What the leader left behind stays, as it would anywhere.
    pub fn is_over(&self) -> bool {
        self.exit.is_some()
    }

    pub fn deadline(&self) -> Option<u64> {
        match self.closing {
            Some(Closing::Term { at_ms, .. } | Closing::Kill { at_ms }) => Some(at_ms),
            Some(Closing::Killed) => None,
            None => self.linger_until_ms,
        }
    }

    pub fn tick(&mut self, now_ms: u64) {
        if self.linger_until_ms.is_some_and(|until| now_ms >= until) {
            self.linger_until_ms = None;
        }
        match self.closing {
            Some(Closing::Term { at_ms, kill_at_ms }) if now_ms >= at_ms => {
                self.signal(Signal::TERM);
                self.closing = Some(Closing::Kill { at_ms: kill_at_ms });
            }
            Some(Closing::Kill { at_ms }) if now_ms >= at_ms => {
                self.signal(Signal::KILL);
                self.closing = Some(Closing::Killed);
            }
            _ => {}
        }
    }

    /// Moves bytes both ways, at most one buffer each. True when the session is over and may be forgotten.
    pub fn pump(&mut self, link: &mut Link) -> bool {
        self.pump_input(link);
        if self.closing.is_some() {
            if let Some(exit) = self.exit {
                link.send(&ToHost::ExecExit { stream: self.stream, exit });
            }
            return self.exit.is_some();
        }
        let output = self.pump_output(link, Kind::ExecStdout);
        let errors = self.pump_output(link, Kind::ExecStderr);
        match self.exit {
            // A program that left children behind with its output open does not keep its session.
            Some(exit) if output && errors && (self.output.is_none() || self.linger_until_ms.is_none()) => {
                link.send(&ToHost::ExecExit { stream: self.stream, exit });
                true
            }
            _ => false,
        }
    }

    fn pump_input(&mut self, link: &mut Link) {
        let mut written = 0;
        if let Some(fd) = &self.input {
            while !self.pending.is_empty() {
                let (front, _) = self.pending.as_slices();
                match rustix::io::write(fd, &front[..front.len().min(PAYLOAD_MAX)]) {
                    Ok(length) => {
                        self.pending.drain(..length);
                        written += length;
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(_) => {
                        // The program closed its input. What comes is taken and dropped, so that the host never waits.
                        written += self.pending.len();
                        self.pending.clear();
                        self.input = None;
                        break;
                    }
                }
            }
        }
        if self.input.is_none() {
            written += self.pending.len();
            self.pending.clear();
        }
        if self.input_ends && self.pending.is_empty() && !self.terminal {
            self.input = None;
        }
        if written > 0 && self.exit.is_none() {
            link.send(&ToHost::ExecCredit { stream: self.stream, bytes: written as u32 });
        }
    }

    /// True when there is nothing more to read, for now or for ever.
    fn pump_output(&mut self, link: &mut Link, kind: Kind) -> bool {
        let slot = if kind == Kind::ExecStderr { &mut self.errors } else { &mut self.output };
        let Some(fd) = slot else {
            return true;
        };
        if self.credit == 0 || !link.has_room() {
            return false;
        }
        let mut buffer = [0u8; READ_MAX];
        let limit = buffer.len().min(self.credit as usize);
        match rustix::io::read(&*fd, &mut buffer[..limit]) {
            Ok(0) | Err(Errno::IO) => {
                // A terminal reports an error once no program has it open.
                *slot = None;
                true
            }
            Ok(length) => {
                self.credit -= length as u32;
                link.send_data(kind, self.stream, &buffer[..length]);
                false
            }
            Err(Errno::AGAIN) => true,
            Err(Errno::INTR) => false,
            Err(_) => {
                *slot = None;
                true
            }
        }
    }
}

/// Our side, non-blocking, and the program's.
fn terminal(pty: Pty, identity: &Identity) -> Result<(OwnedFd, OwnedFd), String> {
    let open = || -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        tcsetwinsize(&ours, size(pty.rows, pty.cols))?;
        Ok((ours, theirs))
    };
    let (ours, theirs) = open().map_err(|error| format!("open a terminal: {error}"))?;
    let owner = Identity { gid: TTY_GROUP, ..identity.clone() };
    give(&theirs, &owner)?;
    nonblocking(&ours)?;
    Ok((ours, theirs))
}

#[cfg(test)]
mod tests;
