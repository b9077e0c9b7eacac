//! Why a row is in the state it is in: what led here, and what blocks it.

use std::collections::BTreeSet;

use model::{Error, Event, Id, Reason, Row};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::command::Door;
use crate::log;
use crate::rows::Table;

/// Causes that are followed back from the last event.
const CHAIN_MAX: usize = 32;
/// Events of the row itself that are shown.
const HISTORY_MAX: usize = 12;

/// A row that is in the way, with its reason.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Blocker {
    pub id: Id,
    pub kind: String,
    pub name: String,
    pub phase: String,
    pub reason: Reason,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    pub row: Row,
    /// True when the row and everything it is made of are as wished.
    pub settled: bool,
    /// Faults first, then steps on the way; each in order of how long it has lasted.
    pub blockers: Vec<Blocker>,
    /// From the first cause to the row's last event.
    pub chain: Vec<Event>,
    /// The row's own latest events, oldest first.
    pub history: Vec<Event>,
}

/// The row, what it owns and what lives in its scope, with their reasons.
fn blockers(row: &Row, table: &Table, opens: bool) -> Vec<Blocker> {
    let mut seen = BTreeSet::from([row.id.clone()]);
    let mut found = vec![row.clone()];
    let mut place = 0;
    while place < found.len() {
        let id = found[place].id.clone();
        for owned in table.owned_by(&id) {
            if seen.insert(owned.id.clone()) {
                found.push((**owned).clone());
            }
        }
        place += 1;
    }
    if opens {
        let inner = row.inner_scope();
        found.extend(table.below(&inner).filter(|row| !seen.contains(&row.id)).map(|row| (**row).clone()));
    }
    let mut blockers: Vec<Blocker> = found
        .into_iter()
        .filter_map(|row| {
            let reason = row.reason.clone().or_else(|| {
                let waiting = !row.current() || row.deleting();
                waiting.then(|| {
                    let what = if row.deleting() { "being removed" } else { "not looked at since the last change" };
                    let since_ms = row.deleting_since_ms.unwrap_or(row.updated_ms);
                    Reason { since_ms, ..Reason::waiting("converging", what) }
                })
            })?;
            Some(Blocker { id: row.id, kind: row.kind, name: row.name, phase: row.phase, reason })
        })
        .collect();
    blockers.sort_by_key(|blocker| (blocker.reason.transient, blocker.reason.since_ms));
    blockers
}

/// Explains a row. `table` must hold it.
pub async fn explain(door: &Door, table: &Table, row: &Row) -> Result<Why, Error> {
    let store = &**door.store();
    let own = log::of_row(store, &row.scope, &row.id).await?;
    let mut chain: Vec<Event> = own.last().cloned().into_iter().collect();
    // Causes lie in the log of the rows of the same tenant: the widest scope this row belongs to.
    let tenant = row.scope.at(model::Level::Org).unwrap_or_default();
    let pool = log::newest(store, &tenant, 5_000).await?.events;
    while let Some(cause) = chain.first().and_then(|event| event.causation.clone()) {
        if chain.len() >= CHAIN_MAX {
            break;
        }
        let Some(event) = own.iter().chain(&pool).find(|event| event.id == cause) else { break };
        if chain.iter().any(|known| known.id == event.id) {
            break;
        }
        chain.insert(0, event.clone());
    }
    let opens = door.registry().get(&row.kind).is_some_and(|kind| kind.contract().opens.is_some());
    let blockers = blockers(row, table, opens);
    let history = own[own.len().saturating_sub(HISTORY_MAX)..].to_vec();
    Ok(Why { settled: blockers.is_empty(), row: row.clone(), blockers, chain, history })
}
