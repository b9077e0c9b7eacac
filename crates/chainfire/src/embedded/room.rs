//! Room on the disk, looked at before each commit.
//!
//! The storage engine stops when a write fails in the middle of a commit, and has to be opened again, which reads the
//! whole file. So puts are refused a little before the disk is full, while everything still works, and come back by
//! themselves when there is room. What frees space is always tried: it may well fit into pages that are free already,
//! and when it does not, the commit fails as a whole.

use std::path::Path;

use store::Error;

/// Below this much room nothing is put.
pub const PUT_BYTES: u64 = 48 * 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Enough,
    /// For deletes and compaction alone.
    Tight,
}

pub fn look(dir: &Path) -> Result<Room, Error> {
    let stat = rustix::fs::statvfs(dir).map_err(|error| Error::storage("look for room on the disk", error))?;
    let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(if bytes >= PUT_BYTES { Room::Enough } else { Room::Tight })
}
