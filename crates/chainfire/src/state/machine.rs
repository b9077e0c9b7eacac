//! The state as Raft drives it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::type_config::alias::{EntryOf, SnapshotMetaOf, SnapshotOf};
use parking_lot::RwLock;
use store::Error;
use store::feed::Feed;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use super::book::Book;
use super::copy::{self, Dump};
use super::draft::{Draft, LeaseChange};
use super::home::{Home, Place};
use super::lsm::Lsm;
use super::marks::{LogId, Marks, Membership};
use super::memory::Memory;
use super::reader::{Applied, Current, Reader, Reclaimer, Shared};
use super::recent::Recent;
use super::seen::Seen;
use super::{Options, reclaim};
use crate::member::types::{Outcome, Types};

/// Requests after which a batch is written and answered before the next is begun.
const BATCH_REQUESTS_MAX: usize = 512;

/// Requests that are applied without telling the runtime that a thread will be away for a while.
const SHORT_REQUESTS_MAX: usize = 64;

/// Between looks whether a full disk has room again.
const ROOM_WAIT: Duration = Duration::from_secs(1);

pub type Entry = EntryOf<Types>;

/// The writer: there is one.
pub struct State {
    shared: Arc<Shared>,
    /// Not only a second handle for a moment.
    owner: bool,
}

/// Opens the state in use, or a new one.
fn open(home: &Home, options: &Options, durable: &watch::Sender<u64>) -> Result<Current, Error> {
    let seen = Arc::new(Seen::new(0, Marks::default()));
    match home {
        Home::Folder(folder) => {
            let path = folder.open()?;
            let opened = Lsm::open(&path, options.tree, seen.clone(), durable.clone())?;
            let mut lsm = opened.lsm;
            lsm.start()?;
            let book = Arc::new(Book::open(
                Box::new(lsm),
                path,
                seen,
                opened.visible,
                Recent::new(options.tree.recent_bytes),
            )?);
            let reclaimer = Some(Reclaimer::start(&book)?);
            Ok(Current { book, reclaimer })
        }
        Home::Memory(image) => {
            let memory = Memory::open(image.clone(), options.tree.gather_bytes, seen.clone(), durable.clone());
            let book = Book::open(Box::new(memory), std::path::PathBuf::new(), seen, Memory::VISIBLE, Recent::new(0))?;
            Ok(Current { book: Arc::new(book), reclaimer: None })
        }
    }
}

impl State {
    /// Opens what is at `place`, making it when there is nothing. Blocks.
    ///
    /// Errors: [`Error::Locked`], [`Error::Corrupt`], [`Error::FormatUnknown`], [`Error::DiskFull`], [`Error::Storage`].
    pub fn open(place: &Place, options: Options) -> Result<Self, Error> {
        let home = Home::take(place)?;
        let (durable, _) = watch::channel(0);
        let current = open(&home, &options, &durable)?;
        let marks = current.book.seen.marks();
        durable.send_replace(marks.index());
        let (applied, _) = watch::channel(Applied { log_id: marks.applied, revision: marks.revision });
        let feed = Feed::new(marks.revision);
        let shared = Shared { home, options, current: RwLock::new(current), feed, applied, durable };
        Ok(Self { shared: Arc::new(shared), owner: true })
    }

    pub fn reader(&self) -> Reader {
        Reader { shared: self.shared.clone() }
    }

