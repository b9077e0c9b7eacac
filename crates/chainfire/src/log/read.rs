//! Entries from the disk, checked again.

use std::io;
use std::sync::Arc;

use super::fault::corrupt_io;
use super::format::{self, Flaw, Kind};
use super::index::{Run, Segment};
use super::medium::Pace;
use super::shared::{Plan, Shared};
use super::tail::Entry;

/// Read at once, so that small entries do not take a call each.
const WINDOW_BYTES: usize = 256 * 1024;

/// What `plan` says, in order.
pub async fn entries(shared: &Arc<Shared>, plan: Plan) -> io::Result<Vec<Entry>> {
    let Plan { disk, memory } = plan;
    let mut entries = match shared.pace {
        _ if disk.is_empty() => Vec::with_capacity(memory.len()),
        Pace::Memory => runs(&disk)?,
        Pace::Disk => {
            let read = tokio::task::spawn_blocking(move || runs(&disk)).await;
            read.unwrap_or_else(|error| Err(io::Error::other(error)))?
        }
    };
    entries.extend(memory.iter().map(|kept| kept.entry.clone()));
    Ok(entries)
}

/// May wait for the disk.
pub fn runs(runs: &[Run]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for run in runs {
        let mut window = Window { segment: &run.segment, offset: 0, bytes: Vec::new() };
        let end = run.end_offset as usize;
        for (index, offset) in (run.first..).zip(&run.offsets) {
            entries.push(window.entry(index, *offset as usize, end)?);
        }
    }
    Ok(entries)
}

/// A stretch of a segment.
struct Window<'a> {
    segment: &'a Segment,
    offset: usize,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn entry(&mut self, index: u64, offset: usize, run_end: usize) -> io::Result<Entry> {
        let sequence = self.segment.sequence;
        let damaged = |what: &str| corrupt_io(&self.segment.path, offset, what);
        let known = offset.checked_sub(self.offset).and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let end = match format::head(known, sequence, offset) {
            Some(end) => end,
            None => {
                self.load(offset, (run_end - offset).min(WINDOW_BYTES))?;
                format::head(&self.bytes, sequence, offset).ok_or_else(|| damaged("a record is damaged"))?
            }
        };
        if end as u64 > self.segment.bytes {
            return Err(damaged("a record is damaged"));
        }
        if end > self.offset + self.bytes.len() {
            self.load(offset, end - offset)?;
        }
        let record = match format::read(&self.bytes[offset - self.offset..], sequence, offset) {
            Ok(record) if record.kind == Some(Kind::Entry) => record,
            Ok(_) | Err(Flaw::Head | Flaw::Body { .. }) => return Err(damaged("a record is damaged")),
        };
        match postcard::from_bytes::<Entry>(record.body) {
            Ok(entry) if entry.log_id.index == index => Ok(entry),
            Ok(entry) => Err(damaged(&format!("entry {} is where {index} should be", entry.log_id.index))),
            Err(error) => Err(damaged(&format!("an entry cannot be decoded: {error}"))),
        }
    }

    fn load(&mut self, offset: usize, bytes: usize) -> io::Result<()> {
        self.bytes = self.segment.read(offset, bytes)?;
        self.offset = offset;
        Ok(())
    }
}
