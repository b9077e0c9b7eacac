//! The replicated log on disk: entries, the vote, and what is committed and purged.
//!
//! ```text
//!   append, vote, truncate, purge ──▶ tail in memory, true at once ──▶ readers
//!                                 └─▶ queue ──▶ writer: one write, one sync for all that wait ──▶ callbacks
//!   older entries ──▶ index (segment, offset) ──▶ segment, checked again
//! ```
//!
//! Everything is a record in one sequence: an entry, or a mark that says how vote, committed, purged and the end of the
//! log are from here on. So a vote is one append, a truncation is a mark with a lower end, and nothing that was written
//! is ever changed. Segments ([`format`](mod@format)) begin with a mark, so that older ones can go when their entries are
//! purged; they are named by their sequence and not by their first entry, because a truncation takes entries back.
//!
//! Tasks: one writer, a thread of its own, or a task where nothing waits for a disk ([`Pace`]). It sleeps while nothing
//! happens, but for looking for room once a second while the disk is full.
//!
//! What a power cut leaves is told from damage in [`scan`]: what was never acknowledged is cut off, anything else refuses
//! to open.

mod draft;
mod fault;
pub mod format;
mod index;
mod marks;
pub mod medium;
mod meter;
mod raft;
mod read;
mod scan;
mod shared;
mod tail;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use store::Error;

pub use self::marks::Marks;
pub use self::medium::folder::Folder;
pub use self::medium::simulated::Disk;
pub use self::medium::{Blob, Medium, Pace};
pub use self::meter::Measures;
use self::shared::Shared;
use self::writer::Writer;

/// How long after a sync it is noted that it was done, unless the next flush notes it. Notes are not synced.
pub const LAZY: Duration = Duration::from_millis(10);

/// How often room is looked for while there is none.
pub const ROOM_RETRY: Duration = Duration::from_secs(1);

/// Of one entry, roughly, far above what members propose.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Read at once for a stream or for another member, but one entry at least.
pub const STREAM_BYTES: usize = 1024 * 1024;

/// A newest segment with fewer bytes of entries, and at most a quarter full, is written anew when the log is opened.
const AGAIN_BYTES_MAX: usize = 1024 * 1024;

const SEGMENT_BYTES_MIN: u64 = 1024;

#[derive(Clone, Debug)]
pub struct Options {
    /// 0 for any. A log of another cluster is refused.
    pub cluster: u64,
    /// Length of a segment, at least 1 KiB and less than 1 GiB; one that begins with a larger entry is longer. Two of
    /// them are reserved always: one is written to, one lies ready.
    pub segment_bytes: u64,
    /// Newest entries kept in memory, roughly; what is not written yet is always kept.
    pub tail_bytes: usize,
    /// Entries that wait to be written; more callers wait for a place.
    pub queue_bytes: usize,
    /// Below this much room on the disk, [`Log::room`] tells of it.
    pub tight_bytes: u64,
    /// How long a write waits for room before the log ends with [`Error::DiskFull`].
    pub full_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: 0,
            segment_bytes: 32 * 1024 * 1024,
            tail_bytes: 8 * 1024 * 1024,
            queue_bytes: 16 * 1024 * 1024,
            tight_bytes: 64 * 1024 * 1024,
            full_patience: Duration::from_hours(1),
        }
    }
}

/// Room for more. The log gets along for a while when it is tight; what makes data larger should be refused by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    Enough,
    /// The disk is full, or nearly. What is reserved takes another segment of entries and votes.
    Tight,
    /// Nothing can be written; what was asked waits, and goes on by itself when there is room.
    Full,
}

/// A log at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    pub marks: Marks,
    /// The first entry that is there; the next one when there is none.
    pub first: u64,
    /// The index of the next entry.
    pub next: u64,
    /// Kept in memory, roughly.
    pub tail_bytes: usize,
    pub segments: usize,
    /// Taken on the disk, with what is reserved.
    pub disk_bytes: u64,
    pub room: Room,
    /// Why nothing is written any more.
    pub failed: Option<String>,
}

/// The log; clones share it. It ends when it is closed or the last clone is dropped, which waits for nothing.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    _handle: Arc<Handle>,
}

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.start_closing();
    }
}

impl Log {
    /// Opens the folder, made when it is missing. Reads all of it; see [`Log::open_on`].
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        Self::open_on(Folder::open(dir)?, options)
    }

    /// Reads the whole log and begins a new segment. For [`Pace::Memory`] this is called on a runtime.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when something that may have been acknowledged is damaged: nothing is changed then.
    /// [`Error::FormatUnknown`] for the log of a later version. [`Error::DiskFull`] when there is no room for a segment.
    pub fn open_on(medium: impl Medium, mut options: Options) -> Result<Self, Error> {
        options.segment_bytes = options.segment_bytes.clamp(SEGMENT_BYTES_MIN, 1 << 30);
        let medium: Arc<dyn Medium> = Arc::new(medium);
        let again_bytes_max = AGAIN_BYTES_MAX.min(options.segment_bytes as usize / 4);
        let mut recovered = scan::recover(&*medium, options.cluster, again_bytes_max)?;
        let shared = Arc::new(Shared::new(medium.clone(), options, &mut recovered));
        let writer = Writer::begin(shared.clone(), medium.clone(), recovered).map_err(|failure| failure.to_error())?;
        let log = Self { _handle: Arc::new(Handle(shared.clone())), shared };
        match medium.pace() {
            Pace::Memory => drop(tokio::spawn(writer.run())),
            Pace::Disk => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let runtime = runtime.map_err(|error| Error::storage("start the log's writer", error))?;
                let thread = std::thread::Builder::new().name("chainfire log".into());
                let thread = thread.spawn(move || runtime.block_on(writer.run()));
                thread.map_err(|error| Error::storage("start the log's writer", error))?;
            }
        }
        Ok(log)
    }

    /// Writes and syncs what waits, and lets go of the folder. Everything asked later is refused; readers go on.
    ///
    /// # Errors
    /// Why the log had ended before, or what kept it from ending well.
    pub async fn close(&self) -> Result<(), Error> {
        self.shared.start_closing();
        let mut ended = self.shared.ended.subscribe();
        // It cannot be gone: this log has it.
        let _ = ended.wait_for(|ended| *ended).await;
        match self.shared.failure() {
            Some(failure) if !failure.is_closed() => Err(failure.to_error()),
            _ => Ok(()),
        }
    }

    pub fn room(&self) -> Room {
        let room = self.shared.with(|core| core.room);
        let free = self.shared.free_bytes();
        if room == Room::Enough && free.is_some_and(|free| free < self.shared.options.tight_bytes) {
            Room::Tight
        } else {
            room
        }
    }

    pub fn facts(&self) -> Facts {
        let failed = self.shared.failure().filter(|failure| !failure.is_closed());
        let room = self.room();
        self.shared.with(|core| Facts {
            marks: core.marks.clone(),
            first: core.begin,
            next: core.marks.next(),
            tail_bytes: core.tail.bytes(),
            segments: core.segments,
            disk_bytes: core.disk_bytes,
            room,
            failed: failed.map(|failure| failure.message().to_owned()),
        })
    }

    pub fn measures(&self) -> Measures {
        self.shared.meter.read()
    }
}