    /// Applies entries in order, all as one batch, and answers what became of their requests. Blocks while the disk is
    /// far behind.
    ///
    /// After an error nothing of them is visible, and nothing is applied any more.
    pub fn take<'e>(&mut self, entries: impl IntoIterator<Item = &'e Entry>) -> Result<Vec<Outcome>, Error> {
        let current = self.shared.current.read();
        let book = &current.book;
        book.disk.relieve();
        let work = |draft: &mut Draft<'_>| {
            let mut outcomes = Vec::new();
            for entry in entries {
                draft.reach(entry.log_id);
                let mut answers = Vec::new();
                match &entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(proposal) => {
                        answers.reserve(proposal.requests.len());
                        for request in proposal.requests.iter() {
                            answers.push(draft.settle(request)?);
                        }
                    }
                    EntryPayload::Membership(membership) => {
                        draft.join(Membership::new(Some(entry.log_id), membership.clone()));
                    }
                }
                outcomes.push(Outcome { answers });
            }
            let told = (std::mem::take(&mut draft.batches), std::mem::take(&mut draft.leases), draft.compacted);
            Ok((outcomes, told))
        };
        let ((outcomes, (batches, leases, compacted)), marks) = book.write(work)?;
        for batch in batches {
            self.shared.feed.publish(batch);
        }
        self.shared.applied.send_replace(Applied { log_id: marks.applied, revision: marks.revision });
        self.shared.tell(&leases);
        match &current.reclaimer {
            Some(reclaimer) if compacted => reclaimer.wake(),
            Some(_) => {}
            None => drop(reclaim::step(book)?),
        }
        Ok(outcomes)
    }

    /// As [`State::take`], letting the runtime know when it may be long.
    fn take_away(&mut self, entries: &[Entry], requests: usize) -> Result<Vec<Outcome>, Error> {
        let short = requests <= SHORT_REQUESTS_MAX && !self.shared.book().disk.is_pressed();
        let threads = Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        if short || !threads { self.take(entries) } else { tokio::task::block_in_place(|| self.take(entries)) }
    }

    /// Makes what another member sent the state, at once and as a whole. Watchers go on where they are: what they missed
    /// they read from the history that came along, or they end because it was compacted. Blocks.
    pub fn replace(&mut self, dump: &Dump) -> Result<(), Error> {
        let shared = &self.shared;
        let (loaded, marks) = copy::load_dump(&shared.home, shared.options.tree, dump)?;
        shared.home.switch(loaded)?;
        let new = open(&shared.home, &shared.options, &shared.durable)?;
        let revision = marks.revision;
        let leases = new.book.leases();
        let old = std::mem::replace(&mut *shared.current.write(), new);
        shared.durable.send_replace(marks.index());
        shared.feed.skip(revision);
        shared.applied.send_replace(Applied { log_id: marks.applied, revision });
        shared.tell(&[LeaseChange::Replaced(leases)]);
        old.book.disk.retire();
        drop(old);
        Ok(())
    }
}

/// A machine that cannot go on says so to Raft, which stops the member.
fn stop(error: Error) -> io::Error {
    match error {
        Error::DiskFull => io::Error::new(io::ErrorKind::StorageFull, error),
        error => io::Error::other(error),
    }
}

fn meta(marks: &Marks) -> SnapshotMetaOf<Types> {
    SnapshotMeta { last_log_id: marks.applied, last_membership: (*marks.membership).clone() }
}

impl RaftStateMachine<Types> for State {
    type SnapshotData = Dump;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        let marks = self.shared.book().seen.marks();
        Ok((marks.applied, (*marks.membership).clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let (mut batch, mut responders, mut requests) = (Vec::new(), Vec::new(), 0);
        loop {
            let next = entries.next().await.transpose()?;
            let over = next.is_none();
            if let Some((entry, responder)) = next {
                if let EntryPayload::Normal(proposal) = &entry.payload {
                    requests += proposal.requests.len();
                }
                batch.push(entry);
                responders.push(responder);
            }
            if !batch.is_empty() && (over || requests >= BATCH_REQUESTS_MAX) {
                let outcomes = self.take_away(&batch, requests).map_err(stop)?;
                for (responder, outcome) in responders.drain(..).zip(outcomes) {
                    if let Some(responder) = responder {
                        responder.send(outcome);
                    }
                }
                batch.clear();
                requests = 0;
            }
            if over {
                return Ok(());
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { reader: self.reader() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, snapshot: Dump) -> Result<(), io::Error> {
        if snapshot.marks().applied != meta.last_log_id {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the copy is of another moment than it says"));
        }
        if self.shared.home.is_inline() {
            return self.replace(&snapshot).map_err(stop);
        }
        let mut other = State { shared: self.shared.clone(), owner: false };
        let replaced = tokio::task::spawn_blocking(move || other.replace(&snapshot)).await;
        replaced.unwrap_or_else(|error| Err(Error::storage("install a copy", error))).map_err(stop)
    }

    /// Of this moment: a copy costs nothing until it is read.
    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Types, Dump>>, io::Error> {
        let dump = self.reader().dump();
        if dump.marks().applied.is_none() {
            return Ok(None);
        }
        Ok(Some(Snapshot { meta: meta(dump.marks()), snapshot: dump }))
    }
}

/// Makes the state durable. The copy itself is made when somebody wants to have it.
pub struct Builder {
    reader: Reader,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Dump;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Types, Dump>, io::Error> {
        let dump = self.reader.dump();
        loop {
            match self.reader.flush().await {
                Ok(()) => break,
                // Not the end of the member: the log stays as long as it is, and there will be room again.
                Err(Error::DiskFull) => tokio::time::sleep(ROOM_WAIT).await,
                Err(error) => return Err(stop(error)),
            }
        }
        Ok(Snapshot { meta: meta(dump.marks()), snapshot: dump })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.owner {
            self.shared.feed.close();
        }
    }
}
