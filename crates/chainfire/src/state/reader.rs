//! Everything that looks at the state. None of it waits for what is being applied.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::RwLock;
use store::feed::Feed;
use store::select::{self, Rows};
use store::{
    Error, Key, Lease, LeaseId, Op, Range, RangeAnswer, RangeEnd, Revision, SortBy, Txn, TxnAnswer, WatchRequest,
    Watcher, admit, apply,
};
use tokio::sync::watch;

use super::book::{Book, View};
use super::copy::{Dump, Incoming};
use super::draft::LeaseChange;
use super::home::Home;
use super::marks::{LogId, Membership};
use super::{LeaseHook, Options, hash, reclaim};
use crate::door::host::{HashAnswer, SnapshotPieces, System};
use crate::fault::contained;

/// Rows that may be read without leaving the thread.
const SHORT_ROWS_MAX: usize = 32;

/// How far applying has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    pub log_id: Option<LogId>,
    pub revision: Revision,
}

impl Applied {
    pub fn index(&self) -> u64 {
        self.log_id.as_ref().map_or(0, |id| id.index)
    }
}

#[derive(Clone, Debug)]
pub struct Status {
    pub applied: Option<LogId>,
    /// The log up to here is in the files of the state; a crash does not need it any more.
    pub durable_index: u64,
    pub membership: Arc<Membership>,
    pub revision: Revision,
    pub compacted: Revision,
    /// Current rows, and the bytes of their keys and values.
    pub rows: u64,
    pub row_bytes: u64,
    pub disk_bytes: u64,
    /// Changes that are in memory alone.
    pub memory_bytes: u64,
    pub leases: usize,
    pub watchers: usize,
    /// Why the disk does not take what was applied, while it does not.
    pub problem: Option<Error>,
}

pub struct Shared {
    pub home: Home,
    pub options: Options,
    pub current: RwLock<Current>,
    pub feed: Arc<Feed>,
    pub applied: watch::Sender<Applied>,
    pub durable: watch::Sender<u64>,
}

/// The state in use, and the thread that gives back what was compacted; none where there are no threads.
pub struct Current {
    pub book: Arc<Book>,
    pub reclaimer: Option<Reclaimer>,
}

pub struct Reclaimer {
    wake: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reclaimer {
    pub fn start(book: &Arc<Book>) -> Result<Self, Error> {
        let (wake, woken) = std::sync::mpsc::sync_channel(1);
        let book = Arc::downgrade(book);
        let run = move || {
            while woken.recv().is_ok() {
                while let Some(book) = book.upgrade() {
                    match reclaim::step(&book) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(error) => {
                            tracing::warn!(%error, "compacted history could not be given back");
                            break;
                        }
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("state reclaim".into()).spawn(run);
        let thread = thread.map_err(|error| Error::storage("start the upkeep of the state", error))?;
        let reclaimer = Self { wake: Some(wake), thread: Some(thread) };
        reclaimer.wake();
        Ok(reclaimer)
    }

    pub fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Full: it is about to look anyway.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    pub fn book(&self) -> Arc<Book> {
        self.current.read().book.clone()
    }

    pub fn view(&self) -> View {
        View::of(self.book())
    }

    pub fn tell(&self, changes: &[LeaseChange]) {
        if let Some(LeaseHook(hook)) = &self.options.on_leases
            && !changes.is_empty()
        {
            hook(changes);
        }
    }
}

/// A cheap handle, for as many as want one.
#[derive(Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

/// Is it over so soon that moving it to another thread would take longer?
fn is_short(range: &Range) -> bool {
    match range.end {
        RangeEnd::Single => range.revision.is_none(),
        RangeEnd::Exclusive(_) | RangeEnd::Unbounded => {
            let bounded = range.limit > 0 && range.limit <= SHORT_ROWS_MAX && range.uncounted;
            let plain = range.min_mod_revision.is_none()
                && range.max_mod_revision.is_none()
                && range.min_create_revision.is_none()
                && range.max_create_revision.is_none();
            bounded && plain && range.revision.is_none() && range.sort.is_none_or(|sort| sort.by == SortBy::Key)
        }
    }
}

fn is_short_txn(txn: &Txn) -> bool {
    let short = |op: &Op| match op {
        Op::Range(range) => is_short(range),
        Op::Txn(nested) => is_short_txn(nested),
        Op::Put { .. } | Op::Delete { .. } => false,
    };
    txn.when.iter().all(|compare| compare.end == RangeEnd::Single) && txn.then.iter().chain(&txn.otherwise).all(short)
}

impl Reader {
    pub(super) fn view(&self) -> View {
        self.shared.view()
    }

    /// Reads the newest moment there is now, on a thread that may wait for the disk.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(View) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let view = self.view();
        if self.shared.home.is_inline() {
            return read(view);
        }
        let read = tokio::task::spawn_blocking(move || read(view)).await;
        read.unwrap_or_else(|error| Err(Error::storage("finish a read", error)))
    }

    /// `range` is admitted. Errors: [`Error::Compacted`], [`Error::FutureRevision`], [`Error::Corrupt`],
    /// [`Error::Storage`].
    pub async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        if is_short(&range) {
            return self.view().read(|look| select::answer(look, &range, look.newest()));
        }
        self.blocking(move |view| view.read(|look| select::answer(look, &range, look.newest()))).await
    }

    /// `txn` is admitted and changes nothing in whichever branches are taken ([`admit::reads_only`]).
    pub async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        assert!(admit::reads_only(&txn), "only what reads is answered without the log");
        if is_short_txn(&txn) {
            return self.view().read(|look| Ok(apply::apply(look, &txn)?.answer));
        }
        self.blocking(move |view| view.read(|look| Ok(apply::apply(look, &txn)?.answer))).await
    }

    /// `request` is admitted. Errors: [`Error::Compacted`].
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher, Error> {
        let compacted = self.shared.book().seen.marks().compacted;
        if request.from.is_some_and(|from| from < compacted) {
            return Err(Error::Compacted { compacted });
        }
        Ok(self.shared.feed.watch(request, Arc::new(self.clone())))
    }

    /// Every lease there is, ascending. When they run out is not the state's to know.
    pub fn leases(&self) -> Vec<Lease> {
        self.shared.book().leases()
    }

    /// The keys attached to a lease, ascending. Errors: [`Error::LeaseNotFound`].
    pub async fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        if !self.shared.book().leases.read().contains_key(&id) {
            return Err(Error::LeaseNotFound { id });
        }
        self.blocking(move |view| view.read(|look| look.attached(id))).await
    }

