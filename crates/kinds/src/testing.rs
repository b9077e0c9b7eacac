//! Rows for tables in tests.

use model::{Id, Row, Scope};
use serde_json::Value;

pub fn cloud() -> Scope {
    Scope::CLOUD
}

/// A settled row of `kind` number `bits` at `scope`.
pub fn row(scope: &Scope, kind: &str, bits: u128) -> Row {
    Row {
        id: Id::from_bits(kind, bits),
        kind: kind.to_owned(),
        name: format!("{kind}-{bits}"),
        scope: scope.clone(),
        version: 1,
        generation: 1,
        spec: Value::Null,
        observed_generation: 1,
        phase: "ready".to_owned(),
        reason: None,
        status: Value::Null,
        node: None,
        owner: None,
        claims: Vec::new(),
        deleting_since_ms: None,
        created_ms: 0,
        updated_ms: 0,
        correlation: Id::from_bits("req", 1),
        last_event: Id::from_bits("ev", 1),
    }
}
