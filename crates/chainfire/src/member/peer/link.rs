//! The calling side of one lane to one peer: many questions at once over one connection, made when there is something
//! to say and made again when it breaks.
//!
//! ```text
//!             question                         connected              lost, silent, or written to in vain
//!   closed ──────────────▶ connecting ──────────────────▶ open ───────────────────────────────▶ closed
//!      ▲                       │ failed                     │ what was sent: Lost
//!      └──── pause ◀───────────┘                            └ what was not: stays for the next connection
//!            what comes meanwhile: NotSent
//! ```

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::ReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::address::Address;
use super::book::Book;
use super::frame::{self, MESSAGE_BYTES_MAX};
use super::greeting::{GREETING_MAX, GreetingError, greet};
use super::network::{Network, Pipe};
use super::pace::{self, Heard, LIFE_EVERY, Listening};
use super::tls::Armour;
use super::wire::{Answered, Hello, Lane, Question};
use crate::member::types::MemberId;

/// Questions that wait to be written.
const QUEUE_MAX: usize = 1024;

/// Questions that wait for their answers on one connection.
const OPEN_MAX: usize = 16 * 1024;

/// Bytes that are collected before they are written.
const WRITE_BYTES: usize = 256 * 1024;

/// To connect. A way that was cut and is whole again is found by the next attempt.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Between two attempts to connect; doubles from the first to the second number while they fail.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Undone {
    /// The other side has surely not seen the question.
    #[error("it could not be reached: {0}")]
    NotSent(String),
    /// It may have done what it was asked.
    #[error("the connection to it was lost: {0}")]
    Lost(String),
    /// It may have done what it was asked.
    #[error("it did not answer in time")]
    Late,
}

type Reply = oneshot::Sender<Result<Answered, Undone>>;

struct Asking {
    question: Question,
    reply: Reply,
}

pub struct Link {
    queue: mpsc::Sender<Asking>,
}

/// How to get there.
pub struct Road {
    pub network: Arc<dyn Network>,
    pub armour: Option<Armour>,
    pub book: Arc<Book>,
    pub cluster: u64,
    pub from: MemberId,
    pub to: MemberId,
    pub lane: Lane,
}

impl Link {
    /// Its task ends with the link.
    pub fn new(road: Road) -> Self {
        let (queue, asked) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(Driver { road, asked }.run());
        Self { queue }
    }

    pub async fn call(&self, question: Question, limit: Duration) -> Result<Answered, Undone> {
        let call = async {
            match self.send(question).await.await {
                Ok(answer) => answer,
                Err(_) => Err(Undone::Lost("the link was given up".to_owned())),
            }
        };
        timeout(limit, call).await.unwrap_or(Err(Undone::Late))
    }

    /// Questions are written in the order in which this is called.
    pub async fn send(&self, question: Question) -> oneshot::Receiver<Result<Answered, Undone>> {
        let (reply, answer) = oneshot::channel();
        if let Err(mpsc::error::SendError(asking)) = self.queue.send(Asking { question, reply }).await {
            let _ = asking.reply.send(Err(Undone::NotSent("the link was given up".to_owned())));
        }
        answer
    }
}

