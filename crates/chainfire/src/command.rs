//! What the replicated log carries, and what applying it answers.
//!
//! One entry of the log carries many requests: everything that waited while the entry before it was on its way.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::{Error, Lease, LeaseId, Revision, Txn, TxnAnswer};

/// Requests in the order in which they are applied. Cheap to clone: the log, each follower and the state have it at once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Proposal {
    pub requests: Arc<Vec<Request>>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    Txn {
        txn: Txn,
        /// Refused when the system rows have moved past this version: what the caller may do was decided on them.
        guard: Option<u64>,
    },
    Grant {
        ttl_seconds: u64,
        id: Option<LeaseId>,
    },
    Revoke(LeaseId),
    Compact(Revision),
    /// Changes system rows when their version is still `expected`. They are no keys of the store and take no revision.
    System {
        expected: u64,
        /// `None` removes.
        rows: Vec<(Bytes, Option<Bytes>)>,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    Txn(TxnAnswer),
    Grant(Lease),
    Revoke(Revision),
    Compact,
    /// The version of the system rows now.
    System(u64),
}

/// Answers in the order of the requests; empty for an entry that carries none.
pub type Answers = Vec<Result<Answer, Refusal>>;

/// Why a request changed nothing when it was applied.
#[derive(Clone, Debug)]
pub enum Refusal {
    Store(Error),
    /// The system rows are at another version than expected.
    SystemMoved {
        version: u64,
    },
}

impl std::fmt::Display for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} requests", self.requests.len())
    }
}
