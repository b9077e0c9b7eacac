//! Why a row is not as wished.

use serde::{Deserialize, Serialize};

/// A row that is not as wished carries one of these. `since_ms` is kept while `code` stays the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Reason {
    /// A stable word for programs, for example `image_pull_failed`.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// What would unblock it; a command where there is one. May be empty.
    #[serde(rename = "try", default)]
    pub remedy: String,
    /// Milliseconds since the Unix epoch at which this code began.
    #[serde(default)]
    pub since_ms: u64,
    /// True while the product is working on it by itself: a step on the way, not a fault.
    #[serde(default)]
    pub transient: bool,
}

impl Reason {
    /// A fault: something is wrong and `remedy` says what would mend it.
    pub fn fault(code: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), remedy: remedy.into(), since_ms: 0, transient: false }
    }

    /// A step on the way.
    pub fn waiting(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), remedy: String::new(), since_ms: 0, transient: true }
    }

    /// The same reason but for the time it began.
    pub fn same(&self, other: &Reason) -> bool {
        self.code == other.code
            && self.message == other.message
            && self.remedy == other.remedy
            && self.transient == other.transient
    }
}
