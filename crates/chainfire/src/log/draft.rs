//! Orders become bytes. Nothing is written here, so a write that found no room can be done again as it was.

use std::collections::VecDeque;

use super::format::{self, HEADER_BYTES, Header, Kind, Mark};
use super::marks::Marks;
use super::tail::Entry;

/// No mark takes more in a segment.
pub const MARK_BYTES_MAX: usize = 128;

/// Bytes for one place of one segment.
pub struct Part {
    /// Begins a segment; the bytes begin with this header then.
    pub fresh: Option<Header>,
    pub offset: usize,
    pub buffer: Vec<u8>,
    pub changes: Vec<Change>,
}

/// What writing a part changes in the index, in order.
pub enum Change {
    Placed {
        index: u64,
        offset: u32,
        end_offset: u32,
        epoch: u64,
    },
    /// Entries are there from `first` to before `end` only.
    Bounded {
        first: u64,
        end: u64,
    },
}

/// The end of the log, with what is drafted counted in.
pub struct Draft {
    /// Of a new segment, if nothing makes it longer.
    segment_bytes: u64,
    cluster: u64,
    sequence: u64,
    /// Of the segment.
    bytes: u64,
    offset: usize,
    sum: u64,
    marks: Marks,
    /// What the newest mark of this segment says was synced.
    noted: usize,
    parts: VecDeque<Part>,
}

impl Draft {
    /// Drafts the beginning of the segment `sequence`.
    pub fn new(
        segment_bytes: u64,
        cluster: u64,
        sequence: u64,
        previous: (u64, u64),
        marks: Marks,
    ) -> postcard::Result<Self> {
        let mut draft = Self {
            segment_bytes,
            cluster,
            sequence,
            bytes: 0,
            offset: 0,
            sum: 0,
            marks,
            noted: 0,
            parts: VecDeque::new(),
        };
        draft.begin(sequence, previous, 0)?;
        Ok(draft)
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    pub fn noted(&self) -> usize {
        self.noted
    }

    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// What is to be written, in this order.
    pub fn take(&mut self) -> VecDeque<Part> {
        std::mem::take(&mut self.parts)
    }

    /// # Errors
    /// The entry is larger than a record can be; it left no trace.
    pub fn entry(&mut self, entry: &Entry, epoch: u64) -> postcard::Result<()> {
        let mut put = self.encode(Kind::Entry, entry)?;
        if put.end as u64 > self.bytes {
            let record_bytes = put.end - put.offset;
            self.part().buffer.truncate(put.start);
            self.rotate(record_bytes)?;
            put = self.encode(Kind::Entry, entry)?;
        }
        let id = entry.log_id;
        // What was asked has no hole, and this is what was asked.
        debug_assert!(self.marks.clone().append(id).is_ok(), "{id:?} after {:?}", self.marks);
        self.marks.last = Some(id);
        self.accept(
            &put,
            Change::Placed { index: id.index, offset: put.offset as u32, end_offset: put.end as u32, epoch },
        );
        Ok(())
    }

    /// `synced`: an offset in the segment that is written at the moment.
    pub fn mark(&mut self, marks: Marks, synced: usize) -> postcard::Result<()> {
        self.marks = marks;
        if (self.offset + MARK_BYTES_MAX) as u64 > self.bytes {
            return self.rotate(0);
        }
        // A new segment knows nothing of the offsets of the one before.
        let fresh = self.parts.back().is_some_and(|part| part.fresh.is_some());
        self.note(if fresh { 0 } else { synced })
    }

    fn note(&mut self, synced: usize) -> postcard::Result<()> {
        let put = self.encode(Kind::Mark, &Mark { synced: synced as u32, marks: self.marks.clone() })?;
        self.noted = synced;
        self.accept(&put, Change::Bounded { first: self.marks.first(), end: self.marks.next() });
        Ok(())
    }

    /// A segment that has room for a record of `record_bytes` after its first mark. `previous` is the end of the one
    /// before and its sum.
    fn begin(&mut self, sequence: u64, previous: (u64, u64), record_bytes: usize) -> postcard::Result<()> {
        let bytes = self.segment_bytes.max((HEADER_BYTES + MARK_BYTES_MAX + record_bytes) as u64);
        let (previous_end, previous_sum) = previous;
        let header = Header { sequence, bytes, cluster: self.cluster, previous_end, previous_sum };
        let (buffer, sum) = header.encode();
        self.parts.push_back(Part { fresh: Some(header), offset: 0, buffer: buffer.to_vec(), changes: Vec::new() });
        (self.sequence, self.bytes, self.offset, self.sum) = (sequence, bytes, buffer.len(), sum);
        self.note(0)
    }

    fn rotate(&mut self, record_bytes: usize) -> postcard::Result<()> {
        self.begin(self.sequence + 1, (self.offset as u64, self.sum), record_bytes)
    }

    fn part(&mut self) -> &mut Part {
        if self.parts.is_empty() {
            self.parts.push_back(Part { fresh: None, offset: self.offset, buffer: Vec::new(), changes: Vec::new() });
        }
        self.parts.back_mut().expect("it was pushed if there was none")
    }

    /// At the end of the newest part, within the segment or not, and not accepted yet.
    fn encode<T: serde::Serialize>(&mut self, kind: Kind, body: &T) -> postcard::Result<Put> {
        let (sequence, previous_sum) = (self.sequence, self.sum);
        let part = self.part();
        let start = part.buffer.len();
        match format::put(&mut part.buffer, part.offset, sequence, previous_sum, kind, body) {
            Ok(sum) => Ok(Put { start, offset: part.offset + start, end: part.offset + part.buffer.len(), sum }),
            Err(error) => {
                part.buffer.truncate(start);
                Err(error)
            }
        }
    }

    fn accept(&mut self, put: &Put, change: Change) {
        self.offset = put.end;
        self.sum = put.sum;
        self.part().changes.push(change);
    }
}

struct Put {
    /// In the part's buffer.
    start: usize,
    /// In the segment.
    offset: usize,
    end: usize,
    sum: u64,
}
