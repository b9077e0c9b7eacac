//! What readers, the writer and watches share.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use redb::{Database, ReadableDatabase};
use store::Error;
use store::feed::Feed;
use store::lessor::Lessor;

use super::fault::{Fault, contained};
use super::tables::Snapshot;

pub struct Shared {
    /// [`Error::Closed`] once closed; another error while a database that failed could not be opened again.
    pub database: RwLock<Result<Database, Error>>,
    /// For messages, and to learn the size; empty when the database is not a file.
    pub path: PathBuf,
    pub feed: Arc<Feed>,
    pub lessor: Lessor,
}

impl Shared {
    /// Reads the newest commit. Short reads only: this occupies the calling thread.
    pub fn snapshot<T>(&self, read: impl FnOnce(&mut Snapshot) -> Result<T, Error>) -> Result<T, Error> {
        let database = self.database.read();
        let database = database.as_ref().map_err(Error::clone)?;
        contained(&self.path, || {
            let transaction = database.begin_read().fault("begin to read")?;
            read(&mut Snapshot::open(&transaction)?)
        })
    }

    /// Reads the newest commit on a thread that may wait for the disk.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut Snapshot) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.clone();
        let read = tokio::task::spawn_blocking(move || shared.snapshot(read)).await;
        read.unwrap_or_else(|error| Err(Error::storage("finish a read", error)))
    }
}
