//! One stream with its watches: requests in, answers out.
//!
//! It runs only as fast as its client reads: it is asked for the next piece when the connection has room for it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use etcd::proto::etcdserverpb::watch_create_request::FilterType;
use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{WatchCreateRequest, WatchRequest as WireRequest, WatchResponse};
use futures::future::{AbortHandle, Abortable, Aborted, BoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use store::{Error, Revision, Span, WatchRequest, Watcher};
use tokio::time::Interval;
use tonic::Status;

use super::catch_up::{From, Outcome, Step, step};
use super::chunk::{Chunk, Recipient, Taste};
use super::group::{Ask, Ended, Group, Start, StreamId};
use super::queue::{Out, Queue, Serial};
use crate::door::desk::{Call, Desk};
use crate::door::grpc::body::Frames;
use crate::door::grpc::frame::{self, Messages};
use crate::door::kv::ask;
use crate::door::metrics::Counted;
use crate::door::monitor::Seen;
use crate::door::refusal::{
    self, AUTH_OLD_REVISION, COMPACTED, INVALID_AUTH_TOKEN, NO_LEADER, PERMISSION_DENIED, USER_EMPTY,
};

/// Answers that lie ready are sent in pieces of about this size.
const PIECE_BYTES: usize = 16 * 1024;

/// Watches that a compaction ended keep their names until the client takes them back; the oldest give them up beyond that.
const COMPACTED_NAMES_MAX: usize = 4096;

/// Watches of one stream.
const WATCHES_MAX: usize = 65_536;

/// Says that an answer is about no watch in particular.
const NO_WATCH: i64 = -1;

pub fn watch(desk: Arc<Desk>, call: Call, requests: Messages) -> Frames {
    let stream = Stream::new(desk, call, requests);
    Box::pin(futures::stream::unfold(Some(stream), |stream| async {
        let mut stream = stream?;
        match stream.next().await {
            Ok(piece) => Some((Ok(piece), Some(stream))),
            Err(status) => Some((Err(status), None)),
        }
    }))
}

async fn status(desk: &Desk) -> Result<store::Status, Status> {
    desk.store.status().await.map_err(refusal::of)
}

struct Watch {
    id: i64,
    span: Span,
    to: Recipient,
    /// Nothing was told since the last look.
    quiet: bool,
    place: Place,
    _counted: Counted,
}

enum Place {
    Group(Arc<Group>),
    Behind(AbortHandle, #[allow(dead_code, reason = "it counts while it lives")] Counted),
}

/// What waits for answers about progress.
enum Ticket {
    Watch(Serial),
    /// Of so many groups more; the least of those that answered.
    Stream {
        left: usize,
        revision: Revision,
    },
}

struct Stream {
    desk: Arc<Desk>,
    call: Call,
    /// `None` once the client has sent its last one.
    requests: Option<Messages>,
    id: StreamId,
    queue: Arc<Queue>,
    watches: HashMap<Serial, Watch>,
    serials: HashMap<i64, Serial>,
    /// Names of watches that a compaction ended, oldest first. Some may have another watch by now.
    compacted: VecDeque<(i64, Serial)>,
    next_serial: Serial,
    next_id: i64,
    /// Of the watches that are behind.
    steps: FuturesUnordered<BoxFuture<'static, Result<Step, Aborted>>>,
    tickets: HashMap<u64, Ticket>,
    next_ticket: u64,
    /// The client asked how far the stream is, and that is not being found out: some watches are behind, or what is
    /// being found out is of before it asked.
    progress_wanted: bool,
    /// The ticket of the stream as a whole is out.
    progress_asked: bool,
    tick: Interval,
    changes: tokio::sync::watch::Receiver<Seen>,
    _counted: Counted,
}

enum Woken {
    Request(Option<WireRequest>),
    Queue,
    Step(Step),
    Tick,
    Leaderless,
}

impl Stream {
    fn new(desk: Arc<Desk>, call: Call, requests: Messages) -> Self {
        let period = desk.options.progress_interval;
        // So that watches opened together do not all hear at the same moment.
        let jitter = Duration::from_nanos(world::random::number() % (period.as_nanos() as u64 / 10).max(1));
        let start = tokio::time::Instant::now() + period + jitter;
        let mut tick = tokio::time::interval_at(start, period + jitter);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self {
            id: desk.hub.next_stream(),
            queue: Arc::default(),
            watches: HashMap::new(),
            serials: HashMap::new(),
            compacted: VecDeque::new(),
            next_serial: 0,
            next_id: 0,
            steps: FuturesUnordered::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            progress_wanted: false,
            progress_asked: false,
            tick,
            changes: desk.changes(),
            _counted: Counted::new(&desk, |metrics| &metrics.watch_streams),
            requests: Some(requests),
            desk,
            call,
        }
    }

    /// The next piece to send.
    async fn next(&mut self) -> Result<Bytes, Status> {
        let mut piece = BytesMut::new();
        loop {
            if self.progress_wanted && !self.progress_asked && self.all_caught_up() {
                self.ask_all().await?;
            }
            while piece.len() < PIECE_BYTES
                && let Some(out) = self.queue.take()
            {
                self.write(out, &mut piece)?;
            }
            if !piece.is_empty() {
                return Ok(piece.freeze());
            }
            match self.woken().await? {
                Woken::Queue => {}
                Woken::Request(None) => self.requests = None,
                Woken::Request(Some(request)) => self.request(request).await?,
                Woken::Step(step) => self.stepped(step).await?,
                Woken::Tick => self.ask_quiet(),
                Woken::Leaderless => return Err(NO_LEADER.into()),
            }
        }
    }

    async fn woken(&mut self) -> Result<Woken, Status> {
        let must_have_leader = self.call.requires_leader();
        let Self { requests, queue, steps, tick, changes, .. } = self;
        let request = async {
            match requests {
                Some(requests) => requests.next().await,
                None => std::future::pending().await,
            }
        };
        let leaderless = async {
            if changes.wait_for(|seen| seen.leaderless && must_have_leader).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = queue.ready() => Ok(Woken::Queue),
            request = request => Ok(Woken::Request(request?.map(|(request, _)| request))),
            Some(step) = steps.next(), if !steps.is_empty() => match step {
                Ok(step) => Ok(Woken::Step(step)),
                Err(Aborted) => Ok(Woken::Queue),
            },
            _ = tick.tick() => Ok(Woken::Tick),
            () = leaderless => Ok(Woken::Leaderless),
        }
    }

    fn write(&mut self, out: Out, piece: &mut BytesMut) -> Result<(), Status> {
        match out {
            Out::Frame(frame) => piece.extend_from_slice(&frame),
            Out::Events { chunk, to } => self.tell(&chunk, &to, piece),
            Out::Behind { serial, resume } => self.fall_behind(serial, resume),
            Out::Progress { ticket, revision } => self.progress(ticket, revision, piece),
            Out::Compacted { serial, compacted } => self.compacted(serial, compacted),
            Out::End(status) => return Err(status),
        }
        Ok(())
    }

    fn tell(&mut self, chunk: &Chunk, to: &Recipient, piece: &mut BytesMut) {
        let told = chunk.answer(to, self.desk.header(chunk.last), piece);
        self.desk.metrics.events.add(u64::from(told));
        if told
            && to.notify
            && let Some(watch) = self.watches.get_mut(&to.serial)
        {
            watch.quiet = false;
        }
    }

    fn say(&self, revision: Revision, answer: WatchResponse) {
        let answer = WatchResponse { header: Some(self.desk.header(revision)), ..answer };
        self.queue.say(Out::Frame(frame::encode(&answer)));
    }

    async fn request(&mut self, request: WireRequest) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => self.ask_all().await,
            None => Ok(()),
        }
    }

    async fn create(&mut self, mut request: WatchCreateRequest) -> Result<(), Status> {
        if request.key.is_empty() {
            request.key = Bytes::from_static(&[0]);
        }
        let store::Status { revision: newest, compacted, .. } = status(&self.desk).await?;
        if let Err(reason) = self.check(&request) {
            let refused = WatchResponse {
                watch_id: NO_WATCH,
                created: true,
                canceled: true,
                cancel_reason: reason,
                ..WatchResponse::default()
            };
            self.say(newest, refused);
            return Ok(());
        }
        let id = self.name(request.watch_id);
        let serial = self.next_serial;
        self.next_serial += 1;
        let has = |filter: FilterType| request.filters.contains(&filter.into());
        let taste =
            Taste { previous: request.prev_kv, no_put: has(FilterType::Noput), no_delete: has(FilterType::Nodelete) };
        let notify = request.progress_notify;
        let (fragment, from) = (request.fragment, newest.next());
        let to = Recipient { serial, id, notify, taste, fragment, from, whole_from: compacted.next() };
        let span = Span::new(request.key.clone(), ask::end(&request.key, &request.range_end));
        self.serials.insert(id, serial);
        let from = (request.start_revision > 0).then_some(Revision(request.start_revision as u64));
        let created = WatchResponse { watch_id: id, created: true, ..WatchResponse::default() };
        if let Some(from) = from.filter(|from| *from <= newest) {
            self.say(newest, created);
            self.open_behind(serial, id, span, to, from);
            return Ok(());
        }
        let desk = self.desk.clone();
        let say = |after: Revision| {
            // A watch that begins later hears of now.
            let revision = if from.is_some() { newest } else { after };
            let answer = WatchResponse { header: Some(desk.header(revision)), ..created.clone() };
            Some(Out::Frame(frame::encode(&answer)))
        };
        let start = from.map_or(Start::After(newest), Start::At);
        let joined = self.desk.hub.join(&span, self.id, &self.queue, to, start, say).await;
        match joined.map_err(refusal::of)? {
            Some(group) => {
                self.insert(serial, id, span, to, Place::Group(group));
            }
            None => {
                self.say(newest, created);
                self.open_behind(serial, id, span, to, from.unwrap_or(newest.next()));
            }
        }
        Ok(())
    }

    /// Why the watch cannot be, in etcd's words.
    fn check(&self, request: &WatchCreateRequest) -> Result<(), String> {
        if request.start_revision < 0 {
            return Err(COMPACTED.1.into());
        }
        let view = self.desk.view();
        let caller = self.desk.caller(&view, &self.call).map_err(|_| INVALID_AUTH_TOKEN.as_reason())?;
        view.may_read(&caller, &request.key, &request.range_end).map_err(|known| match known {
            INVALID_AUTH_TOKEN | AUTH_OLD_REVISION | USER_EMPTY => known.as_reason(),
            _ => PERMISSION_DENIED.as_reason(),
        })?;
        if !matches!(request.range_end[..], [] | [0]) && request.range_end <= request.key {
            return Err("mvcc: watcher range is empty".into());
        }
        if request.watch_id != 0 && self.serials.contains_key(&request.watch_id) {
            return Err("mvcc: duplicate watch ID provided on the WatchStream".into());
        }
        if self.watches.len() >= WATCHES_MAX {
            return Err(format!("etcdserver: more than {WATCHES_MAX} watches on one stream"));
        }
        Ok(())
    }

    /// 0 asks for a name.
    fn name(&mut self, wanted: i64) -> i64 {
        if wanted != 0 {
            return wanted;
        }
        while self.serials.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn open_behind(&mut self, serial: Serial, id: i64, span: Span, to: Recipient, from: Revision) {
        let place = self.behind(AbortHandle::new_pair().0);
        self.insert(serial, id, span, to, place);
        self.fall_behind(serial, from);
    }

    fn insert(&mut self, serial: Serial, id: i64, span: Span, to: Recipient, place: Place) {
        let counted = Counted::new(&self.desk, |metrics| &metrics.watches);
        self.watches.insert(serial, Watch { id, span, to, quiet: true, place, _counted: counted });
    }

    fn behind(&self, step: AbortHandle) -> Place {
        Place::Behind(step, Counted::new(&self.desk, |metrics| &metrics.slow_watches))
    }

    /// The watch goes on by itself from `from`.
    fn fall_behind(&mut self, serial: Serial, from: Revision) {
        let Some(watch) = self.watches.get_mut(&serial) else { return };
        let Span { start, end, .. } = watch.span.clone();
        watch.to.from = from;
        let request = WatchRequest { start, end, from: Some(from), previous: true };
        self.step(serial, From::Request(request));
    }

    fn step(&mut self, serial: Serial, from: From) {
        let (handle, registration) = AbortHandle::new_pair();
        let place = self.behind(handle);
        let Some(watch) = self.watches.get_mut(&serial) else { return };
        if let Place::Group(group) = std::mem::replace(&mut watch.place, place) {
            self.desk.hub.sweep(&group);
        }
        let step = Abortable::new(step(self.desk.store.clone(), serial, from), registration);
        self.steps.push(Box::pin(step));
    }

    async fn stepped(&mut self, step: Step) -> Result<(), Status> {
        let serial = step.serial;
        let Some(watch) = self.watches.get(&serial) else { return Ok(()) };
        let to = watch.to;
        match step.outcome {
            Outcome::CaughtUp(watcher, revision) => self.rejoin(serial, watcher, revision.next().max(to.from)).await?,
            Outcome::Told(watcher, told) => {
                if let Some(chunk) = Chunk::new(told.batches) {
                    self.queue.say(Out::Events { chunk: Arc::new(chunk), to });
                }
                match told.ended {
                    None => self.step(serial, From::Watcher(watcher)),
                    Some(Ended::Closed) => return Err(refusal::STOPPED.into()),
                    Some(Ended::Failed(error)) => self.failed(serial, error)?,
                }
            }
            Outcome::Refused(error) => self.failed(serial, error)?,
        }
        Ok(())
    }

    async fn rejoin(&mut self, serial: Serial, watcher: Watcher, from: Revision) -> Result<(), Status> {
        let Some(watch) = self.watches.get(&serial) else { return Ok(()) };
        let (span, to) = (watch.span.clone(), watch.to);
        match self.desk.hub.join(&span, self.id, &self.queue, to, Start::At(from), |_| None).await {
            Ok(Some(group)) => {
                if let Some(watch) = self.watches.get_mut(&serial) {
                    watch.place = Place::Group(group);
                }
                Ok(())
            }
            // The group has gone on since, and so can this watch.
            Ok(None) => {
                self.step(serial, From::Watcher(watcher));
                Ok(())
            }
            Err(error) => self.failed(serial, error),
        }
    }

    fn failed(&mut self, serial: Serial, error: Error) -> Result<(), Status> {
        match error {
            Error::Compacted { compacted } => {
                self.compacted(serial, compacted);
                Ok(())
            }
            Error::WatchLagged { resume } => {
                self.fall_behind(serial, resume);
                Ok(())
            }
            error => Err(refusal::of(error)),
        }
    }

    /// Its name stays taken.
    fn forget(&mut self, serial: Serial) -> Option<Watch> {
        let watch = self.watches.remove(&serial)?;
        match &watch.place {
            Place::Group(group) => {
                group.leave(self.id, serial);
                self.desk.hub.sweep(group);
            }
            Place::Behind(step, _) => step.abort(),
        }
        Some(watch)
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Status> {
        let Some(serial) = self.serials.get(&id).copied() else { return Ok(()) };
        let newest = status(&self.desk).await?.revision;
        self.serials.remove(&id);
        self.forget(serial);
        self.say(newest, WatchResponse { watch_id: id, canceled: true, ..WatchResponse::default() });
        Ok(())
    }

    /// etcd's header says revision 0 here. The name is free again when the client takes the watch back as well.
    fn compacted(&mut self, serial: Serial, compacted: Revision) {
        let Some(watch) = self.forget(serial) else { return };
        self.compacted.push_back((watch.id, serial));
        if self.compacted.len() > COMPACTED_NAMES_MAX
            && let Some((id, serial)) = self.compacted.pop_front()
            && self.serials.get(&id) == Some(&serial)
        {
            self.serials.remove(&id);
        }
        let answer = WatchResponse {
            watch_id: watch.id,
            canceled: true,
            compact_revision: compacted.0 as i64,
            ..WatchResponse::default()
        };
        self.say(Revision::ZERO, answer);
    }

    fn all_caught_up(&self) -> bool {
        self.watches.values().all(|watch| matches!(watch.place, Place::Group(_)))
    }

    fn ticket(&mut self, ticket: Ticket) -> u64 {
        let number = self.next_ticket;
        self.next_ticket += 1;
        self.tickets.insert(number, ticket);
        number
    }

    fn ask(&self, group: &Group, ticket: u64) {
        group.ask(Ask { queue: self.queue.clone(), ticket });
    }

    fn groups(&self) -> Vec<Arc<Group>> {
        let mut seen = HashSet::new();
        let groups = self.watches.values().filter_map(|watch| match &watch.place {
            Place::Group(group) => Some(group),
            Place::Behind(..) => None,
        });
        groups.filter(|group| seen.insert(Arc::as_ptr(group))).cloned().collect()
    }

    /// How far is the stream as a whole?
    async fn ask_all(&mut self) -> Result<(), Status> {
        self.progress_wanted = self.progress_asked || !self.all_caught_up();
        if self.progress_wanted {
            return Ok(());
        }
        let groups = self.groups();
        if groups.is_empty() {
            let newest = status(&self.desk).await?.revision;
            self.say(newest, WatchResponse { watch_id: NO_WATCH, ..WatchResponse::default() });
            return Ok(());
        }
        self.progress_asked = true;
        let ticket = self.ticket(Ticket::Stream { left: groups.len(), revision: Revision(u64::MAX) });
        for group in groups {
            self.ask(&group, ticket);
        }
        Ok(())
    }

    /// Watches that want to hear of progress and have heard nothing else since the last time.
    fn ask_quiet(&mut self) {
        let mut quiet = Vec::new();
        for (serial, watch) in &mut self.watches {
            if watch.to.notify
                && std::mem::replace(&mut watch.quiet, true)
                && let Place::Group(group) = &watch.place
            {
                quiet.push((*serial, group.clone()));
            }
        }
        for (serial, group) in quiet {
            let ticket = self.ticket(Ticket::Watch(serial));
            self.ask(&group, ticket);
        }
    }

    fn progress(&mut self, ticket: u64, revision: Revision, piece: &mut BytesMut) {
        let (watch_id, revision) = match self.tickets.remove(&ticket) {
            // A watch that has fallen behind since is not as far as its group.
            Some(Ticket::Watch(serial)) => match self.watches.get(&serial) {
                Some(Watch { id, place: Place::Group(_), .. }) => (*id, revision),
                Some(_) | None => return,
            },
            Some(Ticket::Stream { left, revision: least }) => {
                let (left, least) = (left - 1, least.min(revision));
                if left > 0 {
                    self.tickets.insert(ticket, Ticket::Stream { left, revision: least });
                    return;
                }
                self.progress_asked = false;
                if !self.all_caught_up() {
                    self.progress_wanted = true;
                    return;
                }
                (NO_WATCH, least)
            }
            None => return,
        };
        let header = Some(self.desk.header(revision));
        piece.extend_from_slice(&frame::encode(&WatchResponse { header, watch_id, ..WatchResponse::default() }));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for watch in self.watches.values() {
            if let Place::Group(group) = &watch.place {
                group.leave_all(self.id);
                self.desk.hub.sweep(group);
            }
        }
    }
}
