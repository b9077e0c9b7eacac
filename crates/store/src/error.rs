//! What can go wrong at the waist.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::{LeaseId, Revision};

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("the history up to revision {compacted} has been compacted")]
    Compacted { compacted: Revision },
    #[error("revision {asked} is in the future, the newest is {newest}")]
    FutureRevision { asked: Revision, newest: Revision },
    #[error("the transaction changes key {} twice", .key.escape_ascii())]
    DuplicateKey { key: Bytes },
    #[error("a key must not be empty")]
    KeyEmpty,
    #[error("key {} does not exist, and the put keeps what it had", .key.escape_ascii())]
    KeyNotFound { key: Bytes },
    #[error("a put that keeps the {what} must not give one")]
    KeptAndGiven { what: &'static str },
    #[error("a key has {bytes} bytes, at most {max} are allowed")]
    KeyTooLarge { bytes: usize, max: usize },
    #[error("the request has {bytes} bytes, at most {max} are allowed")]
    RequestTooLarge { bytes: usize, max: usize },
    #[error("the transaction has more than {max} operations")]
    TooManyOps { max: usize },
    #[error("the range ends before it starts")]
    RangeInverted,
    #[error("a delete takes a start and an end, no other options of a range")]
    DeleteOptions,
    #[error("lease {id} does not exist")]
    LeaseNotFound { id: LeaseId },
    #[error("lease {id} exists already")]
    LeaseExists { id: LeaseId },
    #[error("lease id {id} is not positive")]
    LeaseIdInvalid { id: LeaseId },
    #[error("a lease of {seconds} s is longer than {max} s")]
    LeaseTtl { seconds: u64, max: u64 },
    #[error("the watcher fell behind; watch again from revision {resume}")]
    WatchLagged { resume: Revision },
    #[error("that would be more than the quota of {limit} {what}")]
    OverQuota { what: &'static str, limit: u64 },
    #[error("the disk is full; nothing was changed")]
    DiskFull,
    #[error("{} is in use by another process", .path.display())]
    Locked { path: PathBuf },
    #[error("{} is corrupt: {reason}", .path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("{} has format {found}, this version reads {known}", .path.display())]
    FormatUnknown { path: PathBuf, found: u64, known: u64 },
    #[error("the store is closed")]
    Closed,
    /// Nothing was changed; again in a moment.
    #[error("the store has no leader at the moment")]
    NoLeader,
    /// It may have happened and may still happen.
    #[error("the store did not answer within its time")]
    TimedOut,
    #[error("too many requests wait already; nothing was changed")]
    Overloaded,
    #[error("storage failed to {act}")]
    Storage { act: &'static str, source: Arc<dyn std::error::Error + Send + Sync> },
}

impl Error {
    pub fn storage(act: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Storage { act, source: Arc::new(source) }
    }

    /// The request was turned down before it changed anything; the same request will be turned down again
    /// or, for [`Error::DiskFull`], [`Error::NoLeader`] and [`Error::Overloaded`], until that has passed.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Compacted { .. }
            | Self::FutureRevision { .. }
            | Self::DuplicateKey { .. }
            | Self::KeyEmpty
            | Self::KeyNotFound { .. }
            | Self::KeptAndGiven { .. }
            | Self::KeyTooLarge { .. }
            | Self::RequestTooLarge { .. }
            | Self::TooManyOps { .. }
            | Self::RangeInverted
            | Self::DeleteOptions
            | Self::LeaseNotFound { .. }
            | Self::LeaseExists { .. }
            | Self::LeaseIdInvalid { .. }
            | Self::LeaseTtl { .. }
            | Self::DiskFull
            | Self::OverQuota { .. }
            | Self::NoLeader
            | Self::Overloaded
            | Self::Locked { .. }
            | Self::FormatUnknown { .. } => true,
            Self::WatchLagged { .. } | Self::Corrupt { .. } | Self::Closed | Self::TimedOut | Self::Storage { .. } => {
                false
            }
        }
    }
}
