//! One program in the guest: its input, its output, and its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use model::guest::{EXEC_WINDOW, ExecOpen, Exit, Kind, LogStream, PAYLOAD_MAX, ToGuest};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};

use super::Error;
use super::shared::{ANSWER_SECONDS, Shared};

/// A piece of output. With a terminal everything is `Stdout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub stream: LogStream,
    pub data: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Running { pid: u32 },
    Refused { detail: String },
    Exited(Exit),
    Disconnected,
}

/// The read task's side of a session.
pub struct Inbox {
    output: Mutex<Waiting>,
    arrived: Notify,
    stage: watch::Sender<Stage>,
    /// Bytes of input that the guest will take.
    credit: Semaphore,
}

#[derive(Default)]
struct Waiting {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            output: Mutex::default(),
            arrived: Notify::new(),
            stage: watch::Sender::new(Stage::Opening),
            credit: Semaphore::new(EXEC_WINDOW as usize),
        }
    }
}

impl Inbox {
    /// False when the guest sent more than the window allows; nothing was taken then.
    pub fn push(&self, kind: Kind, data: Bytes) -> bool {
        let mut waiting = self.output.lock();
        if waiting.bytes + data.len() > EXEC_WINDOW as usize {
            return false;
        }
        if !data.is_empty() {
            waiting.bytes += data.len();
            let stream = if kind == Kind::ExecStderr { LogStream::Stderr } else { LogStream::Stdout };
            waiting.chunks.push_back(Chunk { stream, data });
        }
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    pub fn started(&self, result: Result<u32, String>) {
        self.stage.send_replace(match result {
            Ok(pid) => Stage::Running { pid },
            Err(detail) => Stage::Refused { detail },
        });
    }

    pub fn exited(&self, exit: Exit) {
        self.end(Stage::Exited(exit));
    }

    pub fn disconnected(&self) {
        self.end(Stage::Disconnected);
    }

    fn end(&self, stage: Stage) {
        self.stage.send_replace(stage);
        self.credit.close();
        self.arrived.notify_one();
    }

    pub fn add_credit(&self, bytes: u32) {
        let room = (EXEC_WINDOW as usize).saturating_sub(self.credit.available_permits());
        self.credit.add_permits((bytes as usize).min(room));
    }

    fn is_over(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Refused { .. } | Stage::Exited(_) | Stage::Disconnected)
    }
}

/// What all parts of a session hold; the last one dropped closes it in the guest.
struct Guard {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    stream: u32,
    /// The guest was told of it.
    sent: AtomicBool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.sent.load(Ordering::Relaxed) {
            self.shared.sessions.lock().remove(&self.stream);
            return;
        }
        if self.inbox.is_over() || self.shared.closed.borrow().is_some() {
            return;
        }
        // The number stays taken until the guest reports the end, which HUP, TERM and KILL bring about.
        let message = ToGuest::ExecClose { stream: self.stream };
        if !self.shared.try_send(&message)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move { shared.send(&message).await });
        }
    }
}

/// A running program. Its parts may be used from different tasks; when all of them are dropped before its end, the
/// program gets HUP, then TERM after 5 s, then KILL after 30 s.
pub struct Session {
    pub stdin: Stdin,
    pub output: Output,
    pub control: Control,
}

pub struct Stdin {
    guard: Arc<Guard>,
}

pub struct Output {
    guard: Arc<Guard>,
}

#[derive(Clone)]
pub struct Control {
    guard: Arc<Guard>,
}

pub(super) async fn open(shared: &Arc<Shared>, request: ExecOpen) -> Result<Session, Error> {
    let (stream, inbox) = shared.open_stream()?;
    let guard =
        Arc::new(Guard { shared: Arc::clone(shared), inbox: Arc::clone(&inbox), stream, sent: AtomicBool::new(false) });
    let mut stage = inbox.stage.subscribe();
    let step = async {
        shared.send(&ToGuest::ExecOpen(ExecOpen { stream, ..request })).await?;
        guard.sent.store(true, Ordering::Relaxed);
        let stage = stage.wait_for(|stage| *stage != Stage::Opening).await;
        match stage.map(|stage| stage.clone()) {
            Ok(Stage::Running { .. } | Stage::Exited(_)) => Ok(()),
            Ok(Stage::Refused { detail }) => Err(Error::ExecRefused { detail }),
            Ok(Stage::Opening | Stage::Disconnected) | Err(_) => Err(shared.closed_error()),
        }
    };
    shared.within("the start of a program", ANSWER_SECONDS, step).await?;
    Ok(Session {
        stdin: Stdin { guard: Arc::clone(&guard) },
        output: Output { guard: Arc::clone(&guard) },
        control: Control { guard },
    })
}

