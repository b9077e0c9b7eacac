//! What the door has to know beyond the store itself: the cluster, its health, and the rows that are no keys.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::{Error, Revision, Txn, TxnAnswer};

use crate::command::Refusal;
use crate::log::Measures;
use crate::member::types::{Contact, MemberId};

/// For the header of every answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub cluster_id: u64,
    pub member_id: MemberId,
    /// The term of the newest leader known here.
    pub term: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberFact {
    pub id: MemberId,
    pub contact: Contact,
    /// Receives the log, does not vote.
    pub learner: bool,
}

/// As this member sees it; not linearizable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostStatus {
    pub leader: Option<MemberId>,
    pub term: u64,
    pub log_index: u64,
    pub applied_index: u64,
    pub learner: bool,
    /// What the database occupies on disk, and how much of that is live data.
    pub db_bytes: u64,
    pub db_bytes_used: u64,
    pub problems: Vec<String>,
}

/// System rows: small, replicated, no keys of the store. `version` grows by one with each change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct System {
    pub version: u64,
    pub rows: BTreeMap<Bytes, Bytes>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MemberChange {
    Add { contact: Contact, learner: bool },
    Remove(MemberId),
    Promote(MemberId),
    Update { id: MemberId, peer_urls: Vec<String> },
}

/// Why the membership stays as it is. Each has an answer of its own in etcd's protocol.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MemberError {
    #[error("no member {0:x}")]
    NotFound(MemberId),
    #[error("member {0:x} exists already")]
    Exists(MemberId),
    #[error("another member has that peer address")]
    PeerUrlExists,
    #[error("member {0:x} is not a learner")]
    NotLearner(MemberId),
    #[error("the learner has not caught up with the leader yet")]
    LearnerNotReady,
    #[error("there are too many learners already")]
    TooManyLearners,
    #[error("too few members would be left that are started and reachable")]
    Unhealthy,
    #[error("member {0:x} is not a voter that could lead")]
    BadTransferee(MemberId),
    #[error("this store has one member and cannot have more")]
    Alone,
    #[error(transparent)]
    Store(#[from] Error),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashAnswer {
    pub hash: u32,
    pub revision: Revision,
    pub compacted: Revision,
}

/// A whole copy of the store, piece after piece; each piece at most 1 MiB.
pub type SnapshotPieces = tokio::sync::mpsc::Receiver<Result<Bytes, Error>>;

#[async_trait]
pub trait Host: Send + Sync + 'static {
    fn header(&self) -> Header;

    async fn status(&self) -> Result<HostStatus, Error>;

    /// Linearizable unless `serializable`; ascending by id.
    async fn members(&self, serializable: bool) -> Result<Vec<MemberFact>, Error>;

    /// Answers the members after it.
    async fn change(&self, change: MemberChange) -> Result<Vec<MemberFact>, MemberError>;

    async fn transfer(&self, to: MemberId) -> Result<(), MemberError>;

    /// As this member has it now, cheap.
    fn system(&self) -> std::sync::Arc<System>;

    /// Changes rows when their version is still `expected`; answers the new version, once it is applied here.
    async fn system_change(&self, expected: u64, rows: Vec<(Bytes, Option<Bytes>)>) -> Result<u64, Refusal>;

    /// As [`store::Store::txn`]; refused with [`Refusal::SystemMoved`] when the system rows are past `guard`.
    async fn guarded(&self, txn: Txn, guard: u64) -> Result<TxnAnswer, Refusal>;

    /// Over the rows as of `revision` and what is left of history, `None` for the newest: equal on every member.
    async fn hash(&self, revision: Option<Revision>) -> Result<HashAnswer, Error>;

    async fn snapshot(&self) -> Result<SnapshotPieces, Error>;

    /// What its log asked of the disk, if it has one of its own.
    fn measures(&self) -> Option<Measures> {
        None
    }
}
