//! How far an image has come.

use serde::{Deserialize, Serialize};

/// The step an image is at. `Pulling` lasts until the last layer is here; earlier layers are unpacked meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Resolving,
    Pulling,
    Unpacking,
    Building,
}

/// A step and its bytes. `total_bytes` is 0 where it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub stage: Stage,
    pub done_bytes: u64,
    pub total_bytes: u64,
}

impl Progress {
    pub const fn start() -> Self {
        Self { stage: Stage::Resolving, done_bytes: 0, total_bytes: 0 }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::start()
    }
}
