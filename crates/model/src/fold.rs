//! The one function from events to rows.

use crate::event::{Change, Event, SCHEMA_VERSION};
use crate::row::{PHASE_NEW, Row};

/// An event that does not follow from the row before it. The row is quarantined; others go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    #[error("event {event} has schema version {found}; this program reads up to {SCHEMA_VERSION}")]
    SchemaVersion { event: String, found: u32 },
    #[error("event {event} has version {found} where {expected} comes next")]
    Gap { event: String, found: u64, expected: u64 },
    #[error("event {event} ({verb}) needs a row, and there is none")]
    NoRow { event: String, verb: &'static str },
    #[error("event {event} creates a row that exists")]
    Exists { event: String },
    #[error("event {event} reports on generation {found} of a row at generation {generation}")]
    FutureGeneration { event: String, found: u64, generation: u64 },
}

/// The row after `event`; `None` when the event deletes it.
pub fn apply(row: Option<&Row>, event: &Event) -> Result<Option<Row>, FoldError> {
    let id = || event.id.to_string();
    if event.schema_version > SCHEMA_VERSION {
        return Err(FoldError::SchemaVersion { event: id(), found: event.schema_version });
    }
    let expected = row.map_or(1, |row| row.version + 1);
    if event.version != expected {
        return Err(FoldError::Gap { event: id(), found: event.version, expected });
    }
    if let Change::Created { name, spec, owner, claims } = &event.payload {
        if row.is_some() {
            return Err(FoldError::Exists { event: id() });
        }
        return Ok(Some(Row {
            id: event.row.clone(),
            kind: event.kind.clone(),
            name: name.clone(),
            scope: event.scope.clone(),
            version: 1,
            generation: 1,
            spec: spec.clone(),
            observed_generation: 0,
            phase: PHASE_NEW.to_owned(),
            reason: None,
            status: serde_json::Value::Null,
            node: None,
            owner: owner.clone(),
            claims: claims.clone(),
            deleting_since_ms: None,
            created_ms: event.time_ms,
            updated_ms: event.time_ms,
            correlation: event.correlation.clone(),
            last_event: event.id.clone(),
        }));
    }
    let Some(row) = row else {
        return Err(FoldError::NoRow { event: id(), verb: event.payload.verb() });
    };
    let mut next = row.clone();
    next.version = event.version;
    next.updated_ms = event.time_ms;
    next.correlation = event.correlation.clone();
    next.last_event = event.id.clone();
    match &event.payload {
        Change::Created { .. } => unreachable!("handled above"),
        Change::SpecSet { spec } => {
            next.spec = spec.clone();
            next.generation += 1;
        }
        Change::Assigned { node } => next.node = Some(node.clone()),
        Change::Observed { generation, phase, reason, status } => {
            if *generation > row.generation {
                let found = *generation;
                return Err(FoldError::FutureGeneration { event: id(), found, generation: row.generation });
            }
            // An old generation's report tells what was seen but never settles a newer wish: `current()` compares.
            next.observed_generation = *generation;
            next.phase.clone_from(phase);
            next.reason.clone_from(reason);
            next.status = status.clone();
        }
        Change::DeleteRequested => next.deleting_since_ms = Some(event.time_ms),
        Change::Deleted => return Ok(None),
    }
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Actor, ActorKind};
    use crate::{Id, Reason, Scope};
    use serde_json::json;

    fn event(version: u64, payload: Change) -> Event {
        Event {
            id: Id::from_bits("ev", u128::from(version)),
            sequence: 0,
            time_ms: 1000 + version,
            actor: Actor { kind: ActorKind::System, id: "test".into() },
            scope: Scope::CLOUD,
            request_id: Id::from_bits("req", 1),
            idempotency_key: None,
            kind: "org".into(),
            row: Id::from_bits("org", 1),
            version,
            event_type: format!("org.{}", payload.verb()),
            schema_version: 1,
            correlation: Id::from_bits("req", 1),
            causation: None,
            payload,
        }
    }

    fn created() -> Event {
        event(1, Change::Created { name: "acme".into(), spec: json!({}), owner: None, claims: vec![] })
    }

    #[test]
    fn a_row_is_the_fold_of_its_events() {
        let row = apply(None, &created()).unwrap().unwrap();
        let row = apply(Some(&row), &event(2, Change::SpecSet { spec: json!({"a": 1}) })).unwrap().unwrap();
        assert_eq!((row.generation, row.version, row.current()), (2, 2, false));
        let seen = |generation| Change::Observed { generation, phase: "ready".into(), reason: None, status: json!({}) };
        let old = apply(Some(&row), &event(3, seen(1))).unwrap().unwrap();
        assert!(!old.settled(), "a report for an old generation never makes a newer wish ready");
        let new = apply(Some(&row), &event(3, seen(2))).unwrap().unwrap();
        assert!(new.settled());
        assert_eq!(apply(Some(&new), &event(4, Change::Deleted)).unwrap(), None);
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        let row = apply(None, &created()).unwrap().unwrap();
        assert!(matches!(apply(Some(&row), &created()), Err(FoldError::Gap { .. })));
        assert!(matches!(apply(Some(&row), &event(3, Change::Deleted)), Err(FoldError::Gap { .. })));
        assert!(matches!(apply(None, &event(1, Change::Deleted)), Err(FoldError::NoRow { .. })));
        let future = Change::Observed {
            generation: 2,
            phase: "x".into(),
            reason: Some(Reason::waiting("a", "b")),
            status: json!(null),
        };
        assert!(matches!(apply(Some(&row), &event(2, future)), Err(FoldError::FutureGeneration { .. })));
        let mut newer = event(2, Change::Deleted);
        newer.schema_version = 2;
        assert!(matches!(apply(Some(&row), &newer), Err(FoldError::SchemaVersion { .. })));
    }

    #[test]
    fn the_stored_form_is_stable() {
        insta::assert_json_snapshot!(created());
        insta::assert_json_snapshot!(apply(None, &created()).unwrap().unwrap());
    }
}
