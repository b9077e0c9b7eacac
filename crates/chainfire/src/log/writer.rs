//! The one that writes.
//!
//! It takes everything that waits, in order, writes it with one write and one sync, and only then tells whoever waited.
//!
//! ```text
//!   wait ──▶ draft ──▶ write ──▶ sync ──▶ tell ──▶ give back purged segments, prepare the next one ──▶ wait
//!                        │ no room                                            LAZY later: a mark, without a sync
//!                        └──▶ wait for room, write the same again
//! ```
//!
//! A segment is made under another name, with all its room, and gets its own when it is synced: the next one lies ready
//! while the current one is filled, so votes and small records fit for a while after the disk is full. After any other
//! failure than want of room nobody knows what the disk has, and the log ends; opening it again finds out.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::draft::{Change, Draft, Part};
use super::fault::Failure;
use super::index::Segment;
use super::marks::{Id, Marks};
use super::medium::{Blob, Medium, is_full};
use super::scan::{self, Recovered};
use super::shared::{Batch, Order, Shared, What};
use super::{LAZY, ROOM_RETRY, Room};

/// The next segment while it is no part of the log yet.
const SPARE: &str = "spare";

pub struct Writer {
    shared: Arc<Shared>,
    medium: Arc<dyn Medium>,
    draft: Draft,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Arc<Segment>>,
    /// Offsets in the last segment.
    end: usize,
    synced: usize,
    spare: Option<(Arc<dyn Blob>, u64)>,
    /// No mark says this yet.
    committed: Option<Id>,
}

/// Why a write was not done.
enum Trouble {
    /// Nothing is lost, the same write may succeed later.
    Full(io::Error),
    Broken(Failure),
}

impl Trouble {
    fn of(act: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| if is_full(&error) { Self::Full(error) } else { Self::Broken(Failure::new(act, &error)) }
    }
}

fn broken(act: &'static str) -> impl Fn(io::Error) -> Trouble {
    move |error| Trouble::Broken(Failure::new(act, &error))
}

impl Writer {
    /// Begins a new segment; nothing is written to those that were found.
    pub fn begin(shared: Arc<Shared>, medium: Arc<dyn Medium>, recovered: Recovered) -> Result<Self, Failure> {
        let options = &shared.options;
        let cluster = options.cluster;
        let committed = recovered.marks.committed;
        let marks = Marks { last: recovered.before, ..recovered.marks };
        let draft = Draft::new(options.segment_bytes, cluster, recovered.sequence, recovered.previous, marks);
        let mut draft = draft.map_err(undraftable)?;
        for entry in &recovered.again {
            draft.entry(entry, 0).map_err(undraftable)?;
        }
        // They are taken away from where they lie only when all of them lie elsewhere.
        assert_eq!(draft.parts(), 1, "few entries fit into one segment");
        let sealed = recovered.segments.last().cloned();
        let segments = recovered.segments.into();
        let mut writer = Self { shared, medium, draft, segments, end: 0, synced: 0, spare: None, committed };
        for part in writer.draft.take() {
            writer.write(&part).map_err(|trouble| match trouble {
                Trouble::Full(error) => Failure::new("begin a segment", &error),
                Trouble::Broken(failure) => failure,
            })?;
        }
        if let Some(sealed) = sealed {
            sealed.blob.free_after(recovered.previous.0);
        }
        for name in recovered.forgotten {
            if let Err(error) = writer.medium.remove(&name) {
                tracing::warn!(name, %error, "a purged segment of the log cannot be removed");
            }
        }
        writer.look_after();
        Ok(writer)
    }

    /// Until the log is closed or fails.
    pub async fn run(mut self) {
        let ending = Ending(self.shared.clone());
        let failure = self.work().await;
        if !failure.is_closed() {
            tracing::error!("{}", failure.message());
        }
        // The folder's lock goes with the medium. Whoever hears of the end may open it again.
        drop(self);
        ending.0.end(failure);
    }

