//! What happened to a row. The log of these is the truth; rows are folds of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Id, Reason, Scope};

/// Version of [`Change`]'s form on disk. Raised when an old reader would misread a new event.
pub const SCHEMA_VERSION: u32 = 1;

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Actor {
    #[serde(rename = "type")]
    pub kind: ActorKind,
    /// The token, node or loop that acted.
    pub id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    User,
    Node,
    System,
}

/// What changed. Payloads hold no secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    Created {
        name: String,
        spec: Value,
        #[serde(default)]
        owner: Option<Id>,
        #[serde(default)]
        claims: Vec<String>,
    },
    /// A new wish; raises the generation.
    SpecSet {
        spec: Value,
    },
    /// The scheduler chose a node.
    Assigned {
        node: Id,
    },
    /// A report about a generation.
    Observed {
        generation: u64,
        phase: String,
        #[serde(default)]
        reason: Option<Reason>,
        #[serde(default)]
        status: Value,
    },
    DeleteRequested,
    Deleted,
}

impl Change {
    /// The word that follows the kind in an event's type: `vm.created`.
    pub const fn verb(&self) -> &'static str {
        match self {
            Change::Created { .. } => "created",
            Change::SpecSet { .. } => "spec_set",
            Change::Assigned { .. } => "assigned",
            Change::Observed { .. } => "observed",
            Change::DeleteRequested => "delete_requested",
            Change::Deleted => "deleted",
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Event {
    pub id: Id,
    /// The store's revision of the transaction that accepted it. Events of one command share it. 0 until read back.
    #[serde(default)]
    pub sequence: u64,
    pub time_ms: u64,
    pub actor: Actor,
    pub scope: Scope,
    pub request_id: Id,
    #[serde(default)]
    pub idempotency_key: Option<String>,
    pub kind: String,
    pub row: Id,
    /// The row's version after this event: from 1, no gaps.
    pub version: u64,
    #[serde(rename = "type")]
    pub event_type: String,
    pub schema_version: u32,
    /// The request that started it all.
    pub correlation: Id,
    /// The event that led here.
    #[serde(default)]
    pub causation: Option<Id>,
    pub payload: Change,
}
