//! Watches of revisions that the feed no longer has: the log says which keys changed, the rows what they became.

use async_trait::async_trait;
use store::feed::{History, Page};
use store::limits::{HISTORY_BATCHES_MAX, HISTORY_BYTES_MAX};
use store::select::Rows;
use store::{Batch, Error, EventKind, KeyValue, Revision, Span, WatchEvent};

use super::keys;
use super::look::Look;
use super::reader::Reader;
use crate::record::{self, Traced};

/// Entries of the log that one read goes through, whether or not they are asked for.
const ENTRIES_MAX: usize = 8192;

#[async_trait]
impl History for Reader {
    async fn read(&self, span: &Span, previous: bool, from: Revision, to: Revision) -> Result<Page, Error> {
        let span = span.clone();
        self.blocking(move |view| view.read(|look| read(look, &span, previous, from, to))).await
    }
}

fn read(look: &Look<'_>, span: &Span, previous: bool, from: Revision, to: Revision) -> Result<Page, Error> {
    let compacted = look.compacted();
    if from < compacted {
        return Err(Error::Compacted { compacted });
    }
    let mut batches: Vec<Batch> = Vec::new();
    let mut bytes = 0;
    for (entries, item) in look.log(from, to).enumerate() {
        let (key, sealed) = item?;
        let (revision, chunk) = keys::log_of(&key)?;
        // Only between revisions, so that none is cut in two.
        let full = batches.len() >= HISTORY_BATCHES_MAX || bytes >= HISTORY_BYTES_MAX || entries >= ENTRIES_MAX;
        if chunk == 0 && full {
            return Ok(Page { batches, next: revision });
        }
        for change in record::trace(revision, &sealed)? {
            if !span.contains(&change.key) {
                continue;
            }
            let event = event(look, change, revision, previous)?;
            bytes += event.kv.key.len() + event.kv.value.len();
            match batches.last_mut().filter(|batch| batch.revision == revision) {
                Some(batch) => batch.events.push(event),
                None => batches.push(Batch { revision, events: vec![event] }),
            }
        }
    }
    Ok(Page { batches, next: to.next() })
}

fn event(look: &Look<'_>, change: Traced, revision: Revision, previous: bool) -> Result<WatchEvent, Error> {
    let previous = if previous { look.row_before(&change.key, change.before, revision)? } else { None };
    let kv = match change.kind {
        EventKind::Put => look.row_put_at(&change.key, revision)?,
        EventKind::Delete => KeyValue { key: change.key, mod_revision: revision, ..KeyValue::default() },
    };
    Ok(WatchEvent { kind: change.kind, kv, previous })
}
