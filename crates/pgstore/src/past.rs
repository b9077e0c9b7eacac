//! Changes as the table has them: for watchers that go back further than the feed, and for the feed itself.

use std::sync::Arc;

use async_trait::async_trait;
use store::feed::{History, Page};
use store::limits::HISTORY_BYTES_MAX;
use store::{Batch, Error, EventKind, KeyValue, Revision, Span, WatchEvent};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::Failure;
use crate::shared::Shared;
use crate::sql;

/// Revisions that one statement goes through, whether or not they touch what is asked for.
const REVISIONS_MAX: u64 = 1024;

/// The history as watches see it.
pub struct Past(pub Arc<Shared>);

/// One statement's worth of changes.
pub struct Question {
    first: i64,
    last: i64,
    start: Vec<u8>,
    end: Vec<u8>,
    bytes: i64,
    previous: bool,
}

#[derive(Debug)]
pub struct Found {
    pub newest: Revision,
    pub compacted: Revision,
    pub page: Page,
}

impl Question {
    pub fn new(span: &Span, previous: bool, from: Revision, to: Revision) -> Self {
        let (start, end) = sql::stretch(&span.start, &span.end);
        let last = sql::number(to.0.min(from.0.saturating_add(REVISIONS_MAX - 1)));
        let bytes = HISTORY_BYTES_MAX as i64;
        Self { first: sql::number(from.0), last, start: start.into(), end: end.into(), bytes, previous }
    }

    /// Of [`sql::HISTORY`].
    pub fn parameters(&self) -> [&(dyn ToSql + Sync); 6] {
        [&self.first, &self.last, &self.start, &self.end, &self.bytes, &self.previous]
    }

    pub fn found(&self, rows: &[Row]) -> Result<Found, Failure> {
        let head = sql::first(rows)?;
        let (newest, compacted) = (sql::revision(head, 0)?, sql::revision(head, 1)?);
        let mut batches: Vec<Batch> = Vec::new();
        let mut bytes = 0;
        for row in rows {
            let Some(kv) = sql::key_value(row, 2)? else { continue };
            bytes += kv.key.len() + kv.value.len();
            let revision = kv.mod_revision;
            // Only a deletion has no version.
            let event = if kv.version == 0 {
                let kv = KeyValue { key: kv.key, mod_revision: revision, ..KeyValue::default() };
                WatchEvent { kind: EventKind::Delete, kv, previous: sql::key_value(row, 8)? }
            } else {
                WatchEvent { kind: EventKind::Put, kv, previous: sql::key_value(row, 8)? }
            };
            match batches.last_mut().filter(|batch| batch.revision == revision) {
                Some(batch) => batch.events.push(event),
                None => batches.push(Batch { revision, events: vec![event] }),
            }
        }
        let next = match batches.last() {
            // The statement may have stopped here because of the bytes.
            Some(last) if bytes as i64 >= self.bytes => last.revision.next(),
            // What is asked for may lie ahead of what there is.
            _ => Revision(self.last as u64).min(newest).next().max(Revision(self.first as u64)),
        };
        Ok(Found { newest, compacted, page: Page { batches, next } })
    }
}

#[async_trait]
impl History for Past {
    async fn read(&self, span: &Span, previous: bool, from: Revision, to: Revision) -> Result<Page, Error> {
        const ACT: &str = "read the history";
        self.0.usable()?;
        let question = Question::new(span, previous, from, to);
        let rows = self.0.pool.ask(ACT, &sql::HISTORY, &question.parameters()).await?;
        let found = question.found(&rows).map_err(|failure| failure.reading(ACT))?;
        if from < found.compacted {
            return Err(Error::Compacted { compacted: found.compacted });
        }
        Ok(found.page)
    }
}
