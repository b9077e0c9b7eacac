//! Reading a log again from its beginning: what is whole, what a power cut tore, what is damaged.
//!
//! Every segment but the last was synced as a whole before the next one was named, so there any flaw is damage. In the
//! last one, what a mark says was synced is whole or damaged. Beyond that, one or a few writes were under way, or were
//! done and nobody noted it, and the flaw may be a tear: sectors that never reached the disk. A segment is zeros before
//! it is written to, and a sector is written whole or not at all, so a tear shows: where the first record that is not
//! whole lies, some sector has nothing but zeros from there on. A flaw without one is damage.
//!
//! ```text
//!   flaw ─▶ below what a mark behind it says was synced? ─▶ corrupt
//!        ─▶ its sectors were all written?                ─▶ corrupt
//!        ─▶ else it was never acknowledged               ─▶ cut off, and all behind it
//! ```
//!
//! What cannot be known: whether sectors of zeros at the very end are missing from a write that was never acknowledged,
//! or were taken away later. A note that a sync was done follows within [`super::LAZY`], and reaches the disk when the
//! kernel writes it back or with the next sync. So a disk that turns sectors into zeros, and all notes behind them too,
//! takes away unseen what came after; one that lies about a sync does so. A bit that flips does not.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use store::Error;

use super::fault::{corrupt, opening};
use super::format::{self, ALIGN, Flaw, HEADER_BYTES, Header, HeaderFlaw, Kind, Mark, SECTOR_BYTES};
use super::index::{Index, Run, Segment};
use super::marks::{Id, Marks};
use super::medium::Medium;
use super::read;
use super::tail::Entry;

/// What a folder held.
#[derive(Default)]
pub struct Recovered {
    pub marks: Marks,
    pub index: Index,
    /// Oldest first, all that stay.
    pub segments: Vec<Arc<Segment>>,
    /// Of the segment that is written next. It takes the place of one with the same sequence.
    pub sequence: u64,
    /// The end of the last of `segments` and its sum.
    pub previous: (u64, u64),
    /// Entries of the segment that is replaced; the index ends before them, the marks after them.
    pub again: Vec<Entry>,
    /// The newest entry before those.
    pub before: Option<Id>,
    /// Segments that nothing refers to any more: a purge was cut short.
    pub forgotten: Vec<String>,
}

/// No log gets that far, and one entry more is still a number.
const INDEX_MAX: u64 = u64::MAX / 2;

pub fn name(sequence: u64) -> String {
    format!("{sequence:016x}.log")
}

fn sequence(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    (name == self::name(sequence)).then_some(sequence)
}

struct Opened {
    segment: Arc<Segment>,
    header: Header,
    header_sum: u64,
}

/// Takes the longest stretch of segments that ends with the newest; a gap before it is where a purge was cut short.
///
/// A newest segment that has no more than `again_bytes_max` of entries is to be written anew, so that restarts do not
/// pile up segments; otherwise it is left as it is.
pub fn recover(medium: &dyn Medium, cluster: u64, again_bytes_max: usize) -> Result<Recovered, Error> {
    let names = medium.names().map_err(|error| opening("list the log's folder", error))?;
    let mut names: BTreeMap<u64, String> =
        names.into_iter().filter_map(|name| Some((sequence(&name)?, name))).collect();
    let Some(newest) = names.keys().next_back().copied() else { return Ok(Recovered::default()) };
    let mut oldest = newest;
    while oldest > 0 && names.contains_key(&(oldest - 1)) {
        oldest -= 1;
    }
    let kept = names.split_off(&oldest);
    let opened = kept.values().map(|name| open(medium, name, cluster)).collect::<Result<Vec<_>, _>>()?;
    let mut replay = Replay::default();
    let mut ends = Vec::with_capacity(opened.len());
    for (nth, this) in opened.iter().enumerate() {
        ends.push(replay.segment(this, opened.get(nth + 1))?);
    }
    if replay.missing_below > replay.marks.first() {
        let what = format!(
            "the log goes on from entry {}, and the segments that have the entries from {} on are missing",
            replay.missing_below,
            replay.marks.first(),
        );
        return Err(corrupt(&opened[0].segment.path, HEADER_BYTES, &what));
    }
    // Noted before its entry was written, and only the note survived.
    if replay.marks.committed > replay.marks.last {
        replay.marks.committed = replay.marks.last;
    }
    let Replay { marks, mut index, .. } = replay;
    let (Some(last), Some(end)) = (opened.last(), ends.last()) else { return Ok(Recovered::default()) };
    let mut recovered = Recovered { forgotten: names.into_values().collect(), ..Recovered::default() };
    let runs = index.locate_in(last.header.sequence, marks.first());
    if runs.iter().map(Run::bytes).sum::<usize>() <= again_bytes_max {
        let read = |runs: &[Run]| read::runs(runs).map_err(|error| opening("read the log", error));
        recovered.again = read(&runs)?;
        let first = recovered.again.first().map_or(marks.next(), |entry| entry.log_id.index);
        index.truncate(first);
        let before = read(&index.locate(marks.first().max(first.saturating_sub(1))..first))?;
        recovered.before = before.first().map(|entry| entry.log_id).or(marks.purged);
        recovered.sequence = last.header.sequence;
        recovered.previous = (last.header.previous_end, last.header.previous_sum);
    } else {
        end.secure(&last.segment).map_err(|error| opening("sync the log", error))?;
        let next = last.header.sequence.checked_add(1);
        recovered.sequence = next.ok_or_else(|| corrupt(&last.segment.path, 0, "the segments have no next number"))?;
        recovered.previous = (end.offset as u64, end.sum);
        recovered.before = marks.last;
    }
    let older = opened.iter().filter(|opened| opened.header.sequence < recovered.sequence);
    recovered.segments = older.map(|opened| opened.segment.clone()).collect();
    recovered.marks = marks;
    recovered.index = index;
    Ok(recovered)
}

