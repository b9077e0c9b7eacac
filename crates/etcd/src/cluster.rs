//! Calls to the cluster whose failures are the store's errors.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message as _;
use store::limits::{LEASE_TTL_SECONDS_MAX, REQUEST_BYTES_MAX, TXN_OPS_MAX};
use store::{Error, Key, LeaseId, Op, Revision, Txn};
use tonic::{Code, Response, Status};

use crate::proto::etcdserverpb::{LeaseLeasesRequest, RangeResponse, ResponseHeader};
use crate::told::{self, Told};
use crate::wire::{Strange, answer, ask};
use crate::{Client, Connection, Repeat};

/// Rounds of looking for the compacted revision while others compact.
const HORIZON_ROUNDS_MAX: usize = 8;

/// gRPC's own refusal, before etcd sees the request.
const MESSAGE_TOO_LARGE: &str = "grpc: received message larger than max";

pub(crate) struct Cluster {
    pub client: Client,
    /// Which cluster it is; the first answer tells.
    id: OnceLock<u64>,
    /// Compacted at least so far.
    compacted: AtomicU64,
}

/// What a call was about, for its errors.
pub(crate) enum Subject<'a> {
    Txn(&'a Txn),
    /// A read at, or a compaction to, a revision.
    At(Revision),
    Lease(LeaseId),
    Grant {
        ttl_seconds: u64,
        id: Option<LeaseId>,
    },
    Nothing,
}

/// Why the past is not told on.
pub(crate) enum Ended {
    /// What comes next is gone; up to here.
    Compacted(Revision),
    Failed(Status),
}

impl Ended {
    pub fn error(self, act: &'static str) -> Error {
        match self {
            Self::Compacted(compacted) => Error::Compacted { compacted },
            Self::Failed(status) => simple(act, status),
        }
    }

    /// The same again would end the same.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Compacted(_) => true,
            Self::Failed(status) => matches!(Told::by(status), Told::Refused | Told::Token),
        }
    }
}

/// Whether a revision can be read.
pub(crate) enum Seen {
    /// And which is the newest.
    Readable(Revision),
    Compacted,
    Future,
}

pub(crate) fn strange(strange: Strange) -> Error {
    Error::storage("understand etcd's answer", strange)
}

impl Cluster {
    pub fn new(client: Client) -> Self {
        Self { client, id: OnceLock::new(), compacted: AtomicU64::new(0) }
    }

    /// The newest revision, as the answer says. Checks that it is from the cluster that the others were from.
    pub fn header(&self, header: Option<&ResponseHeader>) -> Result<Revision, Status> {
        let header = header.ok_or_else(|| Status::internal(Strange::Lacks("header").to_string()))?;
        let first = *self.id.get_or_init(|| header.cluster_id);
        if first != header.cluster_id {
            let strange = Strange::Cluster { first, now: header.cluster_id };
            return Err(Status::failed_precondition(strange.to_string()));
        }
        Ok(answer::revision(header.revision))
    }

