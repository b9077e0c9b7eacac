//! Proves that rows equal the fold of the log: folds every event again and compares.

use std::collections::BTreeMap;

use model::{Error, Event, Id, Row, fold};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{Range, Store};

use crate::keys;
use crate::log;
use crate::rows::from_store;

/// What a replay found.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    pub revision: u64,
    pub events: u64,
    pub rows: u64,
    /// Rows that differ from their fold, are missing, or should not be there; each with what is wrong.
    pub differences: Vec<Difference>,
    /// Rows whose events could not be applied; they stay as they last were.
    pub quarantined: Vec<Difference>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    pub row: String,
    pub what: String,
}

/// Reads log and rows at one revision, folds the log and compares. Changes nothing.
pub async fn replay(store: &dyn Store) -> Result<Replay, Error> {
    let logged = store.range(Range::prefix(keys::LOG)).await.map_err(from_store)?;
    let range = Range::prefix(keys::ROWS).at(logged.revision);
    let stored = store.range(range).await.map_err(from_store)?;
    let mut out = Replay { revision: logged.revision.0, ..Replay::default() };
    let mut histories: BTreeMap<Id, Vec<Event>> = BTreeMap::new();
    for item in &logged.items {
        out.events += 1;
        match log::read(&item.value, item.create_revision) {
            Ok(event) => histories.entry(event.row.clone()).or_default().push(event),
            Err(error) => out.quarantined.push(difference(String::from_utf8_lossy(&item.key), error)),
        }
        if item.version != 1 {
            let what = "an event was written more than once";
            out.differences.push(difference(String::from_utf8_lossy(&item.key), what));
        }
    }
    let mut folded: BTreeMap<Id, Row> = BTreeMap::new();
    for (id, events) in &mut histories {
        events.sort_by_key(|event| event.version);
        match events.iter().try_fold(None, |row: Option<Row>, event| fold::apply(row.as_ref(), event)) {
            Ok(Some(row)) => {
                folded.insert(id.clone(), row);
            }
            Ok(None) => {}
            Err(error) => out.quarantined.push(difference(id, error)),
        }
    }
    for item in &stored.items {
        out.rows += 1;
        let Ok(row) = serde_json::from_slice::<Row>(&item.value) else {
            out.quarantined.push(difference(String::from_utf8_lossy(&item.key), "the row cannot be read"));
            continue;
        };
        match folded.remove(&row.id) {
            Some(fold) if fold == row => {}
            Some(_) => out.differences.push(difference(&row.id, "the row differs from the fold of its events")),
            None if out.quarantined.iter().any(|q| q.row == row.id.as_str()) => {}
            None => out.differences.push(difference(&row.id, "the row has no events that make it")),
        }
    }
    out.differences.extend(folded.keys().map(|id| difference(id, "the log makes this row, and it is not there")));
    Ok(out)
}

fn difference(row: impl std::fmt::Display, what: impl std::fmt::Display) -> Difference {
    Difference { row: row.to_string(), what: what.to_string() }
}