fn open(medium: &dyn Medium, name: &str, cluster: u64) -> Result<Opened, Error> {
    let path = medium.path(name);
    let failed = |error| opening("open a segment of the log", error);
    let blob = medium.open(name).map_err(failed)?;
    let length = blob.bytes().map_err(failed)?;
    let mut start = [0; HEADER_BYTES];
    let got = blob.read_at(0, &mut start).map_err(failed)?;
    let (header, header_sum) = match Header::decode(&start[..got]) {
        Ok(decoded) => decoded,
        Err(HeaderFlaw::Format(found)) => {
            return Err(Error::FormatUnknown { path, found: u64::from(found), known: u64::from(format::FORMAT) });
        }
        Err(HeaderFlaw::Damaged) => return Err(corrupt(&path, 0, "the segment's header is damaged")),
    };
    if name != self::name(header.sequence) {
        return Err(corrupt(&path, 0, &format!("this is segment {}, under another name", header.sequence)));
    }
    if cluster != 0 && header.cluster != 0 && header.cluster != cluster {
        return Err(corrupt(&path, 0, &format!("it belongs to cluster {:x} and not to {cluster:x}", header.cluster)));
    }
    if !(HEADER_BYTES as u64..=u64::from(u32::MAX)).contains(&header.bytes) {
        return Err(corrupt(&path, 0, "the segment has a length that none can have"));
    }
    if length < header.bytes {
        return Err(corrupt(
            &path,
            length as usize,
            &format!("the file ends, it was made with {} bytes", header.bytes),
        ));
    }
    let segment = Arc::new(Segment { sequence: header.sequence, blob, path, bytes: header.bytes });
    Ok(Opened { segment, header, header_sum })
}

/// Where a segment's records end.
struct End {
    offset: usize,
    sum: u64,
    /// What lies before is known to be on the disk.
    synced: usize,
}

impl End {
    /// What a failed sync left in the kernel's cache looks written and is not: written again, it is synced for sure.
    fn secure(&self, segment: &Segment) -> io::Result<()> {
        let bytes = segment.read(self.synced, self.offset - self.synced)?;
        segment.blob.write_at(self.synced as u64, &bytes)?;
        segment.blob.sync()
    }
}

#[derive(Default)]
struct Replay {
    marks: Marks,
    index: Index,
    /// The first segment's first mark was read: what came before it is known.
    begun: bool,
    /// Entries below lie in segments that are gone, as far as they are not cut off or purged.
    missing_below: u64,
}

