//! The log in the words of openraft.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;

use futures::{Stream, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::marks::{Id, Vote};
use super::tail::Entry;
use super::{Log, STREAM_BYTES, read};
use crate::member::types::Types;

impl Log {
    /// As many entries of the range as fit into `bytes_max`, but one at least.
    async fn some(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let plan = self.shared.plan(range, bytes_max)?;
        read::entries(&self.shared, plan).await
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.some(range, usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.with(|core| core.marks.vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.some(start..end, STREAM_BYTES).await
    }

    /// A stretch at a time, so that a member that is far behind does not hold all it misses in memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.clone();
        let range = self.shared.clip(range);
        stream::try_unfold((log, range, VecDeque::new()), |(log, mut range, mut ready)| async move {
            if ready.is_empty() && !range.is_empty() {
                ready.extend(log.some(range.clone(), STREAM_BYTES).await?);
                range.start += ready.len() as u64;
                if ready.is_empty() {
                    return Err(io::Error::other(format!("entry {} of the log is gone while it is read", range.start)));
                }
            }
            Ok(ready.pop_front().map(|entry| (entry, (log, range, ready))))
        })
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        Ok(self.shared.with(|core| LogState { last_purged_log_id: core.marks.purged, last_log_id: core.marks.last }))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.shared.save_vote(*vote).await
    }

    async fn save_committed(&mut self, committed: Option<Id>) -> io::Result<()> {
        self.shared.save_committed(committed)
    }

    async fn read_committed(&mut self) -> io::Result<Option<Id>> {
        Ok(self.shared.with(|core| core.marks.committed))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared.append(entries.into_iter().collect(), callback).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<Id>) -> io::Result<()> {
        self.shared.truncate(last_log_id)
    }

    async fn purge(&mut self, log_id: Id) -> io::Result<()> {
        self.shared.purge(log_id)
    }
}
