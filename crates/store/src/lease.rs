//! What a lease is to its holder.

use serde::{Deserialize, Serialize};

use crate::Key;

/// From 1 up; the width and sign are etcd's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LeaseId(pub i64);

impl std::fmt::Display for LeaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lease {
    pub id: LeaseId,
    /// As granted: never less than asked.
    pub ttl_seconds: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub id: LeaseId,
    pub ttl_seconds: u64,
    /// Until it runs out without another life sign, rounded down.
    pub remaining_seconds: u64,
    /// Keys attached now, ascending.
    pub keys: Vec<Key>,
}
