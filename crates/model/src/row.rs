//! A row: one thing as it is wished (spec, generation) and as it was last seen (status, phase, reason).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Id, Reason, Scope};

/// One thing of any kind. What is in `spec` and `status` is the kind's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Row {
    pub id: Id,
    pub kind: String,
    /// Unique among rows of its kind at its scope.
    pub name: String,
    pub scope: Scope,
    /// Counts the row's events, from 1, without gaps. `If-Match` compares it.
    pub version: u64,
    /// Counts changes of the spec, from 1. A report names the generation it is about.
    pub generation: u64,
    pub spec: Value,
    /// The generation that `phase`, `reason` and `status` speak of; 0 before the first report.
    pub observed_generation: u64,
    /// The kind's word for how far it is.
    pub phase: String,
    /// Present exactly while the row is not as wished.
    #[serde(default)]
    pub reason: Option<Reason>,
    #[serde(default)]
    pub status: Value,
    /// The node that realises it, where a node does.
    #[serde(default)]
    pub node: Option<Id>,
    /// The row whose plan made this one.
    #[serde(default)]
    pub owner: Option<Id>,
    /// Names that no other row may hold at the same time: host names, addresses, numbers.
    #[serde(default)]
    pub claims: Vec<String>,
    /// When removal was asked for. The row is gone once nothing is left to remove.
    #[serde(default)]
    pub deleting_since_ms: Option<u64>,
    pub created_ms: u64,
    pub updated_ms: u64,
    /// The command that started it all, and the last event here.
    pub correlation: Id,
    pub last_event: Id,
}

/// The phase of a row that nobody has reported on.
pub const PHASE_NEW: &str = "pending";

impl Row {
    pub fn deleting(&self) -> bool {
        self.deleting_since_ms.is_some()
    }

    /// The last report speaks of the present wish.
    pub fn current(&self) -> bool {
        self.observed_generation == self.generation
    }

    /// As wished: reported on at its present generation, with nothing in the way.
    pub fn settled(&self) -> bool {
        self.current() && self.reason.is_none() && !self.deleting()
    }

    /// The scope that rows below this one live at, for kinds that open a scope.
    pub fn inner_scope(&self) -> Scope {
        self.scope.child(self.id.clone())
    }
}
