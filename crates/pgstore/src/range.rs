//! A range as one statement. The database chooses the rows, sorts them for the limit and counts; what the answer is then
//! made of is [`store::select`]'s to say, as for every engine.

use std::ops::ControlFlow;

use store::select::{self, Row, Rows, Visit};
use store::{Error, KeyValue, Range, RangeAnswer, RangeEnd, Revision, Sort, SortBy, SortOrder, Span};
use tokio_postgres::types::ToSql;

use crate::error::Failure;
use crate::shared::Shared;
use crate::sql::{self, Source};

/// Up to so many revisions are gone through one by one when only what they changed is asked for.
const RECENT_MAX: u64 = 4096;

/// `range` is admitted.
pub async fn answer(shared: &Shared, range: &Range) -> Result<RangeAnswer, Error> {
    shared.usable()?;
    let known = shared.feed.newest();
    let at = range.revision.filter(|at| *at != Revision::ZERO);
    let source = source(range, at, known);
    let Sort { by, order } = range.sort.unwrap_or_default();
    let text = sql::range(source, by, order);
    let (start, end) = sql::stretch(&range.start, &range.end);
    let bound = |bound: Option<Revision>, none: u64| sql::number(bound.map_or(none, |revision| revision.0));
    let (mod_least, mod_most) = (bound(range.min_mod_revision, 0), bound(range.max_mod_revision, u64::MAX));
    let (create_least, create_most) = (bound(range.min_create_revision, 0), bound(range.max_create_revision, u64::MAX));
    // What was created since was also changed since.
    let mod_least = if source == Source::Recent { mod_least.max(create_least) } else { mod_least };
    let counted = range.count_only || !range.uncounted;
    let with_values = !range.keys_only || by == SortBy::Value;
    // One row more tells whether there is more.
    let limit = match (range.count_only, range.limit) {
        (true, _) => Some(0),
        (false, 0) => None,
        (false, limit) => Some(sql::number(limit as u64).saturating_add(1)),
    };
    let as_of = sql::number(at.unwrap_or_default().0);
    let (start, end) = (&start[..], &end[..]);
    let mut parameters: Vec<&(dyn ToSql + Sync)> =
        vec![&start, &end, &mod_least, &mod_most, &create_least, &create_most, &counted, &with_values, &limit];
    if source == Source::Past {
        parameters.push(&as_of);
    }
    let found = shared.pool.ask("read a range", &text, &parameters).await?;
    let (fetched, count) = Fetched::of(&found).map_err(|failure| failure.reading("read a range"))?;
    shared.check(known, fetched.newest)?;
    let mut answer = select::answer(&fetched, range, fetched.newest)?;
    if let Some(count) = count {
        answer.count = count;
    }
    Ok(answer)
}

fn source(range: &Range, at: Option<Revision>, known: Revision) -> Source {
    let since = range.min_create_revision.max(range.min_mod_revision);
    match (at, since) {
        (Some(_), _) => Source::Past,
        (None, Some(since))
            if range.uncounted && range.end != RangeEnd::Single && since.0.saturating_add(RECENT_MAX) >= known.0 =>
        {
            Source::Recent
        }
        (None, _) => Source::Present,
    }
}

/// The rows that were asked for, as of the revision that was asked for.
struct Fetched {
    newest: Revision,
    compacted: Revision,
    /// In key order.
    rows: Vec<KeyValue>,
}

impl Fetched {
    fn of(found: &[tokio_postgres::Row]) -> Result<(Self, Option<u64>), Failure> {
        let head = sql::first(found)?;
        let (newest, compacted) = (sql::revision(head, 0)?, sql::revision(head, 1)?);
        let count: Option<i64> = sql::column(head, 2)?;
        let mut rows = Vec::with_capacity(found.len());
        for row in found {
            rows.extend(sql::key_value(row, 3)?);
        }
        rows.sort_unstable_by(|a: &KeyValue, b| a.key.cmp(&b.key));
        Ok((Self { newest, compacted, rows }, count.map(|count| count as u64)))
    }
}

impl Rows for Fetched {
    fn newest(&self) -> Revision {
        self.newest
    }

    fn compacted(&self) -> Revision {
        self.compacted
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        Ok(self.rows.iter().find(|kv| kv.key == key).cloned())
    }

    fn visit(&self, _span: &Span, _at: Option<Revision>, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        let mut rows = self.rows.iter();
        let mut visit = |kv: &KeyValue| visit(Row::of(kv));
        let _: ControlFlow<()> = match order {
            SortOrder::Ascend => rows.try_for_each(&mut visit),
            SortOrder::Descend => rows.rev().try_for_each(&mut visit),
        };
        Ok(())
    }
}
