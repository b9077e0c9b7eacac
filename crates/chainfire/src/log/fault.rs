//! What goes wrong with a log, in the words of the waist and of Raft.

use std::io;
use std::path::Path;
use std::sync::Arc;

use store::Error;

use super::medium::is_full;

/// Why a log does not go on. Unlike [`io::Error`] it can be told to many.
#[derive(Clone, Debug)]
pub struct Failure {
    kind: io::ErrorKind,
    message: Arc<str>,
    closed: bool,
}

impl Failure {
    pub fn new(act: &'static str, error: &io::Error) -> Self {
        Self { kind: error.kind(), message: format!("the log failed to {act}: {error}").into(), closed: false }
    }

    pub fn closed() -> Self {
        Self { kind: io::ErrorKind::NotConnected, message: "the log is closed".into(), closed: true }
    }

    /// Whoever wrote is gone and left things undone.
    pub fn abandoned() -> Self {
        Self { kind: io::ErrorKind::BrokenPipe, message: "the log's writer ended".into(), closed: false }
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }

    pub fn to_io(&self) -> io::Error {
        io::Error::new(self.kind, self.message.to_string())
    }

    pub fn to_error(&self) -> Error {
        match self.kind {
            _ if self.closed => Error::Closed,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull,
            _ => Error::storage("write the log", self.to_io()),
        }
    }

    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Opening met this failure.
pub fn opening(act: &'static str, error: io::Error) -> Error {
    if is_full(&error) { Error::DiskFull } else { Error::storage(act, error) }
}

/// Nothing of this log can be trusted any more, and nothing of it is changed.
pub fn corrupt(path: &Path, offset: usize, what: &str) -> Error {
    let reason = format!(
        "at byte {offset}, {what}; what it held may have been acknowledged, so it is not cut off. Remove this member \
         from the cluster and add it anew with an empty folder: its peers have the data. Without peers, restore a snapshot"
    );
    Error::Corrupt { path: path.to_path_buf(), reason }
}

/// [`corrupt`], for a reader.
pub fn corrupt_io(path: &Path, offset: usize, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, corrupt(path, offset, what))
}
