//! The engine inside the process.

mod fault;
mod past;
mod place;
mod reclaim;
mod room;
mod shared;
mod tables;
mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::RwLock;
use redb::{ReadableTable, StorageBackend};
use store::feed::Feed;
use store::lessor::Lessor;
use store::{
    Error, Lease, LeaseId, LeaseStatus, Range, RangeAnswer, RangeEnd, Revision, Status, Store, Txn, TxnAnswer,
    WatchRequest, Watcher, admit, apply, select,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use fault::Fault;
use past::Past;
use place::{Folder, Place, Storage};
use reclaim::Reclaim;
use shared::Shared;
use writer::{QUEUE_MAX, Request, Writer};

#[derive(Clone, Debug)]
pub struct Options {
    /// Pages of the database held in memory; the kernel's page cache comes on top.
    pub cache_bytes: usize,
}

impl Options {
    pub const CACHE_BYTES: usize = 16 * 1024 * 1024;
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: Self::CACHE_BYTES }
    }
}

/// Dropping it finishes what was asked, closes the database and frees the folder for the next; that waits for a commit
/// under way. [`Embedded::close`] does the same without occupying the thread.
pub struct Embedded {
    shared: Arc<Shared>,
    /// `None` while dropping.
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    expiry: AbortHandle,
}

impl Embedded {
    /// Opens the store in the folder `dir`, making both when they are missing. Needs a tokio runtime, which then runs
    /// the leases; every lease has its full time again.
    ///
    /// Errors: [`Error::Locked`] when it is open already, here or in another process; [`Error::Corrupt`];
    /// [`Error::FormatUnknown`] when a newer version wrote it; [`Error::DiskFull`]; [`Error::Storage`].
    pub async fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let dir = dir.as_ref().to_path_buf();
        let opened = tokio::task::spawn_blocking(move || {
            let folder = Folder::lock(&dir, options.cache_bytes)?;
            let path = folder.database().to_path_buf();
            start(path, Box::new(folder))
        });
        let (shared, queue, writer) = opened.await.map_err(|error| Error::storage("finish opening", error))??;
        Ok(Self::run(shared, queue, writer))
    }

    /// As [`Embedded::open`], on storage that is not a folder: a simulated disk. Every call of `backend` gives another
    /// handle to the same storage, for opening it again after it failed. Blocks while it reads.
    pub fn open_on<B: StorageBackend>(
        backend: impl Fn() -> B + Send + 'static,
        options: Options,
    ) -> Result<Self, Error> {
        let storage = Storage { backend, cache_bytes: options.cache_bytes };
        let (shared, queue, writer) = start(PathBuf::new(), Box::new(storage))?;
        Ok(Self::run(shared, queue, writer))
    }

    fn run(shared: Arc<Shared>, queue: mpsc::Sender<Request>, writer: JoinHandle<()>) -> Self {
        let expiry = tokio::spawn(expire(shared.clone(), queue.downgrade())).abort_handle();
        Self { shared, queue: Some(queue), writer: Some(writer), expiry }
    }

    /// Finishes what was asked and frees the folder.
    pub async fn close(self) -> Result<(), Error> {
        tokio::task::spawn_blocking(move || drop(self)).await.map_err(|error| Error::storage("close", error))
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Request) -> Result<T, Error> {
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue.send(request(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

type Started = (Arc<Shared>, mpsc::Sender<Request>, JoinHandle<()>);

fn start(path: PathBuf, place: Box<dyn Place>) -> Result<Started, Error> {
    let database = place.open()?;
    let mut shared = Shared {
        database: RwLock::new(Ok(database)),
        path,
        feed: Feed::new(Revision::FIRST),
        lessor: Lessor::default(),
    };
    let (newest, oldest, compacted, leases) = shared.snapshot(|snapshot| {
        let oldest = snapshot.log.first().fault("read the log")?.map(|(at, _)| Revision(at.value().0));
        Ok((snapshot.newest, oldest, snapshot.compacted, snapshot.leases()?))
    })?;
    shared.feed = Feed::new(newest);
    shared.lessor.replace(leases);
    let shared = Arc::new(shared);
    let (queue, requests) = mpsc::channel(QUEUE_MAX);
    let writer = Writer::new(shared.clone(), place, requests, Reclaim::resume(oldest, compacted));
    let writer = std::thread::Builder::new().name("chainfire".into()).spawn(move || writer.run());
    let writer = writer.map_err(|error| Error::storage("start the writer", error))?;
    Ok((shared, queue, writer))
}

/// Revokes leases as they run out, until the store is closed.
async fn expire(shared: Arc<Shared>, queue: mpsc::WeakSender<Request>) {
    loop {
        let id = shared.lessor.run_out().await;
        let (reply, answer) = oneshot::channel();
        // The sender is not held across a wait: dropping the store waits for the last one to go.
        let sent = match queue.upgrade() {
            Some(queue) => queue.try_send(Request::Revoke(id, reply)).is_ok(),
            None => return,
        };
        if !sent {
            shared.lessor.retry(id);
            continue;
        }
        match answer.await {
            Ok(Ok(_) | Err(Error::LeaseNotFound { .. })) => {}
            Ok(Err(Error::Closed)) | Err(_) => return,
            Ok(Err(error)) => {
                tracing::warn!(%id, %error, "the keys of a lease that ran out could not be deleted yet");
                shared.lessor.retry(id);
            }
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.expiry.abort();
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so; there is nothing to add here.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        admit::range(&range)?;
        if range.end == RangeEnd::Single && range.revision.is_none() {
            return self.shared.snapshot(|snapshot| select::answer(snapshot, &range, snapshot.newest));
        }
        self.shared.blocking(move |snapshot| select::answer(snapshot, &range, snapshot.newest)).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        admit::txn(&txn)?;
        if admit::reads_only(&txn) {
            return self.shared.blocking(move |snapshot| Ok(apply::apply(snapshot, &txn)?.answer)).await;
        }
        self.ask(|reply| Request::Txn(txn, reply)).await
    }

    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error> {
        admit::watch(&watch)?;
        let compacted = self.shared.snapshot(|snapshot| Ok(snapshot.compacted))?;
        if watch.from.is_some_and(|from| from < compacted) {
            return Err(Error::Compacted { compacted });
        }
        Ok(self.shared.feed.watch(watch, Arc::new(Past(self.shared.clone()))))
    }

    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        let ttl_seconds = admit::lease(ttl_seconds, id)?;
        self.ask(|reply| Request::Grant { ttl_seconds, id, reply }).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.shared.lessor.keep_alive(id)
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        self.ask(|reply| Request::Revoke(id, reply)).await
    }

    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        let (lease, left) = self.shared.lessor.remaining(id)?;
        let keys = self.shared.blocking(move |snapshot| snapshot.attached(id)).await?;
        Ok(LeaseStatus { id, ttl_seconds: lease.ttl_seconds, remaining_seconds: left.as_secs(), keys })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        let leases = self.shared.blocking(|snapshot| snapshot.leases()).await?;
        Ok(leases.into_iter().map(|lease| lease.id).collect())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.ask(|reply| Request::Compact(revision, reply)).await
    }

    async fn status(&self) -> Result<Status, Error> {
        let (revision, compacted) = self.shared.snapshot(|snapshot| Ok((snapshot.newest, snapshot.compacted)))?;
        let db_bytes = std::fs::metadata(&self.shared.path).map_or(0, |file| file.len());
        Ok(Status { revision, compacted, db_bytes, engine: "embedded" })
    }
}
