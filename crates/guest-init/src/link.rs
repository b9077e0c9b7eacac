//! The guest's end of the channel: the port, its bytes in both directions, and whether a host is there.
//!
//! ```text
//! away --(port open again)--> present --(hello)--> attached
//!   ^                            |                    |
//!   +---------(read gives 0)-----+--------------------+
//! ```

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use model::guest::{Decoder, Frame, HelloHost, Kind, LogLine, PORT, ToHost, encode, preamble};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::{clock, console};

const PORTS: &str = "/sys/class/virtio-ports";
const PORT_POLL_MS: u64 = 5;
const PORT_COMPLAIN_MS: u64 = 5_000;
/// Logs and session output wait while more than this is queued, so that control messages stay quick.
const OUT_SOFT: usize = 64 * 1024;
/// Nothing is read while more than this is queued: a host that asks must also listen.
const OUT_HARD: usize = 1024 * 1024;
/// The driver copies one write into one buffer of this size at most.
const WRITE_MAX: usize = 32 * 1024;
const READ_MAX: usize = 16 * 1024;

pub struct Link {
    port: File,
    present: bool,
    attached: bool,
    decoder: Decoder,
    out: Vec<u8>,
    out_start: usize,
}

/// Waits for the port. Without one there is nothing else to do, so it waits for as long as it takes.
pub fn wait_for_port() -> File {
    let mut complain = clock::monotonic_ms() + PORT_COMPLAIN_MS;
    loop {
        if let Some(path) = find_port() {
            match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path) {
                Ok(file) => return file,
                Err(error) => console::info(&format!("open {path}: {error}")),
            }
        }
        if clock::monotonic_ms() >= complain {
            console::error(&format!("no virtio port named {PORT}"));
            complain += PORT_COMPLAIN_MS;
        }
        clock::nap(PORT_POLL_MS);
    }
}

fn find_port() -> Option<String> {
    fs::read_dir(PORTS).ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim() == PORT).then(|| format!("/dev/{}", entry.file_name().to_string_lossy()))
    })
}

impl Link {
    pub fn new(port: File) -> Self {
        let mut link =
            Self { port, present: true, attached: false, decoder: Decoder::new(), out: Vec::new(), out_start: 0 };
        link.look();
        link
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }

    /// Something has the other end of the port open.
    pub fn is_present(&self) -> bool {
        self.present
    }

    /// A host said hello and is there still.
    pub fn is_attached(&self) -> bool {
        self.attached
    }

    pub fn wants_write(&self) -> bool {
        self.out_start < self.out.len()
    }

    pub fn wants_read(&self) -> bool {
        self.out.len() - self.out_start < OUT_HARD
    }

    /// Bulk data may be queued now.
    pub fn has_room(&self) -> bool {
        self.attached && self.out.len() - self.out_start < OUT_SOFT
    }

    /// Asks the port whether the other end is open. A closed port would end every poll at once, so it is left out of
    /// them; the driver raises SIGIO when it opens. What an old host sent last is read first.
    pub fn look(&mut self) {
        let mut fds = [PollFd::new(&self.port, PollFlags::IN)];
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let polled = poll(&mut fds, Some(&zero));
        let closed = polled.is_ok() && fds[0].revents().intersects(PollFlags::HUP);
        let pending = fds[0].revents().intersects(PollFlags::IN);
        if closed && !self.wants_read() {
            self.detach();
        }
        self.set_present(!closed || (pending && self.wants_read()));
    }

    fn set_present(&mut self, present: bool) {
        if self.present == present {
            return;
        }
        self.present = present;
        let fd = self.port.as_raw_fd();
        let flags = if present { libc::O_NONBLOCK } else { libc::O_NONBLOCK | libc::O_ASYNC };
        // SAFETY: both commands take an integer.
        unsafe {
            libc::fcntl(fd, libc::F_SETOWN, libc::getpid());
            libc::fcntl(fd, libc::F_SETFL, flags);
        }
    }

    /// Reads what is there, up to one buffer. Notices when the host went away.
    pub fn read(&mut self) {
        let mut buffer = [0u8; READ_MAX];
        match rustix::io::read(&self.port, &mut buffer) {
            Ok(0) => {
                self.detach();
                self.set_present(false);
            }
            Ok(length) => self.decoder.push(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => {
                console::error(&format!("read the port: {error}"));
                self.detach();
                self.set_present(false);
            }
        }
    }

    pub fn pop(&mut self) -> Option<Frame> {
        self.decoder.pop()
    }

    /// A host said hello: whatever was queued was for another one.
    pub fn attach(&mut self, hello: &HelloHost, answer: &ToHost) {
        self.out.clear();
        self.out_start = 0;
        self.attached = true;
        preamble(&mut self.out);
        self.send(answer);
        console::info(&format!("a host is attached, protocols {} to {}", hello.protocol_min, hello.protocol_max));
    }

    /// Answers a host that cannot be served, and stays unattached.
    pub fn refuse(&mut self, answer: &ToHost) {
        self.out.clear();
        self.out_start = 0;
        preamble(&mut self.out);
        let _ = answer.encode(&mut self.out);
        self.attached = false;
    }

    pub fn detach(&mut self) {
        self.attached = false;
        self.out.clear();
        self.out_start = 0;
    }

    /// Queues a control message; dropped when no host is attached.
    pub fn send(&mut self, message: &ToHost) {
        if self.attached
            && let Err(error) = message.encode(&mut self.out)
        {
            console::error(&format!("a message was not sent: {error}"));
        }
    }

    pub fn send_line(&mut self, line: &LogLine) {
        if self.attached {
            line.encode(&mut self.out);
        }
    }

    pub fn send_data(&mut self, kind: Kind, stream: u32, data: &[u8]) {
        if self.attached {
            encode(kind, stream, data, &mut self.out);
        }
    }

    /// Writes as much as the port takes.
    pub fn flush(&mut self) {
        while self.wants_write() && self.present {
            let end = self.out.len().min(self.out_start + WRITE_MAX);
            match rustix::io::write(&self.port, &self.out[self.out_start..end]) {
                Ok(length) => self.out_start += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    console::error(&format!("write the port: {error}"));
                    self.detach();
                }
            }
        }
        if !self.wants_write() {
            self.out.clear();
            self.out_start = 0;
        } else if self.out_start > OUT_SOFT {
            self.out.drain(..self.out_start);
            self.out_start = 0;
        }
    }

    /// At the end: gives the host a bounded time to take the last words.
    pub fn drain(&mut self, limit_ms: u64) {
        let deadline = clock::monotonic_ms() + limit_ms;
        while self.present && self.wants_write() && clock::monotonic_ms() < deadline {
            self.flush();
            if self.wants_write() {
                clock::nap(2);
            }
        }
    }
}
