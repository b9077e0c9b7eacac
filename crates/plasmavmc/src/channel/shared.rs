//! What the tasks and the handles of one connection have in common.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use model::guest::{EXEC_MAX, FailureCode, Kind, Numbered, State, Stats, ToGuest, encode};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::Error;
use super::session::Inbox;

/// Frames that wait for the write task.
pub const FRAMES_MAX: usize = 256;
/// Requests without answer.
const PENDING_MAX: usize = 64;
/// For an answer that costs the guest no work.
pub const ANSWER_SECONDS: u64 = 5;
/// Events kept for those who come late.
pub const EVENTS_MAX: usize = 256;

/// A reply to a numbered request.
pub enum Answer {
    Pong,
    Stats(Stats),
}

/// The guest's word on a configuration.
pub struct ConfigAnswer {
    pub accepted: bool,
    pub boot_id: String,
    pub code: Option<FailureCode>,
    pub detail: String,
}

/// Where log lines go.
pub struct Lines {
    pub sender: mpsc::Sender<super::LogItem>,
    pub asked: u64,
    /// The guest has answered; lines before that were for an older reader.
    pub started: bool,
}

pub struct Shared {
    frames: mpsc::Sender<Bytes>,
    pub state: watch::Sender<State>,
    /// Recent events, oldest first; appended under this lock together with the broadcast.
    pub history: Mutex<VecDeque<Numbered>>,
    pub live: broadcast::Sender<Numbered>,
    /// Why the connection ended, once it has.
    pub closed: watch::Sender<Option<String>>,
    pub boot_id: Mutex<String>,
    pub lines: Mutex<Option<Lines>>,
    pub sessions: Mutex<BTreeMap<u32, Arc<Inbox>>>,
    pub answers: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    pub config: Mutex<Option<oneshot::Sender<ConfigAnswer>>>,
    pub stopping: watch::Sender<bool>,
    /// The guest's word on being prepared as a template: why it is not, or nothing.
    pub prepared: watch::Sender<Option<String>>,
    next_stream: AtomicU32,
    next_request: AtomicU64,
}

impl Shared {
    pub fn new(frames: mpsc::Sender<Bytes>, state: State, boot_id: String) -> Self {
        Self {
            frames,
            state: watch::Sender::new(state),
            history: Mutex::new(VecDeque::new()),
            live: broadcast::Sender::new(EVENTS_MAX),
            closed: watch::Sender::new(None),
            boot_id: Mutex::new(boot_id),
            lines: Mutex::new(None),
            sessions: Mutex::new(BTreeMap::new()),
            answers: Mutex::new(BTreeMap::new()),
            config: Mutex::new(None),
            stopping: watch::Sender::new(false),
            prepared: watch::Sender::new(None),
            next_stream: AtomicU32::new(1),
            next_request: AtomicU64::new(1),
        }
    }

    pub fn closed_error(&self) -> Error {
        let why = self.closed.borrow().clone();
        Error::Closed { why: why.unwrap_or_else(|| "the connection is gone".to_owned()) }
    }

    fn bytes_of(message: &ToGuest) -> Result<Bytes, Error> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).map_err(|error| Error::TooLarge { why: error.to_string() })?;
        Ok(bytes.into())
    }

    /// Waits while the write task is behind.
    pub async fn send(&self, message: &ToGuest) -> Result<(), Error> {
        self.send_bytes(Self::bytes_of(message)?).await
    }

    pub async fn send_data(&self, kind: Kind, stream: u32, data: &[u8]) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(data.len() + model::guest::HEADER_LEN);
        encode(kind, stream, data, &mut bytes);
        self.send_bytes(bytes.into()).await
    }

    async fn send_bytes(&self, bytes: Bytes) -> Result<(), Error> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(Option::is_some) => Err(self.closed_error()),
            sent = self.frames.send(bytes) => sent.map_err(|_| self.closed_error()),
        }
    }

    /// For places that cannot wait. Lost only when the write task is far behind or gone.
    pub fn try_send(&self, message: &ToGuest) -> bool {
        Self::bytes_of(message).is_ok_and(|bytes| self.frames.try_send(bytes).is_ok())
    }

    /// Sends a numbered request and waits for its answer.
    pub async fn ask(&self, what: &'static str, message: impl FnOnce(u64) -> ToGuest) -> Result<Answer, Error> {
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        {
            let mut answers = self.answers.lock();
            while answers.len() >= PENDING_MAX {
                answers.pop_first();
            }
            answers.insert(id, sender);
        }
        let result = self.within(what, ANSWER_SECONDS, async {
            self.send(&message(id)).await?;
            answer.await.map_err(|_| self.closed_error())
        });
        let result = result.await;
        self.answers.lock().remove(&id);
        result
    }

    /// A step that must end soon, or when the connection does.
    pub async fn within<T>(
        &self,
        what: &'static str,
        seconds: u64,
        step: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            result = step => result,
            _ = closed.wait_for(Option::is_some) => Err(self.closed_error()),
            () = tokio::time::sleep(Duration::from_secs(seconds)) => Err(Error::Timeout { what, seconds }),
        }
    }

    /// A free stream number with its inbox in place.
    pub fn open_stream(&self) -> Result<(u32, Arc<Inbox>), Error> {
        let mut sessions = self.sessions.lock();
        if sessions.len() >= EXEC_MAX {
            return Err(Error::TooManySessions { count: EXEC_MAX });
        }
        let stream = loop {
            let stream = self.next_stream.fetch_add(1, Ordering::Relaxed);
            if stream != 0 && !sessions.contains_key(&stream) {
                break stream;
            }
        };
        let inbox = Arc::new(Inbox::default());
        sessions.insert(stream, Arc::clone(&inbox));
        Ok((stream, inbox))
    }

    /// The connection is over; everyone who waits learns it.
    pub fn close(&self, why: String) {
        self.closed.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(why);
            }
            first
        });
        self.lines.lock().take();
        self.answers.lock().clear();
        self.config.lock().take();
        for inbox in std::mem::take(&mut *self.sessions.lock()).into_values() {
            inbox.disconnected();
        }
    }
}
