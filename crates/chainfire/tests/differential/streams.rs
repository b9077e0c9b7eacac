//! Watch streams: what was asked, and what has been delivered so far.
//!
//! What is compared is each watch's own sequence of events, and the answers to requests. Which of these come together in
//! one message, and in which order messages of different watches come, is a matter of time in etcd as well.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use etcd::proto::etcdserverpb::watch_client::WatchClient;
use etcd::proto::etcdserverpb::watch_create_request::FilterType;
use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use etcd::proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::frame::Frame;
use crate::inward::refused;

/// Which `watch_id` an answer to a progress request has, as it is about the whole stream.
const WHOLE_STREAM: i64 = -1;

pub struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    answers: mpsc::UnboundedReceiver<Result<WatchResponse, Status>>,
    pub watches: BTreeMap<i64, Watched>,
    /// What fits no watch and no request.
    strays: Vec<String>,
    ended: bool,
}

pub struct Watched {
    /// As sent.
    create: WatchCreateRequest,
    log: Vec<String>,
    /// The revision that the watch began at, when it was the compacted one: etcd 3.4 has its puts, and its deletes until
    /// the compaction has run in the background.
    half_gone: Option<i64>,
    /// Of the newest event delivered.
    revision: i64,
    /// The message before was said to go on in the next.
    in_fragment: bool,
    over: bool,
}

/// What was written so that watches see it.
pub struct Change {
    pub key: Bytes,
    pub revision: i64,
    pub delete: bool,
}

impl Watched {
    /// The first key that the watch can see.
    pub fn start(&self) -> Bytes {
        if self.create.key.is_empty() { Bytes::from_static(b"\0") } else { self.create.key.clone() }
    }

    fn filters(&self, filter: FilterType) -> bool {
        self.create.filters.contains(&(filter as i32))
    }

    /// Whether its first key must be deleted for it to see anything.
    pub fn sees_deletes_alone(&self) -> bool {
        self.filters(FilterType::Noput) && !self.filters(FilterType::Nodelete)
    }

    fn contains(&self, key: &Bytes) -> bool {
        let start = self.start();
        match &self.create.range_end[..] {
            b"" => *key == start,
            b"\0" => *key >= start,
            end => *key >= start && key[..] < *end,
        }
    }

    /// The newest of these changes that it must deliver before it is caught up.
    pub fn mark(&self, changes: &[Change]) -> Option<i64> {
        let seen = |change: &&Change| {
            let filter = if change.delete { FilterType::Nodelete } else { FilterType::Noput };
            self.contains(&change.key) && !self.filters(filter)
        };
        let revision = changes.iter().filter(seen).map(|change| change.revision).max();
        revision.filter(|revision| *revision >= self.create.start_revision && !self.over)
    }

    pub fn is_over(&self) -> bool {
        self.over
    }
}

impl Stream {
    pub fn open(mut client: WatchClient<Channel>, token: Option<String>) -> Self {
        let (requests, waiting) = mpsc::unbounded_channel();
        let (told, answers) = mpsc::unbounded_channel();
        // etcd says nothing, not even that the stream is open, until it has something to answer.
        tokio::spawn(async move {
            let request = crate::play::carrying(UnboundedReceiverStream::new(waiting), token.as_deref());
            let mut messages = match client.watch(request).await {
                Ok(answer) => answer.into_inner(),
                Err(status) => return drop(told.send(Err(status))),
            };
            while let Some(message) = messages.message().await.transpose() {
                if told.send(message).is_err() {
                    break;
                }
            }
        });
        Self { requests, answers, watches: BTreeMap::new(), strays: Vec::new(), ended: false }
    }

    pub async fn create(&mut self, frame: &mut Frame, create: WatchCreateRequest, patience: Duration) -> String {
        self.send(RequestUnion::CreateRequest(create.clone()));
        let answer = self.until(frame, patience, |answer| answer.created).await;
        if let Ok(answer) = &answer
            && !answer.canceled
        {
            // When its end comes by itself is a matter of time, and what happens until then.
            let ends = (1..frame.compacted()).contains(&create.start_revision);
            let half_gone = Some(frame.compacted()).filter(|compacted| *compacted == create.start_revision);
            let watched = Watched { create, log: Vec::new(), half_gone, revision: 0, in_fragment: false, over: false };
            self.watches.insert(answer.watch_id, watched);
            if ends {
                self.reach(frame, answer.watch_id, i64::MAX, patience).await;
            }
        }
        answer.map_or_else(|why| why, |answer| format!("{answer:?}"))
    }

