//! Errors as they travel. What cannot travel as it is, such as a path or a cause, travels as its sentence.

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use store::{Error, LeaseId, Revision};

use crate::command::Refusal;
use crate::door::host::MemberError;
use crate::member::types::MemberId;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Fault {
    Compacted(Revision),
    FutureRevision { asked: Revision, newest: Revision },
    DuplicateKey(Bytes),
    KeyEmpty,
    KeyNotFound(Bytes),
    KeptAndGiven { value: bool },
    KeyTooLarge { bytes: u64, max: u64 },
    RequestTooLarge { bytes: u64, max: u64 },
    TooManyOps { max: u64 },
    RangeInverted,
    DeleteOptions,
    LeaseNotFound(LeaseId),
    LeaseExists(LeaseId),
    LeaseIdInvalid(LeaseId),
    LeaseTtl { seconds: u64, max: u64 },
    WatchLagged(Revision),
    DiskFull,
    Closed,
    NoLeader,
    TimedOut,
    Overloaded,
    Other(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Compacted { compacted } => Self::Compacted(compacted),
            Error::FutureRevision { asked, newest } => Self::FutureRevision { asked, newest },
            Error::DuplicateKey { key } => Self::DuplicateKey(key),
            Error::KeyEmpty => Self::KeyEmpty,
            Error::KeyNotFound { key } => Self::KeyNotFound(key),
            Error::KeptAndGiven { what } => Self::KeptAndGiven { value: what == "value" },
            Error::KeyTooLarge { bytes, max } => Self::KeyTooLarge { bytes: bytes as u64, max: max as u64 },
            Error::RequestTooLarge { bytes, max } => Self::RequestTooLarge { bytes: bytes as u64, max: max as u64 },
            Error::TooManyOps { max } => Self::TooManyOps { max: max as u64 },
            Error::RangeInverted => Self::RangeInverted,
            Error::DeleteOptions => Self::DeleteOptions,
            Error::LeaseNotFound { id } => Self::LeaseNotFound(id),
            Error::LeaseExists { id } => Self::LeaseExists(id),
            Error::LeaseIdInvalid { id } => Self::LeaseIdInvalid(id),
            Error::LeaseTtl { seconds, max } => Self::LeaseTtl { seconds, max },
            Error::WatchLagged { resume } => Self::WatchLagged(resume),
            Error::DiskFull => Self::DiskFull,
            Error::Closed => Self::Closed,
            Error::NoLeader => Self::NoLeader,
            Error::TimedOut => Self::TimedOut,
            Error::Overloaded => Self::Overloaded,
            other @ (Error::Locked { .. }
            | Error::Corrupt { .. }
            | Error::FormatUnknown { .. }
            | Error::OverQuota { .. }
            | Error::Storage { .. }) => Self::Other(other.to_string()),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Compacted(compacted) => Self::Compacted { compacted },
            Fault::FutureRevision { asked, newest } => Self::FutureRevision { asked, newest },
            Fault::DuplicateKey(key) => Self::DuplicateKey { key },
            Fault::KeyEmpty => Self::KeyEmpty,
            Fault::KeyNotFound(key) => Self::KeyNotFound { key },
            Fault::KeptAndGiven { value } => Self::KeptAndGiven { what: if value { "value" } else { "lease" } },
            Fault::KeyTooLarge { bytes, max } => Self::KeyTooLarge { bytes: bytes as usize, max: max as usize },
            Fault::RequestTooLarge { bytes, max } => Self::RequestTooLarge { bytes: bytes as usize, max: max as usize },
            Fault::TooManyOps { max } => Self::TooManyOps { max: max as usize },
            Fault::RangeInverted => Self::RangeInverted,
            Fault::DeleteOptions => Self::DeleteOptions,
            Fault::LeaseNotFound(id) => Self::LeaseNotFound { id },
            Fault::LeaseExists(id) => Self::LeaseExists { id },
            Fault::LeaseIdInvalid(id) => Self::LeaseIdInvalid { id },
            Fault::LeaseTtl { seconds, max } => Self::LeaseTtl { seconds, max },
            Fault::WatchLagged(resume) => Self::WatchLagged { resume },
            Fault::DiskFull => Self::DiskFull,
            Fault::Closed => Self::Closed,
            Fault::NoLeader => Self::NoLeader,
            Fault::TimedOut => Self::TimedOut,
            Fault::Overloaded => Self::Overloaded,
            Fault::Other(said) => Self::storage("answer on another member", io::Error::other(said)),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WireRefusal {
    Store(Fault),
    SystemMoved { version: u64 },
}

impl From<Refusal> for WireRefusal {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Store(error) => Self::Store(error.into()),
            Refusal::SystemMoved { version } => Self::SystemMoved { version },
        }
    }
}

impl From<WireRefusal> for Refusal {
    fn from(refusal: WireRefusal) -> Self {
        match refusal {
            WireRefusal::Store(fault) => Self::Store(fault.into()),
            WireRefusal::SystemMoved { version } => Self::SystemMoved { version },
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MemberFault {
    NotFound(MemberId),
    Exists(MemberId),
    PeerUrlExists,
    NotLearner(MemberId),
    LearnerNotReady,
    TooManyLearners,
    Unhealthy,
    BadTransferee(MemberId),
    Alone,
    Store(Fault),
}

impl From<MemberError> for MemberFault {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::NotFound(id) => Self::NotFound(id),
            MemberError::Exists(id) => Self::Exists(id),
            MemberError::PeerUrlExists => Self::PeerUrlExists,
            MemberError::NotLearner(id) => Self::NotLearner(id),
            MemberError::LearnerNotReady => Self::LearnerNotReady,
            MemberError::TooManyLearners => Self::TooManyLearners,
            MemberError::Unhealthy => Self::Unhealthy,
            MemberError::BadTransferee(id) => Self::BadTransferee(id),
            MemberError::Alone => Self::Alone,
            MemberError::Store(error) => Self::Store(error.into()),
        }
    }
}

impl From<MemberFault> for MemberError {
    fn from(fault: MemberFault) -> Self {
        match fault {
            MemberFault::NotFound(id) => Self::NotFound(id),
            MemberFault::Exists(id) => Self::Exists(id),
            MemberFault::PeerUrlExists => Self::PeerUrlExists,
            MemberFault::NotLearner(id) => Self::NotLearner(id),
            MemberFault::LearnerNotReady => Self::LearnerNotReady,
            MemberFault::TooManyLearners => Self::TooManyLearners,
            MemberFault::Unhealthy => Self::Unhealthy,
            MemberFault::BadTransferee(id) => Self::BadTransferee(id),
            MemberFault::Alone => Self::Alone,
            MemberFault::Store(fault) => Self::Store(fault.into()),
        }
    }
}