    async fn work(&mut self) -> Failure {
        loop {
            let batch = self.shared.next(self.patience()).await;
            self.committed = batch.committed;
            if batch.orders.is_empty() && !batch.late && !batch.closing {
                continue;
            }
            let closing = batch.closing;
            if let Err(failure) = self.batch(batch).await {
                return failure;
            }
            if closing {
                // What was written just now is noted too.
                let last = Batch { orders: Vec::new(), committed: self.committed, closing, late: false };
                return self.batch(last).await.err().unwrap_or_else(Failure::closed);
            }
        }
    }

    fn patience(&self) -> Option<Duration> {
        if self.must_note() { Some(LAZY) } else { self.spare.is_none().then_some(ROOM_RETRY) }
    }

    fn must_note(&self) -> bool {
        self.draft.noted() < self.synced || self.draft.marks().committed != self.committed
    }

    async fn batch(&mut self, batch: Batch) -> Result<(), Failure> {
        let mut sync = batch.closing && (self.must_note() || self.end > self.synced);
        let drafted = self.draft(&batch.orders, &mut sync);
        let written = match drafted {
            Ok(()) => self.perform(sync).await,
            Err(error) => Err(undraftable(error)),
        };
        for order in batch.orders {
            order.done.tell(written.as_ref().copied());
        }
        written?;
        if !batch.closing {
            self.look_after();
        }
        Ok(())
    }

    fn draft(&mut self, orders: &[Order], sync: &mut bool) -> postcard::Result<()> {
        let first_marks = matches!(orders.first(), Some(Order { what: What::Mark { .. }, .. }));
        if self.must_note() && !first_marks {
            let marks = Marks { committed: self.committed, ..self.draft.marks().clone() };
            self.draft.mark(marks, self.synced)?;
        }
        for order in orders {
            match &order.what {
                What::Append { entries, epoch } => {
                    *sync = true;
                    for kept in entries {
                        self.draft.entry(&kept.entry, *epoch)?;
                    }
                }
                What::Mark { marks, sync: wanted } => {
                    *sync |= *wanted;
                    self.draft.mark(Marks { committed: self.committed, ..marks.clone() }, self.synced)?;
                }
            }
        }
        Ok(())
    }

    /// Writes what is drafted, waiting for room when there is none.
    async fn perform(&mut self, sync: bool) -> Result<(), Failure> {
        let mut parts = self.draft.take();
        let mut waiting: Option<Instant> = None;
        while let Some(part) = parts.front() {
            // A new segment is synced as a whole, and so is the one before it.
            if part.fresh.is_some() {
                sleep_for(self.medium.lag()).await;
            }
            match self.write(part) {
                Ok(()) => {
                    parts.pop_front();
                }
                Err(Trouble::Broken(failure)) => return Err(failure),
                Err(Trouble::Full(error)) => {
                    let since = *waiting.get_or_insert_with(|| {
                        tracing::error!(%error, "the disk is full, the log waits for room");
                        Instant::now()
                    });
                    if self.shared.is_closing() || since.elapsed() >= self.shared.options.full_patience {
                        return Err(Failure::new("wait for room on the disk", &error));
                    }
                    self.shared.with(|core| core.room = Room::Full);
                    sleep(ROOM_RETRY).await;
                }
            }
        }
        if waiting.is_some() {
            tracing::warn!("there is room on the disk again, the log goes on");
        }
        if (sync || self.is_purgeable()) && self.end > self.synced {
            sleep_for(self.medium.lag()).await;
            self.sync().map_err(|error| Failure::new("sync", &error))?;
        }
        Ok(())
    }