impl Replay {
    fn segment(&mut self, this: &Opened, next: Option<&Opened>) -> Result<End, Error> {
        let segment = &this.segment;
        let damaged = |offset, what: &str| corrupt(&segment.path, offset, what);
        let bytes = segment.read(0, segment.bytes as usize);
        let bytes = bytes.map_err(|error| opening("read a segment of the log", error))?;
        if (bytes.len() as u64) < segment.bytes {
            return Err(damaged(bytes.len(), "the file ends while it is read"));
        }
        let until = next.map(|next| next.header.previous_end);
        let mut end = End { offset: HEADER_BYTES, sum: this.header_sum, synced: 0 };
        loop {
            if until == Some(end.offset as u64) {
                break;
            }
            let flaw = match format::read(&bytes[end.offset..], segment.sequence, end.offset) {
                Ok(record) if record.previous_sum == end.sum => {
                    let offset = end.offset;
                    let change = match record.kind {
                        Some(Kind::Entry) => self.entry(segment, offset, record.end, record.body),
                        Some(Kind::Mark) => {
                            self.mark(record.body, offset).map(|noted| end.synced = end.synced.max(noted))
                        }
                        None => Err("a record is of an unknown kind".into()),
                    };
                    change.map_err(|what| damaged(offset, &what))?;
                    // The first mark was synced before the segment got its name.
                    if offset == HEADER_BYTES {
                        end.synced = record.end;
                    }
                    (end.offset, end.sum) = (record.end, record.sum);
                    continue;
                }
                Ok(_) => return Err(damaged(end.offset, "a record does not follow the one before it")),
                Err(flaw) => flaw,
            };
            if until.is_some() || end.offset == HEADER_BYTES {
                return Err(damaged(end.offset, "a record is damaged"));
            }
            if let ControlFlow::Break(what) = torn(&bytes, segment.sequence, end.offset, flaw) {
                return Err(damaged(end.offset, &what));
            }
            break;
        }
        if next.is_some_and(|next| next.header.previous_sum != end.sum) {
            return Err(damaged(end.offset, "the next segment follows another one"));
        }
        Ok(end)
    }

    fn entry(&mut self, segment: &Arc<Segment>, offset: usize, end: usize, body: &[u8]) -> Result<(), String> {
        let (id, _) =
            postcard::take_from_bytes::<Id>(body).map_err(|error| format!("an entry is malformed: {error}"))?;
        if !self.begun {
            return Err("the segment does not begin with a mark".into());
        }
        let index = id.index;
        if index > INDEX_MAX {
            return Err(format!("{index} is no entry"));
        }
        self.marks.append(id).map_err(|hole| format!("entry {index} is where {} should be", hole.next))?;
        self.index.push(segment, index, offset as u32, end as u32);
        Ok(())
    }

    /// How far the segment is known to have been synced.
    fn mark(&mut self, body: &[u8], offset: usize) -> Result<usize, String> {
        let mark: Mark = postcard::from_bytes(body).map_err(|error| format!("a mark is malformed: {error}"))?;
        let ids = [&mark.marks.committed, &mark.marks.purged, &mark.marks.last];
        if ids.into_iter().flatten().any(|id| id.index > INDEX_MAX) {
            return Err("a mark names an entry that is none".into());
        }
        if self.begun {
            let mut marks = self.marks.clone();
            if let Some(purged) = mark.marks.purged {
                marks.purge(purged);
            }
            marks.truncate(mark.marks.last);
            if (&marks.purged, &marks.last) != (&mark.marks.purged, &mark.marks.last) {
                return Err("a mark contradicts what comes before it".into());
            }
        } else {
            self.missing_below = mark.marks.next();
            self.begun = true;
        }
        self.marks = mark.marks;
        self.missing_below = self.missing_below.min(self.marks.next());
        self.index.truncate(self.marks.next());
        self.index.purge(self.marks.first());
        let synced = mark.synced as usize;
        if synced > offset {
            return Err("a mark knows of what comes after it".into());
        }
        Ok(synced)
    }
}

/// Breaks with what is wrong when the flaw at `offset` is not what a power cut leaves.
fn torn(bytes: &[u8], sequence: u64, offset: usize, flaw: Flaw) -> ControlFlow<String> {
    for at in (offset + ALIGN..bytes.len()).step_by(ALIGN) {
        if format::head(&bytes[at..], sequence, at).is_some()
            && let Ok(record) = format::read(&bytes[at..], sequence, at)
            && record.kind == Some(Kind::Mark)
            && postcard::from_bytes::<Mark>(record.body).is_ok_and(|mark| mark.synced as usize > offset)
        {
            return ControlFlow::Break(format!("a record is damaged that was synced: the mark at byte {at} says so"));
        }
    }
    let unwritten = |from: usize| {
        let to = (from + 1).next_multiple_of(SECTOR_BYTES).min(bytes.len());
        is_zero(&bytes[from..to])
    };
    if offset >= bytes.len() || unwritten(offset) {
        return ControlFlow::Continue(());
    }
    let missing = match flaw {
        Flaw::Head => false,
        Flaw::Body { end } if end > bytes.len() => false,
        Flaw::Body { end } => {
            let first = (offset + 1).next_multiple_of(SECTOR_BYTES);
            (first..end).step_by(SECTOR_BYTES).any(|from| is_zero(&bytes[from..end.min(from + SECTOR_BYTES)]))
        }
    };
    if missing {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break("a record is damaged, and not by a power cut".into())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
