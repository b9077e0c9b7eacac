//! Watches of revisions that the feed no longer has: the log says which keys changed, the tables what they became.

use std::sync::Arc;

use async_trait::async_trait;
use store::feed::{History, Page};
use store::limits::{HISTORY_BATCHES_MAX, HISTORY_BYTES_MAX};
use store::{Batch, Error, EventKind, KeyValue, Revision, Span, WatchEvent};

use super::fault::Fault;
use super::shared::Shared;
use super::tables::Snapshot;
use crate::record::{self, Change};

/// Entries of the log that one read goes through, whether or not they are asked for.
const ENTRIES_MAX: usize = 8192;

/// The history as watches see it.
pub struct Past(pub Arc<Shared>);

#[async_trait]
impl History for Past {
    async fn read(&self, span: &Span, previous: bool, from: Revision, to: Revision) -> Result<Page, Error> {
        let span = span.clone();
        self.0.blocking(move |snapshot| read(snapshot, &span, previous, from, to)).await
    }
}

/// Also for the whole log, when the feed has to catch up with the disk.
pub fn read(snapshot: &Snapshot, span: &Span, previous: bool, from: Revision, to: Revision) -> Result<Page, Error> {
    if from < snapshot.compacted {
        return Err(Error::Compacted { compacted: snapshot.compacted });
    }
    let mut batches: Vec<Batch> = Vec::new();
    let mut bytes = 0;
    let log = snapshot.log.range((from.0, 0)..(to.0 + 1, 0)).fault("read the log")?;
    for (entries, entry) in log.enumerate() {
        let (at, chunk) = entry.fault("read the log")?;
        let (revision, first) = (Revision(at.value().0), at.value().1 == 0);
        // Only between revisions, so that none is cut in two.
        let full = batches.len() >= HISTORY_BATCHES_MAX || bytes >= HISTORY_BYTES_MAX || entries >= ENTRIES_MAX;
        if first && full {
            return Ok(Page { batches, next: revision });
        }
        for change in record::changed(revision, chunk.value())? {
            if !span.contains(&change.key) {
                continue;
            }
            let event = event(snapshot, change, revision, previous)?;
            bytes += event.kv.key.len() + event.kv.value.len();
            match batches.last_mut().filter(|batch| batch.revision == revision) {
                Some(batch) => batch.events.push(event),
                None => batches.push(Batch { revision, events: vec![event] }),
            }
        }
    }
    Ok(Page { batches, next: to.next() })
}

fn event(snapshot: &Snapshot, change: Change, revision: Revision, previous: bool) -> Result<WatchEvent, Error> {
    let previous = if previous { snapshot.row_before(&change.key, revision)? } else { None };
    let kv = match change.kind {
        EventKind::Put => snapshot.row_put_at(&change.key, revision)?,
        EventKind::Delete => KeyValue { key: change.key, mod_revision: revision, ..KeyValue::default() },
    };
    Ok(WatchEvent { kind: change.kind, kv, previous })
}
