//! The newest entries, decoded, in memory.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use openraft::EntryPayload;
use openraft::type_config::alias::EntryOf;
use store::admit;

use crate::command::Request;
use crate::member::types::Types;

pub type Entry = EntryOf<Types>;

/// What an entry or a request costs in memory beside its keys and values, roughly.
const OVERHEAD_BYTES: usize = 128;

pub struct Kept {
    pub entry: Entry,
    /// Roughly what it takes, in memory or on the disk.
    pub bytes: usize,
}

impl Kept {
    pub fn new(entry: Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Normal(proposal) => proposal.requests.iter().map(request_bytes).sum(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        };
        Self { entry, bytes: OVERHEAD_BYTES + payload }
    }
}

fn request_bytes(request: &Request) -> usize {
    let content = match request {
        Request::Txn { txn, .. } => admit::bytes(txn),
        Request::System { rows, .. } => {
            rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, bytes::Bytes::len)).sum()
        }
        Request::Grant { .. } | Request::Revoke(_) | Request::Compact(_) => 0,
    };
    OVERHEAD_BYTES + content
}

/// Without a hole; ends with the newest entry of the log.
#[derive(Default)]
pub struct Tail {
    first: u64,
    entries: VecDeque<Arc<Kept>>,
    bytes: usize,
}

impl Tail {
    /// Nothing is in memory, and the next entry is `next`.
    pub fn starting(next: u64) -> Self {
        Self { first: next, ..Self::default() }
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, kept: Arc<Kept>) {
        if self.entries.is_empty() {
            self.first = kept.entry.log_id.index;
        }
        self.bytes += kept.bytes;
        self.entries.push_back(kept);
    }

    pub fn truncate(&mut self, end: u64) {
        while self.end() > end
            && let Some(kept) = self.entries.pop_back()
        {
            self.bytes -= kept.bytes;
        }
        self.first = self.first.min(end);
    }

    /// Entries below `first` are gone, and so may be all.
    pub fn purge(&mut self, first: u64) {
        while self.first < first && self.forget().is_some() {}
        self.first = self.first.max(first);
    }

    /// Forgets the oldest entries that are also on the disk, those below `written`, until no more than `bytes_max` are
    /// left.
    pub fn shrink(&mut self, written: u64, bytes_max: usize) {
        while self.bytes > bytes_max && self.first < written && self.forget().is_some() {}
    }

    fn forget(&mut self) -> Option<()> {
        let kept = self.entries.pop_front()?;
        self.bytes -= kept.bytes;
        self.first += 1;
        Some(())
    }

    /// What of `wanted` is in memory.
    pub fn range(&self, wanted: Range<u64>) -> impl Iterator<Item = &Arc<Kept>> {
        let from = wanted.start.saturating_sub(self.first).min(self.entries.len() as u64) as usize;
        let to = wanted.end.saturating_sub(self.first).min(self.entries.len() as u64) as usize;
        self.entries.range(from..to.max(from))
    }
}
