//! What the storage engine says, in the words of the waist.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{DatabaseError, StorageError};
use store::Error;

/// Turns any failure of the storage engine into [`Error`], naming the act.
pub trait Fault<T> {
    fn fault(self, act: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<redb::Error>> Fault<T> for Result<T, E> {
    fn fault(self, act: &'static str) -> Result<T, Error> {
        self.map_err(|error| match error.into() {
            redb::Error::Corrupted(reason) => damaged(reason),
            error @ (redb::Error::TableTypeMismatch { .. } | redb::Error::TableDoesNotExist(_)) => {
                damaged(error.to_string())
            }
            redb::Error::Io(error) => io_fault(act, error),
            error => Error::storage(act, error),
        })
    }
}

pub fn io_fault(act: &'static str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull,
        _ => Error::storage(act, error),
    }
}

/// The path is filled in by [`at`], where it is known.
pub fn damaged(reason: impl Into<String>) -> Error {
    Error::Corrupt { path: PathBuf::new(), reason: reason.into() }
}

/// Runs what reads pages. The storage engine asserts some of what it finds in them, and a damaged file must not take
/// the caller down with it.
pub fn contained<T>(path: &Path, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged("its pages contradict each other")))
        .map_err(at(path))
}

/// Names the file in an error that was made without it.
pub fn at(path: &Path) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Corrupt { reason, .. } => Error::Corrupt { path: path.to_path_buf(), reason },
        error => error,
    }
}

pub fn opening(path: &Path, error: DatabaseError) -> Error {
    let path = path.to_path_buf();
    match error {
        DatabaseError::DatabaseAlreadyOpen => Error::Locked { path },
        DatabaseError::Storage(StorageError::Corrupted(reason)) => Error::Corrupt { path, reason },
        DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Error::Corrupt { path, reason: error.to_string() }
            }
            _ => io_fault("open the database", error),
        },
        DatabaseError::UpgradeRequired(version) => {
            Error::Corrupt { path, reason: format!("its pages have the unknown format {version}") }
        }
        // What it keeps beside the tables cannot be read.
        DatabaseError::Storage(error @ (StorageError::LockPoisoned(_) | StorageError::ValueTooLarge(_))) => {
            Error::Corrupt { path, reason: error.to_string() }
        }
        error => Error::storage("open the database", error),
    }
}