    /// Over the rows as of `revision`, `None` for the newest, and what is left of history up to it: equal on every member.
    /// Reads everything. Errors: [`Error::Compacted`], [`Error::FutureRevision`].
    pub async fn hash(&self, revision: Option<Revision>) -> Result<HashAnswer, Error> {
        self.blocking(move |view| {
            let (walk, to) = view.read(|look| {
                let to = select::readable(&*look, revision)?.unwrap_or(look.newest());
                Ok((look.frozen_versions()?, to))
            })?;
            let (book, compacted) = (view.book.clone(), view.marks.compacted);
            drop(view);
            let hash = contained(&book.path, || hash::hash(walk, compacted, to))?;
            Ok(HashAnswer { hash, revision: to, compacted })
        })
        .await
    }

    /// Reads and checks everything there is. Errors: [`Error::Corrupt`] names what is not what was written.
    pub async fn check(&self) -> Result<(), Error> {
        self.blocking(|view| {
            let book = view.book.clone();
            let mut items = view.frozen();
            drop(view);
            contained(&book.path, || {
                items.try_for_each(|item| {
                    let (key, sealed) = item?;
                    super::copy::check(&key, &sealed)
                })
            })
        })
        .await
    }

    /// As it is now, cheap.
    pub fn system(&self) -> Arc<System> {
        self.shared.book().system.read().clone()
    }

    pub fn status(&self) -> Status {
        let book = self.shared.book();
        let (marks, usage) = (book.seen.marks(), book.disk.usage());
        Status {
            applied: marks.applied,
            durable_index: self.durable_index(),
            membership: marks.membership.clone(),
            revision: marks.revision,
            compacted: marks.compacted,
            rows: marks.rows,
            row_bytes: marks.bytes,
            disk_bytes: usage.disk_bytes,
            memory_bytes: usage.memory_bytes,
            leases: book.leases.read().len(),
            watchers: self.shared.feed.watchers(),
            problem: book.disk.problem(),
        }
    }

    /// Revision and compacted revision.
    pub fn revisions(&self) -> (Revision, Revision) {
        let marks = self.shared.book().seen.marks();
        (marks.revision, marks.compacted)
    }

    /// Follows what is applied. Whoever sees an entry here finds it in every read after that.
    pub fn applied(&self) -> watch::Receiver<Applied> {
        self.shared.applied.subscribe()
    }

    /// Waits until entry `index` of the log is applied here.
    pub async fn wait_applied(&self, index: u64) -> Result<Applied, Error> {
        let mut applied = self.shared.applied.subscribe();
        let reached = applied.wait_for(|applied| applied.log_id.is_some() && applied.index() >= index).await;
        reached.map(|applied| applied.clone()).map_err(|_| Error::Closed)
    }

    /// Entries of the log up to here are in the files of the state. Beyond it the log must not be purged, unless a
    /// snapshot was built: building one makes everything it holds durable.
    pub fn durable_index(&self) -> u64 {
        *self.shared.durable.borrow()
    }

    pub fn durable(&self) -> watch::Receiver<u64> {
        self.shared.durable.subscribe()
    }

    /// Makes everything that is applied durable. Errors: [`Error::DiskFull`], [`Error::Storage`].
    pub async fn flush(&self) -> Result<(), Error> {
        let book = self.shared.book();
        if self.shared.home.is_inline() {
            return book.flush();
        }
        let flushed = tokio::task::spawn_blocking(move || book.flush()).await;
        flushed.unwrap_or_else(|error| Err(Error::storage("finish writing", error)))
    }

    /// The whole state as it is now, as a copy.
    pub fn export(&self) -> SnapshotPieces {
        self.dump().pieces()
    }

    pub fn dump(&self) -> Dump {
        Dump::of(self.view(), self.shared.home.is_inline())
    }

    /// To take in a copy that another member sends.
    pub fn receive(&self) -> Result<Incoming, Error> {
        self.shared.home.receive()
    }
}