    pub async fn cancel(&mut self, frame: &mut Frame, watch: i64, patience: Duration) -> String {
        let known = self.watches.get(&watch).is_some_and(|watched| !watched.over);
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: watch }));
        if !known {
            // No answer is the right one: the answer to another request behind it shows that none comes.
            return self.progress(frame, patience).await;
        }
        let answer = self.until(frame, patience, |answer| answer.canceled && answer.watch_id == watch).await;
        if let Some(watched) = self.watches.get_mut(&watch) {
            watched.over = true;
        }
        answer.map_or_else(|why| why, |answer| format!("{answer:?}"))
    }

    pub async fn progress(&mut self, frame: &mut Frame, patience: Duration) -> String {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        let is_answer = |answer: &WatchResponse| answer.watch_id == WHOLE_STREAM && !answer.created;
        self.until(frame, patience, is_answer).await.map_or_else(|why| why, |answer| format!("{answer:?}"))
    }

    /// Waits until `watch` has delivered what happened at `revision`, or is over.
    pub async fn reach(&mut self, frame: &mut Frame, watch: i64, revision: i64, patience: Duration) {
        loop {
            match self.watches.get_mut(&watch) {
                Some(watched) if watched.revision < revision && !watched.over => {}
                _ => return,
            }
            match self.next(patience).await {
                Ok(answer) => self.note(frame, answer),
                Err(why) => {
                    let watched = self.watches.get_mut(&watch).expect("it was there");
                    return watched.log.push(format!("{} is missing: {why}", frame.revision_in(revision)));
                }
            }
        }
    }

    /// What has been delivered since the last call, each watch's own, and what belongs to none.
    pub fn told(&mut self, frame: &mut Frame) -> Vec<(String, Vec<String>)> {
        while let Ok(answer) = self.answers.try_recv() {
            match answer {
                Ok(answer) => self.note(frame, answer),
                Err(status) => self.strays.push(refused(&status)),
            }
        }
        let mut told: Vec<_> =
            std::mem::take(&mut self.strays).into_iter().map(|stray| ("stray".to_owned(), vec![stray])).collect();
        told.extend(
            self.watches.iter_mut().map(|(id, watched)| (format!("watch {id}"), std::mem::take(&mut watched.log))),
        );
        told.retain(|(_, lines)| !lines.is_empty());
        told
    }

    fn send(&mut self, request: RequestUnion) {
        // A stream that has ended says so when its answer is waited for.
        let _ = self.requests.send(WatchRequest { request_union: Some(request) });
    }

    async fn next(&mut self, patience: Duration) -> Result<WatchResponse, String> {
        if self.ended {
            return Err("the stream has ended before".to_owned());
        }
        match timeout(patience, self.answers.recv()).await {
            Ok(Some(Ok(answer))) => Ok(answer),
            Ok(Some(Err(status))) => {
                self.ended = true;
                Err(refused(&status))
            }
            Ok(None) => {
                self.ended = true;
                Err("the stream has ended".to_owned())
            }
            Err(_) => Err("no answer".to_owned()),
        }
    }

    /// The next message that is wanted; others are noted.
    async fn until(
        &mut self,
        frame: &mut Frame,
        patience: Duration,
        wanted: impl Fn(&WatchResponse) -> bool,
    ) -> Result<WatchResponse, String> {
        loop {
            let mut answer = self.next(patience).await?;
            if wanted(&answer) && answer.events.is_empty() {
                frame.header_in(&mut answer.header);
                return Ok(answer);
            }
            self.note(frame, answer);
        }
    }

    fn note(&mut self, frame: &mut Frame, mut answer: WatchResponse) {
        let header_revision = answer.header.as_ref().map_or(0, |header| header.revision);
        let Some(watched) = self.watches.get_mut(&answer.watch_id).filter(|watched| !watched.over) else {
            frame.header_in(&mut answer.header);
            return self.strays.push(format!("{answer:?}"));
        };
        if answer.canceled {
            watched.over = true;
            frame.header_in(&mut answer.header);
            answer.compact_revision = frame.revision_in(answer.compact_revision);
            return watched.log.push(format!("{answer:?}"));
        }
        if answer.events.is_empty() {
            return watched.log.push("a message without an event".to_owned());
        }
        let mut events = answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
        let (first, last) = (events.next().unwrap_or(0), events.next_back().unwrap_or(0));
        let last = last.max(first);
        if first < watched.revision || (first == watched.revision && !watched.in_fragment) {
            watched.log.push("an event at a revision that was delivered before".to_owned());
        }
        if header_revision < last {
            watched.log.push("an event from after the header's revision".to_owned());
        }
        if answer.fragment && !watched.create.fragment {
            watched.log.push("a fragment that was not asked for".to_owned());
        }
        watched.in_fragment = answer.fragment;
        watched.revision = last;
        for event in &mut answer.events {
            let at = event.kv.as_ref().map(|row| row.mod_revision);
            if event.r#type == EventType::Delete as i32 && at == watched.half_gone {
                continue;
            }
            frame.event_in(event);
            watched.log.push(format!("{event:?}"));
        }
    }
}