    fn write(&mut self, part: &Part) -> Result<(), Trouble> {
        if let Some(header) = part.fresh {
            self.sync().map_err(broken("sync"))?;
            let spare = match self.spare.take() {
                Some((spare, bytes)) if bytes == header.bytes => spare,
                _ => self.medium.create(SPARE, header.bytes).map_err(Trouble::of("make a segment"))?,
            };
            let written = spare.write_at(0, &part.buffer);
            if let Err(error) = written {
                self.spare = Some((spare, header.bytes));
                return Err(Trouble::of("begin a segment")(error));
            }
            let name = scan::name(header.sequence);
            self.timed_sync(&*spare).map_err(broken("sync a new segment"))?;
            self.medium.rename(SPARE, &name).map_err(broken("name a new segment"))?;
            self.medium.sync_names().map_err(broken("sync the folder"))?;
            let path = self.medium.path(&name);
            let segment = Segment { sequence: header.sequence, blob: spare, path, bytes: header.bytes };
            self.segments.push_back(Arc::new(segment));
            (self.end, self.synced) = (part.buffer.len(), part.buffer.len());
        } else {
            self.current().blob.write_at(part.offset as u64, &part.buffer).map_err(Trouble::of("write"))?;
            self.end = part.offset + part.buffer.len();
        }
        self.publish(part);
        Ok(())
    }

    /// Readers may look for it on the disk now.
    fn publish(&self, part: &Part) {
        let segment = self.current();
        let mut entries = 0;
        self.shared.with(|core| {
            for change in &part.changes {
                match *change {
                    Change::Placed { index, offset, end_offset, epoch } => {
                        entries += 1;
                        core.index.push(segment, index, offset, end_offset);
                        if epoch == core.epoch {
                            core.written = index + 1;
                        }
                    }
                    Change::Bounded { first, end } => {
                        core.index.truncate(end);
                        core.index.purge(first);
                    }
                }
            }
            core.tail.shrink(core.written, self.shared.options.tail_bytes);
        });
        self.shared.meter.write(part.buffer.len(), entries);
    }

    fn current(&self) -> &Arc<Segment> {
        self.segments.back().expect("a log that is open has a segment")
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.end > self.synced {
            self.timed_sync(&*self.current().blob)?;
            self.synced = self.end;
        }
        Ok(())
    }

    fn timed_sync(&self, blob: &dyn Blob) -> io::Result<()> {
        let start = Instant::now();
        blob.sync()?;
        self.shared.meter.sync(start.elapsed());
        Ok(())
    }

    /// The oldest segment has nothing that is still wanted.
    fn is_purgeable(&self) -> bool {
        let oldest = self.segments[0].sequence;
        self.segments.len() > 1
            && self.shared.with(|core| core.index.oldest_sequence().is_none_or(|kept| kept > oldest))
    }

    /// What is not urgent, and may fail without harm.
    fn look_after(&mut self) {
        // The marks that say so are on the disk before anything is removed.
        while self.end == self.synced && self.is_purgeable() {
            let name = scan::name(self.segments[0].sequence);
            if let Err(error) = self.medium.remove(&name) {
                tracing::warn!(name, %error, "a purged segment of the log cannot be removed");
                break;
            }
            self.segments.pop_front();
        }
        if self.spare.is_none() {
            let bytes = self.shared.options.segment_bytes;
            match self.medium.create(SPARE, bytes) {
                Ok(spare) => self.spare = Some((spare, bytes)),
                Err(error) if is_full(&error) => {}
                Err(error) => tracing::warn!(%error, "the next segment of the log cannot be made ready"),
            }
        }
        let room = if self.spare.is_some() { Room::Enough } else { Room::Tight };
        let disk_bytes = self.segments.iter().map(|segment| segment.bytes).sum::<u64>();
        self.shared.with(|core| {
            core.room = room;
            core.segments = self.segments.len();
            core.disk_bytes = disk_bytes + self.spare.as_ref().map_or(0, |(_, bytes)| *bytes);
        });
    }
}

async fn sleep_for(lag: Duration) {
    if !lag.is_zero() {
        sleep(lag).await;
    }
}

fn undraftable(error: postcard::Error) -> Failure {
    Failure::new("encode a record", &io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// However the writer ends, by a panic too, nobody waits for it in vain.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(Failure::abandoned());
    }
}