/// One address after the other, until one answers as the member that is meant. TLS where the address says so.
pub async fn open(
    network: &dyn Network,
    armour: Option<&Armour>,
    addresses: &[Address],
    hello: &Hello,
) -> Result<(Pipe, u64, MemberId), String> {
    let mut why = "no address of it is known".to_owned();
    for address in addresses {
        let opening = async {
            let connected = timeout(CONNECT_MAX, network.connect(address)).await;
            let mut pipe = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            if address.tls {
                let armour = armour.ok_or_else(|| io::Error::other("its address is https, and TLS is not set up"))?;
                pipe = armour.connect(&address.host, pipe).await?;
            }
            let (cluster, member) = greet(&mut pipe, hello).await?;
            Ok::<_, GreetingError>((pipe, cluster, member))
        };
        match timeout(GREETING_MAX, opening).await.unwrap_or(Err(GreetingError::Late)) {
            Ok(open) => return Ok(open),
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    Err(why)
}

impl Road {
    async fn open(&self) -> Result<Pipe, String> {
        let Self { cluster, from, to, lane, .. } = *self;
        let hello = Hello { cluster: Some(cluster), from: Some(from), to: Some(to), lane };
        let addresses = self.book.addresses(to);
        let opened = open(&*self.network, self.armour.as_ref(), &addresses, &hello).await;
        if self.book.set_trouble(to, opened.as_ref().err().cloned()) {
            match &opened {
                Ok(_) => tracing::info!(peer = format_args!("{to:x}"), ?lane, "the member is reached"),
                Err(why) => tracing::warn!(peer = format_args!("{to:x}"), ?lane, why, "the member is not reached"),
            }
        }
        opened.map(|(pipe, ..)| pipe)
    }
}

struct Driver {
    road: Road,
    asked: mpsc::Receiver<Asking>,
}

impl Driver {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        while let Some(first) = self.asked.recv().await {
            if first.reply.is_closed() {
                continue;
            }
            match self.road.open().await {
                Ok(pipe) => {
                    pause = PAUSE_MIN;
                    if Open::new(pipe).carry(first, &mut self.asked).await.is_none() {
                        return;
                    }
                }
                Err(why) => {
                    refuse(first, &why);
                    if timeout(pause, self.refuse_all(&why)).await.is_ok() {
                        return;
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Ends when the link was given up.
    async fn refuse_all(&mut self, why: &str) {
        while let Some(asking) = self.asked.recv().await {
            refuse(asking, why);
        }
    }
}

fn refuse(asking: Asking, why: &str) {
    let _ = asking.reply.send(Err(Undone::NotSent(why.to_owned())));
}

/// Questions without an answer yet, by id.
type Pending = Arc<Mutex<HashMap<u64, Reply>>>;

/// One connection.
struct Open {
    pipe: tokio::io::WriteHalf<Pipe>,
    reader: JoinHandle<String>,
    pending: Pending,
    heard: Heard,
    buffer: Vec<u8>,
    last_id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.reader.abort();
        self.lose("the link was given up");
    }
}

impl Open {
    fn new(pipe: Pipe) -> Self {
        let (read, pipe) = tokio::io::split(pipe);
        let pending = Pending::default();
        let heard = Heard::now();
        let reader = tokio::spawn(read_answers(Listening { read, heard: heard.clone() }, pending.clone()));
        Self { pipe, reader, pending, heard, buffer: Vec::new(), last_id: 0 }
    }

    /// `None` when the link was given up, otherwise the connection is lost.
    async fn carry(mut self, first: Asking, asked: &mut mpsc::Receiver<Asking>) -> Option<()> {
        let mut life = tokio::time::interval(LIFE_EVERY);
        life.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.ask(first);
        let why = loop {
            while self.buffer.len() < WRITE_BYTES
                && let Ok(asking) = asked.try_recv()
            {
                self.ask(asking);
            }
            if let Err(error) = pace::write(&mut self.pipe, &self.buffer).await {
                break error.to_string();
            }
            self.buffer.clear();
            self.buffer.shrink_to(WRITE_BYTES);
            tokio::select! {
                asking = asked.recv() => self.ask(asking?),
                why = &mut self.reader => break why.unwrap_or_else(|_| "its reader ended".to_owned()),
                _ = life.tick() => {
                    if self.heard.is_silent() {
                        break "it has fallen silent".to_owned();
                    }
                    frame::sign_of_life(&mut self.buffer);
                }
            }
        };
        self.lose(&why);
        Some(())
    }

    fn ask(&mut self, asking: Asking) {
        let Asking { question, reply } = asking;
        if reply.is_closed() {
            return;
        }
        let mut pending = self.pending.lock();
        if pending.len() >= OPEN_MAX {
            pending.retain(|_, reply| !reply.is_closed());
        }
        if pending.len() >= OPEN_MAX {
            let _ = reply.send(Err(Undone::NotSent("too many questions are open".to_owned())));
            return;
        }
        self.last_id += 1;
        match frame::put(&mut self.buffer, self.last_id, &question) {
            Ok(()) => {
                pending.insert(self.last_id, reply);
            }
            Err(error) => {
                let _ = reply.send(Err(Undone::NotSent(error.to_string())));
            }
        }
    }

    fn lose(&self, why: &str) {
        for (_, reply) in self.pending.lock().drain() {
            let _ = reply.send(Err(Undone::Lost(why.to_owned())));
        }
    }
}

async fn read_answers(read: Listening<ReadHalf<Pipe>>, pending: Pending) -> String {
    let mut read = tokio::io::BufReader::with_capacity(64 * 1024, read);
    loop {
        let frame = match frame::take(&mut read, MESSAGE_BYTES_MAX).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return "it closed the connection".to_owned(),
            Err(error) => return error.to_string(),
        };
        if frame.is_sign_of_life() {
            continue;
        }
        let answered = match frame::message(&frame.message) {
            Ok(answered) => answered,
            Err(error) => return error.to_string(),
        };
        let reply = pending.lock().remove(&frame.id);
        if let Some(reply) = reply {
            let _ = reply.send(Ok(answered));
        }
    }
}
