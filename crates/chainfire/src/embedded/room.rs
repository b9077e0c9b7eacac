//! Room on the disk, looked at before each commit.
//!
//! The storage engine gives up for good when a write fails in the middle of a commit. So writes are refused a little
//! before the disk is full, while everything still works, and come back by themselves when there is room. What frees
//! space is let through longer.

use std::path::Path;

use store::Error;

/// Below this much room nothing is put.
pub const PUT_BYTES: u64 = 48 * 1024 * 1024;

/// Below this much not even a delete or a compaction is tried.
pub const DELETE_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Enough,
    /// For deletes and compaction alone.
    Tight,
    None,
}

pub fn look(dir: &Path) -> Result<Room, Error> {
    let stat = rustix::fs::statvfs(dir).map_err(|error| Error::storage("look for room on the disk", error))?;
    let bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(match bytes {
        PUT_BYTES.. => Room::Enough,
        DELETE_BYTES.. => Room::Tight,
        _ => Room::None,
    })
}
