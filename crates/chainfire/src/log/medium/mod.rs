//! Where segments lie: a folder, or a simulated disk.

pub mod folder;
pub mod simulated;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Files by name, all in one place. What is done to names is durable after [`Medium::sync_names`] only, what is written
/// to a file after [`Blob::sync`] only.
pub trait Medium: Send + Sync + 'static {
    /// In no order; files of others may be among them.
    fn names(&self) -> io::Result<Vec<String>>;

    fn open(&self, name: &str) -> io::Result<Arc<dyn Blob>>;

    /// A file of `bytes` zeros that replaces one of that name. Its room is reserved, so that writing into it does not
    /// fail for want of room; [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`] when there is none,
    /// and then there is no such file. Not durable before it is synced.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Blob>>;

    /// Replaces what is there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, name: &str) -> io::Result<()>;

    fn sync_names(&self) -> io::Result<()>;

    /// Room that is left for everybody.
    fn free_bytes(&self) -> io::Result<u64>;

    /// For messages.
    fn path(&self, name: &str) -> PathBuf;

    fn pace(&self) -> Pace;

    /// How long a sync takes longer than it takes; waited for on the clock of tokio. Zero but for a simulated disk.
    fn lag(&self) -> Duration {
        Duration::ZERO
    }
}

/// Whether calls may wait for a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// They may: the writer gets a thread of its own, reads go to threads that may wait.
    Disk,
    /// They never do: the writer is a task, reads are done in place, and a paused clock of tokio rules everything.
    Memory,
}

/// A file that is written at places. Its length does not change.
pub trait Blob: Send + Sync {
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `out` from `offset`, less at the end of the file; answers how much.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// All or an error; after an error any part may have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Everything written before this call is durable when it answers well. After an error nobody knows.
    fn sync(&self) -> io::Result<()>;

    /// Gives room back: from `offset` on there are zeros only. The length stays. May do nothing.
    fn free_after(&self, offset: u64);
}

/// No room, as opposed to a broken disk.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