    pub async fn ask<A, F>(
        &self,
        act: &'static str,
        subject: Subject<'_>,
        repeat: Repeat,
        call: impl Fn(Connection) -> F,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        match self.client.call(repeat, call).await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(self.error(act, subject, status).await),
        }
    }

    /// Linearizable.
    pub async fn newest(&self) -> Result<Revision, Status> {
        self.header(self.glance(None).await?.header.as_ref())
    }

    async fn glance(&self, revision: Option<Revision>) -> Result<RangeResponse, Status> {
        let request = ask::glance(revision);
        let call = self.client.call(Repeat::Always, |connection| {
            let request = request.clone();
            async move { connection.kv().range(request).await }
        });
        call.await
    }

    pub async fn see(&self, revision: Revision) -> Result<Seen, Status> {
        match self.glance(Some(revision)).await {
            Ok(answer) => Ok(Seen::Readable(self.header(answer.header.as_ref())?)),
            Err(status) if status.message() == told::COMPACTED => Ok(Seen::Compacted),
            Err(status) if status.message() == told::FUTURE_REVISION => Ok(Seen::Future),
            Err(status) => Err(status),
        }
    }

    /// Errors when not everything from `from` on can be told any more.
    ///
    /// The revision before it has to be readable: etcd before 3.4.34 and 3.5.16 forgets deletes that were made at
    /// exactly the compacted revision (etcd issue 18089), so that a watch from there would miss them.
    pub async fn tells(&self, from: Revision) -> Result<(), Ended> {
        match self.see(from.before().max(Revision::FIRST)).await.map_err(Ended::Failed)? {
            Seen::Readable(_) | Seen::Future => Ok(()),
            Seen::Compacted => Err(Ended::Compacted(self.horizon().await.map_err(Ended::Failed)?.0)),
        }
    }

    pub fn note_compacted(&self, revision: Revision) {
        self.compacted.fetch_max(revision.0, Ordering::Relaxed);
    }

    /// The compacted revision and the newest. etcd does not tell the first: it is the lowest that can be read, and is
    /// searched for from the last known on, mostly with one read.
    pub async fn horizon(&self) -> Result<(Revision, Revision), Status> {
        for _ in 0..HORIZON_ROUNDS_MAX {
            let known = Revision(self.compacted.load(Ordering::Relaxed));
            let mut below = known.max(Revision::FIRST);
            match self.see(below).await? {
                Seen::Readable(newest) => return Ok((known, newest)),
                Seen::Compacted => {}
                // What was known is of a time that the cluster has been set back to before.
                Seen::Future => {
                    self.compacted.store(0, Ordering::Relaxed);
                    continue;
                }
            }
            let mut readable = self.newest().await?;
            while below.next() < readable {
                let middle = Revision(below.0.midpoint(readable.0));
                match self.see(middle).await? {
                    Seen::Readable(_) | Seen::Future => readable = middle,
                    Seen::Compacted => below = middle,
                }
            }
            self.note_compacted(readable);
        }
        Err(Status::unavailable("it is compacted again and again"))
    }

    /// What went wrong, with what etcd does not say about it.
    pub async fn error(&self, act: &'static str, subject: Subject<'_>, status: Status) -> Error {
        match (status.message(), subject) {
            (told::COMPACTED, _) => match self.horizon().await {
                Ok((compacted, _)) => Error::Compacted { compacted },
                Err(status) => simple("look for the compacted revision", status),
            },
            (told::FUTURE_REVISION, subject) => {
                let asked = match subject {
                    Subject::At(revision) => revision,
                    Subject::Txn(txn) => revisions(txn).into_iter().max().unwrap_or_default(),
                    Subject::Lease(_) | Subject::Grant { .. } | Subject::Nothing => Revision::ZERO,
                };
                match self.newest().await {
                    Ok(newest) => Error::FutureRevision { asked, newest },
                    Err(status) => simple("read the newest revision", status),
                }
            }
            (told::LEASE_NOT_FOUND, Subject::Lease(id)) => Error::LeaseNotFound { id },
            (told::LEASE_NOT_FOUND, Subject::Txn(txn)) => self.lease_not_found(txn).await,
            (told::KEY_NOT_FOUND, Subject::Txn(txn)) => self.key_not_found(txn).await,
            (told::LEASE_EXISTS, Subject::Grant { id: Some(id), .. }) => Error::LeaseExists { id },
            (told::LEASE_TTL, Subject::Grant { ttl_seconds, .. }) => {
                Error::LeaseTtl { seconds: ttl_seconds, max: LEASE_TTL_SECONDS_MAX.min(ttl_seconds.saturating_sub(1)) }
            }
            (told::DUPLICATE_KEY, Subject::Txn(txn)) => {
                Error::DuplicateKey { key: puts(txn).into_iter().next().map(|put| put.key.clone()).unwrap_or_default() }
            }
            // Fewer than ours are allowed where the cluster is so configured; it does not say how many.
            (told::TOO_MANY_OPS, Subject::Txn(txn)) => {
                let ops = txn.when.len().max(txn.then.len()).max(txn.otherwise.len());
                Error::TooManyOps { max: TXN_OPS_MAX.min(ops.saturating_sub(1)) }
            }
            (message, Subject::Txn(txn))
                if message == told::REQUEST_TOO_LARGE || message.starts_with(MESSAGE_TOO_LARGE) =>
            {
                let bytes = ask::txn(txn).encoded_len();
                Error::RequestTooLarge { bytes, max: REQUEST_BYTES_MAX.min(bytes.saturating_sub(1)) }
            }
            _ => simple(act, status),
        }
    }

    /// etcd does not say which.
    async fn lease_not_found(&self, txn: &Txn) -> Error {
        let ids: Vec<LeaseId> = puts(txn).iter().filter_map(|put| put.lease).collect();
        let mut missing = None;
        if ids.len() > 1 {
            match self.leases().await {
                Ok(alive) => missing = ids.iter().find(|id| alive.binary_search(id).is_err()),
                Err(error) => return error,
            }
        }
        Error::LeaseNotFound { id: missing.or(ids.first()).copied().unwrap_or(LeaseId(0)) }
    }

    async fn key_not_found(&self, txn: &Txn) -> Error {
        let keys: Vec<Key> = puts(txn).iter().filter(|put| put.keeps).map(|put| put.key.clone()).collect();
        for key in &keys {
            let read = store::Range::key(key.clone()).count_only();
            let request = ask::range(&read);
            let call = self.client.call(Repeat::Always, |connection| {
                let request = request.clone();
                async move { connection.kv().range(request).await }
            });
            match call.await {
                Ok(answer) if answer.count == 0 => return Error::KeyNotFound { key: key.clone() },
                Ok(_) => {}
                Err(status) => return simple("look for a key", status),
            }
        }
        Error::KeyNotFound { key: keys.into_iter().next().unwrap_or_default() }
    }

    /// Ascending. A member answers from what it has: the read before sees to it that it has everything.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        let call = self.client.call(Repeat::Always, |connection| async move {
            connection.kv().range(ask::glance(None)).await?;
            connection.lease().lease_leases(LeaseLeasesRequest {}).await
        });
        let answer = call.await.map_err(|status| simple("list the leases", status))?;
        let mut ids: Vec<LeaseId> = answer.leases.into_iter().map(|lease| LeaseId(lease.id)).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

