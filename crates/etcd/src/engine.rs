//! The store over any etcd v3 cluster, release 3.4 or later.

use std::sync::Arc;

use async_trait::async_trait;
use store::{
    Error, Lease, LeaseId, LeaseStatus, Range, RangeAnswer, Revision, Status, Store, Txn, TxnAnswer, WatchRequest,
    Watcher, admit,
};
use tokio::sync::OnceCell;
use tonic::Response;

use crate::cluster::{Cluster, Subject, simple, strange};
use crate::proto::etcdserverpb as pb;
use crate::watch::Hub;
use crate::wire::{Strange, answer, ask};
use crate::{Client, Options, Repeat};

/// A store that somebody else keeps. Its user has to be allowed to read and write all keys.
///
/// What etcd and the trait do not agree on:
///
/// - etcd counts a request with its packing, so that with its default limits one that is within
///   [`store::limits::REQUEST_BYTES_MAX`] may be refused as too large by a little;
/// - the shortest lease of etcd is longer than [`store::limits::LEASE_TTL_SECONDS_MIN`]: answers say what was granted;
/// - a watch from exactly the compacted revision is refused: older releases would miss deletes made there.
pub struct Etcd {
    cluster: Arc<Cluster>,
    /// From the first watch on.
    hub: OnceCell<Hub>,
}

impl Etcd {
    /// Answers once an endpoint has.
    pub async fn connect(options: &Options) -> Result<Self, crate::Error> {
        Ok(Self::new(Client::connect(options).await?))
    }

    pub fn new(client: Client) -> Self {
        Self { cluster: Arc::new(Cluster::new(client)), hub: OnceCell::new() }
    }
}

#[async_trait]
impl Store for Etcd {
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        admit::range(&range)?;
        let request = ask::range(&range);
        let subject = Subject::At(range.revision.unwrap_or_default());
        const ACT: &str = "read a range";
        let answer = self.cluster.ask(ACT, subject, Repeat::Always, |connection| {
            let connection = if range.serializable { connection.leaderless() } else { connection };
            let request = request.clone();
            async move { connection.kv().range(request).await }
        });
        let answer = answer.await?;
        self.cluster.header(answer.header.as_ref()).map_err(|status| simple(ACT, status))?;
        answer::range(&range, answer).map_err(strange)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        admit::txn(&txn)?;
        let request = ask::txn(&txn);
        let repeat = if admit::reads_only(&txn) { Repeat::Always } else { Repeat::Untouched };
        const ACT: &str = "commit a transaction";
        let answer = self.cluster.ask(ACT, Subject::Txn(&txn), repeat, |connection| {
            let request = request.clone();
            async move { connection.kv().txn(request).await }
        });
        let answer = answer.await?;
        self.cluster.header(answer.header.as_ref()).map_err(|status| simple(ACT, status))?;
        answer::txn(&txn, answer).map_err(strange)
    }

    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error> {
        admit::watch(&watch)?;
        let hub = self.hub.get_or_try_init(|| Hub::start(self.cluster.clone())).await?;
        let from = match watch.from {
            // What others were answered before this call is not to come, even where the hub has not seen it yet.
            None => self.cluster.newest().await.map_err(|status| simple("watch", status))?.next(),
            Some(from) => {
                self.cluster.tells(from).await.map_err(|ended| ended.error("watch"))?;
                from
            }
        };
        Ok(hub.watch(WatchRequest { from: Some(from), ..watch }))
    }

    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        let ttl_seconds = admit::lease(ttl_seconds, id)?;
        let request = pb::LeaseGrantRequest { ttl: ask::number(ttl_seconds), id: ask::lease(id) };
        let subject = Subject::Grant { ttl_seconds, id };
        let answer = self.cluster.ask("grant a lease", subject, Repeat::Untouched, |connection| async move {
            connection.lease().lease_grant(request).await
        });
        let answer = answer.await?;
        let ttl_seconds = u64::try_from(answer.ttl).map_err(|_| strange(Strange::Lacks("time to live")))?;
        Ok(Lease { id: LeaseId(answer.id), ttl_seconds })
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        let request = pb::LeaseKeepAliveRequest { id: id.0 };
        // A stream of its own for each: on a shared one etcd answers in turn, and a slow lease would hold up the rest.
        let answer =
            self.cluster.ask("keep a lease alive", Subject::Lease(id), Repeat::Always, |connection| async move {
                let answers = connection.lease().lease_keep_alive(tokio_stream::iter([request])).await?;
                let answer = answers.into_inner().message().await?;
                answer
                    .map(Response::new)
                    .ok_or_else(|| tonic::Status::unavailable("the stream ended without an answer"))
            });
        match u64::try_from(answer.await?.ttl) {
            Ok(ttl_seconds) if ttl_seconds > 0 => Ok(Lease { id, ttl_seconds }),
            // There is no other sign of it.
            _ => Err(Error::LeaseNotFound { id }),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        let request = pb::LeaseRevokeRequest { id: id.0 };
        let answer =
            self.cluster.ask("revoke a lease", Subject::Lease(id), Repeat::Untouched, |connection| async move {
                connection.lease().lease_revoke(request).await
            });
        self.cluster.header(answer.await?.header.as_ref()).map_err(|status| simple("revoke a lease", status))
    }

    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        let request = pb::LeaseTimeToLiveRequest { id: id.0, keys: true };
        let answer = self.cluster.ask("look at a lease", Subject::Lease(id), Repeat::Always, |connection| async move {
            connection.lease().lease_time_to_live(request).await
        });
        let answer = answer.await?;
        // A lease that ran out and is not revoked yet has less than nothing left, but was granted something.
        let Some(ttl_seconds) = u64::try_from(answer.granted_ttl).ok().filter(|granted| *granted > 0) else {
            return Err(Error::LeaseNotFound { id });
        };
        let mut keys = answer.keys;
        keys.sort_unstable();
        Ok(LeaseStatus { id, ttl_seconds, remaining_seconds: u64::try_from(answer.ttl).unwrap_or(0), keys })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.cluster.leases().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        // etcd takes 0 for a revision that can be compacted, once.
        if revision == Revision::ZERO {
            let (compacted, _) = self.cluster.horizon().await.map_err(|status| simple("compact", status))?;
            return Err(Error::Compacted { compacted });
        }
        let request = pb::CompactionRequest { revision: ask::number(revision.0), physical: false };
        let answer = self.cluster.ask("compact", Subject::At(revision), Repeat::Untouched, |connection| async move {
            connection.kv().compact(request).await
        });
        answer.await?;
        self.cluster.note_compacted(revision);
        Ok(())
    }

    async fn status(&self) -> Result<Status, Error> {
        let status =
            self.cluster.ask("ask for its status", Subject::Nothing, Repeat::Always, |connection| async move {
                connection.maintenance().status(pb::StatusRequest {}).await
            });
        let (status, horizon) = tokio::join!(status, self.cluster.horizon());
        let (status, (compacted, revision)) =
            (status?, horizon.map_err(|status| simple("look how far it is", status))?);
        Ok(Status { revision, compacted, db_bytes: u64::try_from(status.db_size).unwrap_or(0), engine: "etcd" })
    }
}
