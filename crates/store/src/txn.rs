//! What a transaction asks and answers.

use crate::{Key, KeyValue, LeaseId, Range, RangeAnswer, Revision, Value};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CompareOp {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// A statement about one key before the transaction: "what the key has" `op` `value`.
///
/// A key that does not exist has version, create and mod revision 0 and no lease; any statement about its value is false.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    Version {
        key: Key,
        op: CompareOp,
        value: u64,
    },
    Create {
        key: Key,
        op: CompareOp,
        value: Revision,
    },
    Mod {
        key: Key,
        op: CompareOp,
        value: Revision,
    },
    Value {
        key: Key,
        op: CompareOp,
        value: Value,
    },
    /// No lease orders before every lease.
    Lease {
        key: Key,
        op: CompareOp,
        value: Option<LeaseId>,
    },
}

impl Compare {
    pub fn missing(key: impl Into<Key>) -> Self {
        Self::Create { key: key.into(), op: CompareOp::Equal, value: Revision::ZERO }
    }

    pub fn exists(key: impl Into<Key>) -> Self {
        Self::Create { key: key.into(), op: CompareOp::Greater, value: Revision::ZERO }
    }

    /// The key was last put at `revision`; `Revision::ZERO` says that it does not exist.
    pub fn mod_is(key: impl Into<Key>, revision: Revision) -> Self {
        Self::Mod { key: key.into(), op: CompareOp::Equal, value: revision }
    }

    pub fn version_is(key: impl Into<Key>, version: u64) -> Self {
        Self::Version { key: key.into(), op: CompareOp::Equal, value: version }
    }

    pub fn value_is(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self::Value { key: key.into(), op: CompareOp::Equal, value: value.into() }
    }

    pub fn key(&self) -> &Key {
        match self {
            Self::Version { key, .. }
            | Self::Create { key, .. }
            | Self::Mod { key, .. }
            | Self::Value { key, .. }
            | Self::Lease { key, .. } => key,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Without a lease, a put detaches the key from the lease it had.
    Put { key: Key, value: Value, lease: Option<LeaseId> },
    /// Only the range's start and end may be set.
    Delete { range: Range },
    /// Sees the operations before it in the same transaction.
    Range(Range),
    /// Its comparisons are about the state before the outermost transaction, like all others.
    Txn(Txn),
}

impl Op {
    pub fn put(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: None }
    }

    pub fn put_leased(key: impl Into<Key>, value: impl Into<Value>, lease: LeaseId) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: Some(lease) }
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
#[derive(Clone, PartialEq, Eq, Debug, Default)]
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

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxnAnswer {
    /// The newest revision after the transaction: its own when it changed something.
    pub revision: Revision,
    pub succeeded: bool,
    /// One for each operation of the branch that was taken, in order.
    pub answers: Vec<OpAnswer>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
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
