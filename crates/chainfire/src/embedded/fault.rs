//! What the storage engine says, in the words of the waist.

use std::io;
use std::path::Path;

use redb::{DatabaseError, StorageError};
use store::Error;

pub use crate::fault::{contained, damaged, io_fault};

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
