//! The trait.

use async_trait::async_trait;

use crate::{Error, Lease, LeaseId, LeaseStatus, Range, RangeAnswer, Revision, Txn, TxnAnswer, WatchRequest, Watcher};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    pub revision: Revision,
    /// Reads below it are refused; 0 when never compacted.
    pub compacted: Revision,
    /// What the engine occupies, on disk or else in memory.
    pub db_bytes: u64,
    pub engine: &'static str,
}

/// One ordered key-value store. Reads are linearizable: a range sees every transaction that was answered before it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Errors: [`Error::Compacted`], [`Error::FutureRevision`], a refusal of the request's form.
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error>;

    /// Durable before it answers `Ok`. Cancelling the call leaves open whether it happened.
    ///
    /// Errors: a refusal changes nothing ([`Error::is_refusal`]); after any other error, such as [`Error::Storage`], it
    /// may have happened.
    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error>;

    /// Starts when the call returns: changes after that are never missed. Errors: [`Error::Compacted`], a refusal of the
    /// request's form.
    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error>;

    /// `id: None` lets the store choose. Durable before it answers.
    /// Errors: [`Error::LeaseExists`], [`Error::LeaseTtl`], [`Error::LeaseIdInvalid`].
    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error>;

    /// The lease lives for its full time again. Errors: [`Error::LeaseNotFound`].
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error>;

    /// Deletes the lease and its keys, those in one revision; answers the newest revision.
    /// Errors: [`Error::LeaseNotFound`].
    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error>;

    /// Errors: [`Error::LeaseNotFound`].
    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error>;

    /// Leases that are alive, ascending.
    async fn leases(&self) -> Result<Vec<LeaseId>, Error>;

    /// Gives up the history below `revision`: reads below it are refused from now on. The rows as of `revision` stay.
    /// Space is reclaimed in the background.
    /// Errors: [`Error::Compacted`] when already at or past it, [`Error::FutureRevision`].
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    async fn status(&self) -> Result<Status, Error>;
}
