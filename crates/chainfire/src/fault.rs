//! Failures of files and of what lies in them, in the words of the waist.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use store::Error;

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

/// Runs what reads pages. A storage engine asserts some of what it finds in them, and a damaged file must not take the
/// caller down with it.
pub fn contained<T>(path: &Path, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged("its pages contradict each other")))
        .map_err(at(path))
}

/// Names the file in an error that was made without it.
pub fn at(path: &Path) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Corrupt { reason, path: known } if known.as_os_str().is_empty() => {
            Error::Corrupt { path: path.to_path_buf(), reason }
        }
        error => error,
    }
}
