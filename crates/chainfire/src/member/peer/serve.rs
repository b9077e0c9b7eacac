//! The answering side: connections of other members.
//!
//! Appends of one session and pieces of a snapshot are taken in the order in which they come; everything else is
//! answered as soon as it can be.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use openraft::type_config::alias::{SnapshotMetaOf, VoteOf};
use tokio::io::WriteHalf;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frame::{self, MESSAGE_BYTES_MAX};
use super::greeting::{GREETING_MAX, GreetingError, welcome};
use super::network::{Listener, Pipe};
use super::pace::{self, Heard, LIFE_EVERY, Listening};
use super::tls::Armour;
use super::wire::{Answered, Denial, Hello, HelloAnswer, Question};
use crate::door::host::SnapshotPieces;
use crate::member::types::Types;

/// Connections at once, from everybody.
const CONNECTIONS_MAX: usize = 256;

/// Questions of one connection that are being answered at once.
const QUESTIONS_MAX: usize = 4096;

/// Answers of one connection that wait to be written.
const ANSWERS_MAX: usize = 1024;

/// Sessions of one connection that are kept open; a leader has one, and one more while it changes.
const SESSIONS_MAX: usize = 4;

/// Appends of one session that wait for the log.
const APPENDS_MAX: usize = 64;

const WRITE_BYTES: usize = 256 * 1024;

/// After the machine had no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the member does with the questions of others.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    fn judge(&self, hello: &Hello) -> HelloAnswer;

    async fn answer(&self, hello: &Hello, question: Question) -> Answered;

    /// Takes entries in order, and answers in that order. Ends after an error of the log's own.
    fn session(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<Types>>,
    ) -> BoxStream<'static, StreamAppendResult<Types>>;

    fn copy(&self) -> Result<SnapshotPieces, Denial>;

    async fn receive(&self, vote: VoteOf<Types>, meta: SnapshotMetaOf<Types>) -> Result<Box<dyn Receiving>, Denial>;
}

/// A snapshot that is coming in; dropped, it leaves nothing behind.
#[async_trait]
pub trait Receiving: Send {
    async fn piece(&mut self, piece: Bytes) -> Result<(), Denial>;

    async fn end(self: Box<Self>) -> Answered;
}