/// Errors that say everything themselves.
pub(crate) fn simple(act: &'static str, status: Status) -> Error {
    match Told::by(&status) {
        Told::Unreachable | Told::NoLeader => return Error::NoLeader,
        Told::TimedOut => return Error::TimedOut,
        Told::Broken | Told::Token | Told::Refused => {}
    }
    match (status.message(), status.code()) {
        (told::NO_SPACE, _) => Error::DiskFull,
        (told::TOO_MANY_REQUESTS, Code::ResourceExhausted) => Error::Overloaded,
        _ => Error::storage(act, status),
    }
}

struct Put<'t> {
    key: &'t Key,
    lease: Option<LeaseId>,
    keeps: bool,
}

/// Of all branches, in order.
fn puts(txn: &Txn) -> Vec<Put<'_>> {
    let mut puts = Vec::new();
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Put { key, lease, keep, .. } => puts.push(Put { key, lease: *lease, keeps: keep.anything() }),
            Op::Txn(nested) => puts.extend(self::puts(nested)),
            Op::Delete { .. } | Op::Range(_) => {}
        }
    }
    puts
}

/// That ranges of the transaction ask for.
fn revisions(txn: &Txn) -> Vec<Revision> {
    let mut revisions = Vec::new();
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Range(range) => revisions.extend(range.revision),
            Op::Txn(nested) => revisions.extend(self::revisions(nested)),
            Op::Put { .. } | Op::Delete { .. } => {}
        }
    }
    revisions
}
