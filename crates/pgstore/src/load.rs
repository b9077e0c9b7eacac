//! Reading what requests will look at, in one statement.

use store::{KeyValue, LeaseId, Revision};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::Failure;
use crate::sql;
use crate::wanted::Wanted;

/// Parameters of [`sql::LOAD`].
pub struct Stretches {
    starts: Vec<Vec<u8>>,
    ends: Vec<Vec<u8>>,
    past_starts: Vec<Vec<u8>>,
    past_ends: Vec<Vec<u8>>,
    past_at: Vec<i64>,
}

impl Stretches {
    pub fn of(wanted: &Wanted) -> Self {
        let (starts, ends) = wanted.present.iter().map(|(start, end)| (start.to_vec(), end.to_vec())).unzip();
        let past = wanted.past.iter().map(|(span, _)| sql::stretch(&span.start, &span.end));
        let (past_starts, past_ends) = past.map(|(start, end)| (start.to_vec(), end.to_vec())).unzip();
        let past_at = wanted.past.iter().map(|(_, at)| sql::number(at.0)).collect();
        Self { starts, ends, past_starts, past_ends, past_at }
    }

    pub fn parameters(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.starts, &self.ends, &self.past_starts, &self.past_ends, &self.past_at]
    }
}

/// What [`sql::LOAD`] and its companions found.
#[derive(Default, Debug)]
pub struct Loaded {
    pub newest: Revision,
    pub compacted: Revision,
    /// Each with its place in its revision.
    pub present: Vec<(KeyValue, i32)>,
    /// One for each of [`Wanted::past`], in key order.
    pub past: Vec<Vec<KeyValue>>,
    /// Id, time to live in seconds, whether it ran out.
    pub leases: Vec<(LeaseId, u64, bool)>,
}

impl Loaded {
    pub fn of(rows: &[Row], wanted: &Wanted) -> Result<Self, Failure> {
        let head = sql::first(rows)?;
        let mut loaded = Self {
            newest: sql::revision(head, 0)?,
            compacted: sql::revision(head, 1)?,
            past: vec![Vec::new(); wanted.past.len()],
            ..Self::default()
        };
        for row in rows {
            let Some(kv) = sql::key_value(row, 3)? else { continue };
            match sql::column::<i64>(row, 2)? {
                // Counted from 1.
                number @ 1.. => match loaded.past.get_mut(number as usize - 1) {
                    Some(past) => past.push(kv),
                    None => return Err(Failure::broken("a row of a past that was not asked for")),
                },
                _ => loaded.present.push((kv, sql::column(row, 9)?)),
            }
        }
        for past in &mut loaded.past {
            past.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        }
        Ok(loaded)
    }
}