/// Runs until it is dropped, and its connections with it.
pub async fn serve(mut listener: Box<dyn Listener>, armour: Option<Armour>, service: Arc<dyn Service>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((_, from)) if connections.len() >= CONNECTIONS_MAX => {
                    tracing::warn!(from, "too many connections of members");
                }
                Ok((pipe, from)) => {
                    let (armour, service) = (armour.clone(), service.clone());
                    connections.spawn(async move {
                        if let Err(error) = connection(pipe, armour, service).await {
                            tracing::debug!(from, %error, "the connection of a member ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection of a member can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(pipe: Pipe, armour: Option<Armour>, service: Arc<dyn Service>) -> io::Result<()> {
    let greeting = async {
        let mut pipe = match armour {
            Some(armour) => armour.accept(pipe).await?,
            None => pipe,
        };
        let hello = welcome(&mut pipe, |hello| service.judge(hello)).await?;
        Ok::<_, GreetingError>((pipe, hello))
    };
    let greeted = timeout(GREETING_MAX, greeting).await.unwrap_or(Err(GreetingError::Late));
    let (pipe, hello) = greeted.map_err(|error| {
        tracing::warn!(%error, "a connection to the members' port was refused");
        io::Error::other(error)
    })?;
    let (read, write) = tokio::io::split(pipe);
    let (answers, answered) = mpsc::channel(ANSWERS_MAX);
    let mut tasks = JoinSet::new();
    let heard = Heard::now();
    let read = Listening { read, heard: heard.clone() };
    let mut writer = tokio::spawn(write_answers(write, answered, heard.clone()));
    let (hello, sessions) = (Arc::new(hello), BTreeMap::new());
    let mut caller = Caller { service, hello, answers, sessions, receiving: None, copying: None };
    let mut read = tokio::io::BufReader::with_capacity(64 * 1024, read);
    let ended = loop {
        let frame = tokio::select! {
            frame = frame::take(&mut read, MESSAGE_BYTES_MAX) => frame,
            ended = &mut writer => break ended.unwrap_or_else(|error| Err(io::Error::other(error))),
        };
        match frame {
            Err(error) => break Err(error),
            Ok(None) => break Ok(()),
            Ok(Some(frame)) if frame.is_sign_of_life() => {}
            Ok(Some(frame)) => match frame::message(&frame.message) {
                Ok(question) => {
                    heard.set_listening(false);
                    caller.take(frame.id, question, &mut tasks).await;
                    heard.set_listening(true);
                }
                Err(error) => break Err(error),
            },
        }
        while tasks.try_join_next().is_some() {}
    };
    writer.abort();
    ended
}

struct Caller {
    service: Arc<dyn Service>,
    hello: Arc<Hello>,
    answers: mpsc::Sender<(u64, Answered)>,
    sessions: BTreeMap<u64, Session>,
    receiving: Option<Box<dyn Receiving>>,
    copying: Option<SnapshotPieces>,
}

struct Session {
    requests: mpsc::Sender<AppendEntriesRequest<Types>>,
    ids: mpsc::Sender<u64>,
}

impl Caller {
    async fn take(&mut self, id: u64, question: Question, tasks: &mut JoinSet<()>) {
        let answer = match question {
            Question::Append { session, request } if session != 0 => {
                self.append(id, session, request, tasks).await;
                return;
            }
            Question::SnapshotBegin { vote, meta } => {
                self.receiving = None;
                match self.service.receive(vote, meta).await {
                    Ok(receiving) => {
                        self.receiving = Some(receiving);
                        Answered::SnapshotTaken
                    }
                    Err(denial) => Answered::Denied(denial),
                }
            }
            Question::SnapshotPiece(piece) => match &mut self.receiving {
                None => Answered::Denied(Denial::Misplaced),
                Some(receiving) => match receiving.piece(piece).await {
                    Ok(()) => Answered::SnapshotTaken,
                    Err(denial) => {
                        self.receiving = None;
                        Answered::Denied(denial)
                    }
                },
            },
            Question::SnapshotEnd => match self.receiving.take() {
                None => Answered::Denied(Denial::Misplaced),
                Some(receiving) => {
                    // Putting a large snapshot in place takes longer than anyone may be silent; the reader goes on.
                    let answers = self.answers.clone();
                    tasks.spawn(async move {
                        let _ = answers.send((id, receiving.end().await)).await;
                    });
                    return;
                }
            },
            Question::Copy if self.hello.cluster.is_some() => match self.service.copy() {
                Ok(pieces) => {
                    self.copying = Some(pieces);
                    Answered::CopyBegun
                }
                Err(denial) => Answered::Denied(denial),
            },
            Question::CopyPiece => match &mut self.copying {
                None => Answered::Denied(Denial::Misplaced),
                Some(pieces) => match pieces.recv().await {
                    Some(Ok(piece)) => Answered::CopyPiece(piece),
                    None => Answered::CopyPiece(Bytes::new()),
                    Some(Err(error)) => Answered::Denied(Denial::Fault(error.into())),
                },
            },
            _ if tasks.len() >= QUESTIONS_MAX => Answered::Denied(Denial::Busy),
            question => {
                let (service, hello, answers) = (self.service.clone(), self.hello.clone(), self.answers.clone());
                tasks.spawn(async move {
                    let answer = service.answer(&hello, question).await;
                    let _ = answers.send((id, answer)).await;
                });
                return;
            }
        };
        let _ = self.answers.send((id, answer)).await;
    }

    async fn append(&mut self, id: u64, session: u64, request: AppendEntriesRequest<Types>, tasks: &mut JoinSet<()>) {
        if !self.sessions.contains_key(&session) {
            // Numbers grow, so the first is the oldest.
            while self.sessions.len() >= SESSIONS_MAX {
                self.sessions.pop_first();
            }
            let opened = self.open_session(tasks);
            self.sessions.insert(session, opened);
        }
        let Some(open) = self.sessions.get(&session) else { return };
        let answered = open.ids.send(id).await;
        if answered.is_err() || open.requests.send(request).await.is_err() {
            // The log has ended the session, and whoever waits for the id is told so.
        }
    }

    fn open_session(&self, tasks: &mut JoinSet<()>) -> Session {
        let (requests, taken) = mpsc::channel(APPENDS_MAX);
        let (ids, mut waiting) = mpsc::channel(2 * APPENDS_MAX);
        let taken = futures::stream::unfold(taken, async |mut taken| Some((taken.recv().await?, taken)));
        let mut results = self.service.session(taken.boxed());
        let answers = self.answers.clone();
        tasks.spawn(async move {
            while let Some(result) = results.next().await {
                let Some(id) = waiting.recv().await else { return };
                if answers.send((id, Answered::Append(result))).await.is_err() {
                    return;
                }
            }
            while let Some(id) = waiting.recv().await {
                if answers.send((id, Answered::Denied(Denial::Misplaced))).await.is_err() {
                    return;
                }
            }
        });
        Session { requests, ids }
    }
}

async fn write_answers(
    mut pipe: WriteHalf<Pipe>,
    mut answered: mpsc::Receiver<(u64, Answered)>,
    heard: Heard,
) -> io::Result<()> {
    let mut life = tokio::time::interval(LIFE_EVERY);
    life.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut buffer = Vec::new();
    loop {
        tokio::select! {
            answer = answered.recv() => match answer {
                Some((id, answer)) => put(&mut buffer, id, &answer)?,
                None => return Ok(()),
            },
            _ = life.tick() => {
                if heard.is_silent() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                frame::sign_of_life(&mut buffer);
            }
        }
        while buffer.len() < WRITE_BYTES
            && let Ok((id, answer)) = answered.try_recv()
        {
            put(&mut buffer, id, &answer)?;
        }
        pace::write(&mut pipe, &buffer).await?;
        buffer.clear();
        buffer.shrink_to(WRITE_BYTES);
    }
}

/// An answer that is too long to be sent is a fault of its own.
fn put(buffer: &mut Vec<u8>, id: u64, answer: &Answered) -> io::Result<()> {
    frame::put(buffer, id, answer).or_else(|error| {
        let said = super::fault::Fault::Other(format!("the answer cannot be sent: {error}"));
        frame::put(buffer, id, &Answered::Denied(Denial::Fault(said)))
    })
}