impl Stdin {
    /// Passes all of `data` on, waiting while the program is slow to read.
    ///
    /// # Errors
    /// `Closed` when the session is over; part of the data may have been passed then.
    pub async fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        for piece in data.chunks(PAYLOAD_MAX) {
            let permits = self.guard.inbox.credit.acquire_many(piece.len() as u32).await;
            permits.map_err(|_| self.over())?.forget();
            self.guard.shared.send_data(Kind::ExecStdin, self.guard.stream, piece).await?;
        }
        Ok(())
    }

    /// The end of input: a closed pipe, or ^D on a terminal.
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.guard.shared.send_data(Kind::ExecStdinEof, self.guard.stream, &[]).await
    }

    fn over(&self) -> Error {
        match *self.guard.inbox.stage.borrow() {
            Stage::Disconnected => self.guard.shared.closed_error(),
            _ => Error::Closed { why: "the program has ended".to_owned() },
        }
    }
}

impl Output {
    /// The next piece; `None` when the program has ended, or the connection has, and all was given. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Option<Chunk> {
        let inbox = &self.guard.inbox;
        loop {
            let arrived = inbox.arrived.notified();
            // Asked before the queue is looked at: what comes before the end is never missed.
            let over = inbox.is_over();
            let chunk = {
                let mut waiting = inbox.output.lock();
                let chunk = waiting.chunks.pop_front();
                waiting.bytes -= chunk.as_ref().map_or(0, |chunk| chunk.data.len());
                chunk
            };
            match chunk {
                Some(chunk) => {
                    if !over {
                        let bytes = chunk.data.len() as u32;
                        self.credit(bytes);
                    }
                    return Some(chunk);
                }
                None if over => {
                    // Others who wait on the same end must not starve.
                    inbox.arrived.notify_one();
                    return None;
                }
                None => arrived.await,
            }
        }
    }

    fn credit(&self, bytes: u32) {
        let message = ToGuest::ExecCredit { stream: self.guard.stream, bytes };
        if !self.guard.shared.try_send(&message)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let shared = Arc::clone(&self.guard.shared);
            runtime.spawn(async move { shared.send(&message).await });
        }
    }
}

impl Control {
    /// In the guest; 0 when it ended before that was heard.
    pub fn pid(&self) -> u32 {
        match *self.guard.inbox.stage.borrow() {
            Stage::Running { pid } => pid,
            _ => 0,
        }
    }

    pub async fn resize(&self, rows: u16, cols: u16) -> Result<(), Error> {
        self.guard.shared.send(&ToGuest::ExecResize { stream: self.guard.stream, rows, cols }).await
    }

    /// A number as in `signal(7)`, to the program's process group.
    pub async fn signal(&self, signal: i32) -> Result<(), Error> {
        self.guard.shared.send(&ToGuest::ExecSignal { stream: self.guard.stream, signal }).await
    }

    /// As if the client had left: HUP, TERM, KILL.
    pub async fn close(&self) -> Result<(), Error> {
        self.guard.shared.send(&ToGuest::ExecClose { stream: self.guard.stream }).await
    }

    /// How the program ended. Its output may still wait to be read. Any number of callers may wait.
    ///
    /// # Errors
    /// `Closed` when the connection ended first.
    pub async fn wait(&self) -> Result<Exit, Error> {
        let mut stage = self.guard.inbox.stage.subscribe();
        let end = stage.wait_for(|stage| matches!(stage, Stage::Exited(_) | Stage::Disconnected)).await;
        match end.map(|end| end.clone()) {
            Ok(Stage::Exited(exit)) => Ok(exit),
            _ => Err(self.guard.shared.closed_error()),
        }
    }
}
