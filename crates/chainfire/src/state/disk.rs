//! One ordered tree of bytes, with versions: all that the state asks of what lies below it.

use lsm_tree::Slice;
use store::Error;

use super::seen::Seq;

/// Ascending; from behind, descending.
pub type Items = Box<dyn DoubleEndedIterator<Item = Result<(Slice, Slice), Error>> + Send>;

/// Sees everything that was written, published or not.
pub const EVERYTHING: Seq = Seq::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Files, or what would be files.
    pub disk_bytes: u64,
    /// Changes that are in memory alone.
    pub memory_bytes: u64,
}

/// Writes come from one thread at a time. What was written since the last [`Disk::seal`] is lost in a crash, as a whole;
/// what was sealed is lost or kept as a whole, and never kept when something sealed before it is lost.
pub trait Disk: Send + Sync + 'static {
    /// The newest value below `at`.
    fn get(&self, key: &[u8], at: Seq) -> Result<Option<Slice>, Error>;

    /// Keys from `from`, included, up to `to`, excluded, with their newest values below `at`.
    fn range(&self, from: &[u8], to: &[u8], at: Seq) -> Items;

    /// As [`Disk::range`], but holds what it needs by itself: the moment may be closed.
    fn frozen(&self, from: &[u8], to: &[u8], at: Seq) -> Items;

    /// Higher than any before.
    fn next_seq(&self) -> Seq;

    fn put(&self, key: Slice, value: Slice, seq: Seq);

    fn remove(&self, key: Slice, seq: Seq);

    /// Enough was written to make a seal worth while.
    fn is_full(&self) -> bool;

    /// Closes what was written so far, which comes up to entry `index` of the log, and has it made durable soon.
    fn seal(&self, index: u64);

    /// Writing should wait a moment; [`Disk::relieve`] does.
    fn is_pressed(&self) -> bool;

    /// Blocks until what was sealed is not too far ahead of what is durable, for a bounded time.
    fn relieve(&self);

    /// Blocks until everything sealed is durable. Errors: [`Error::DiskFull`], [`Error::Storage`]; it is tried again.
    fn sync(&self) -> Result<(), Error>;

    fn usage(&self) -> Usage;

    /// Another state is in use from now on: the files may go when this is dropped.
    fn retire(&self);

    /// Why the disk does not take what was sealed, while it does not.
    fn problem(&self) -> Option<Error>;
}
