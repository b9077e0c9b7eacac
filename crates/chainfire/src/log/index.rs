//! Where entries lie, as far as they were written.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::medium::Blob;

/// A segment that is open.
pub struct Segment {
    pub sequence: u64,
    pub blob: Arc<dyn Blob>,
    /// For messages.
    pub path: PathBuf,
    /// The length of the file.
    pub bytes: u64,
}

impl Segment {
    /// Exactly `bytes`, fewer only at the end of the file.
    pub fn read(&self, offset: usize, bytes: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; bytes];
        let got = self.blob.read_at(offset as u64, &mut out)?;
        out.truncate(got);
        Ok(out)
    }
}

/// Entries one after the other, in one segment. Four bytes for each of them.
pub struct Run {
    pub segment: Arc<Segment>,
    pub first: u64,
    pub offsets: Vec<u32>,
    /// The last one lies before this offset.
    pub end_offset: u32,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }

    /// Keeps the first `count` entries.
    pub fn shorten(&mut self, count: usize) {
        if let Some(offset) = self.offsets.get(count) {
            self.end_offset = *offset;
            self.offsets.truncate(count);
        }
    }

    /// How many of the first entries lie within the first `bytes`.
    pub fn fitting(&self, bytes: usize) -> usize {
        let Some(start) = self.offsets.first() else { return 0 };
        let ends = self.offsets[1..].iter().chain([&self.end_offset]);
        ends.take_while(|end| (**end - start) as usize <= bytes).count()
    }

    /// Roughly, on the disk.
    pub fn bytes(&self) -> usize {
        self.offsets.first().map_or(0, |start| (self.end_offset - start) as usize)
    }
}

/// Ascending and without a hole.
#[derive(Default)]
pub struct Index {
    runs: VecDeque<Run>,
}

impl Index {
    pub fn push(&mut self, segment: &Arc<Segment>, index: u64, offset: u32, end_offset: u32) {
        match self.runs.back_mut() {
            Some(run) if run.end() == index && run.segment.sequence == segment.sequence => {
                run.offsets.push(offset);
                run.end_offset = end_offset;
            }
            _ => {
                let segment = segment.clone();
                self.runs.push_back(Run { segment, first: index, offsets: vec![offset], end_offset });
            }
        }
    }

    /// Entries from `end` on are gone.
    pub fn truncate(&mut self, end: u64) {
        while let Some(run) = self.runs.back_mut() {
            if run.first >= end {
                self.runs.pop_back();
            } else {
                run.shorten((end - run.first) as usize);
                return;
            }
        }
    }

    /// Entries below `first` may be forgotten.
    pub fn purge(&mut self, first: u64) {
        while self.runs.front().is_some_and(|run| run.end() <= first) {
            self.runs.pop_front();
        }
    }

    pub fn first(&self) -> Option<u64> {
        self.runs.front().map(|run| run.first)
    }

    /// The oldest segment that has entries which are still wanted.
    pub fn oldest_sequence(&self) -> Option<u64> {
        self.runs.front().map(|run| run.segment.sequence)
    }

    /// Where the entries of a segment lie, those from `first` on.
    pub fn locate_in(&self, sequence: u64, first: u64) -> Vec<Run> {
        let of = |run: &&Run| run.segment.sequence == sequence;
        let bounds = self.runs.iter().filter(of).map(|run| run.first.max(first)..run.end());
        bounds.flat_map(|wanted| self.locate(wanted)).collect()
    }

    /// Where the entries of `wanted` lie, as far as they are known.
    pub fn locate(&self, wanted: Range<u64>) -> Vec<Run> {
        let from = self.runs.partition_point(|run| run.end() <= wanted.start);
        let mut found = Vec::new();
        // A range that ends before it starts has nothing either.
        for run in self.runs.range(from..).take_while(|run| run.first.max(wanted.start) < wanted.end) {
            let first = run.first.max(wanted.start);
            let end = run.end().min(wanted.end);
            let (from, to) = ((first - run.first) as usize, (end - run.first) as usize);
            let end_offset = run.offsets.get(to).copied().unwrap_or(run.end_offset);
            let offsets = run.offsets[from..to].to_vec();
            found.push(Run { segment: run.segment.clone(), first, offsets, end_offset });
        }
        found
    }
}
