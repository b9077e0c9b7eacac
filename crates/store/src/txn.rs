//! What a transaction asks and answers.

use serde::{Deserialize, Serialize};

use crate::{Key, KeyValue, LeaseId, Range, RangeAnswer, RangeEnd, Revision, Value};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum CompareOp {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// What a comparison is about, and what it is compared with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Target {
    Version(u64),
    Create(Revision),
    Mod(Revision),
    Value(Value),
    /// No lease orders before every lease.
    Lease(Option<LeaseId>),
}

/// A statement about keys before the transaction: "what the key has" `op` `target`, for every key there is from `key` to
/// `end`.
///
/// A key that does not exist has version, create and mod revision 0 and no lease; any statement about its value is false.
/// A stretch without keys is like one key that does not exist.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compare {
    pub key: Key,
    pub end: RangeEnd,
    pub op: CompareOp,
    pub target: Target,
}

impl Compare {
    pub fn new(key: impl Into<Key>, op: CompareOp, target: Target) -> Self {
        Self { key: key.into(), end: RangeEnd::Single, op, target }
    }

    /// The same statement about every key from its own to `end`.
    #[must_use]
    pub fn to(mut self, end: RangeEnd) -> Self {
        self.end = end;
        self
    }

    pub fn missing(key: impl Into<Key>) -> Self {
        Self::mod_is(key, Revision::ZERO)
    }

    pub fn exists(key: impl Into<Key>) -> Self {
        Self::new(key, CompareOp::Greater, Target::Create(Revision::ZERO))
    }

    /// The key was last put at `revision`; `Revision::ZERO` says that it does not exist.
    pub fn mod_is(key: impl Into<Key>, revision: Revision) -> Self {
        Self::new(key, CompareOp::Equal, Target::Mod(revision))
    }

    pub fn version_is(key: impl Into<Key>, version: u64) -> Self {
        Self::new(key, CompareOp::Equal, Target::Version(version))
    }

    pub fn value_is(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self::new(key, CompareOp::Equal, Target::Value(value.into()))
    }
}

/// What a put leaves as it is; the key has to exist then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Keep {
    /// The value given must be empty.
    pub value: bool,
    /// The lease given must be none.
    pub lease: bool,
}

impl Keep {
    pub const NOTHING: Self = Self { value: false, lease: false };

    pub const fn anything(self) -> bool {
        self.value || self.lease
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Without a lease, a put detaches the key from the lease it had.
    Put { key: Key, value: Value, lease: Option<LeaseId>, keep: Keep },
    /// Only the range's start and end may be set.
    Delete { range: Range },
    /// Sees the operations before it in the same transaction.
    Range(Range),
    /// Its comparisons are about the state before the outermost transaction, like all others.
    Txn(Txn),
}

impl Op {
    pub fn put(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: None, keep: Keep::NOTHING }
    }

    pub fn put_leased(key: impl Into<Key>, value: impl Into<Value>, lease: LeaseId) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: Some(lease), keep: Keep::NOTHING }
    }

    pub fn delete(key: impl Into<Key>) -> Self {
        Self::Delete { range: Range::key(key) }
    }

    pub fn delete_prefix(prefix: impl Into<Key>) -> Self {
        Self::Delete { range: Range::prefix(prefix) }
    }

    pub fn get(key: impl Into<Key>) -> Self {
        Self::Range(Range::key(key))
    }
}

/// When all of `when` hold, `then` is done, else `otherwise`: atomically, in order, in one revision.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Txn {
    pub when: Vec<Compare>,
    pub then: Vec<Op>,
    pub otherwise: Vec<Op>,
}

impl Txn {
    /// Unconditional.
    pub fn of(then: impl Into<Vec<Op>>) -> Self {
        Self { then: then.into(), ..Self::default() }
    }

    pub fn when(when: impl Into<Vec<Compare>>) -> Self {
        Self { when: when.into(), ..Self::default() }
    }

    #[must_use]
    pub fn then(mut self, then: impl Into<Vec<Op>>) -> Self {
        self.then = then.into();
        self
    }

    #[must_use]
    pub fn otherwise(mut self, otherwise: impl Into<Vec<Op>>) -> Self {
        self.otherwise = otherwise.into();
        self
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TxnAnswer {
    /// The newest revision after the transaction: its own when it changed something.
    pub revision: Revision,
    pub succeeded: bool,
    /// One for each operation of the branch that was taken, in order.
    pub answers: Vec<OpAnswer>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OpAnswer {
    Put {
        previous: Option<KeyValue>,
    },
    /// `previous` holds the deleted rows in ascending key order.
    Delete {
        deleted: u64,
        previous: Vec<KeyValue>,
    },
    Range(RangeAnswer),
    Txn(TxnAnswer),
}
