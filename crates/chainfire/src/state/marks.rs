//! How far the state has come: what is said of it as a whole.

use std::sync::Arc;

use openraft::type_config::alias::{LogIdOf, StoredMembershipOf};
use serde::{Deserialize, Serialize};
use store::{Error, Revision};

use super::keys;
use crate::fault::damaged;
use crate::member::types::Types;
use crate::record;

/// Of keys, records and marks.
pub const FORMAT: u32 = 1;

pub type LogId = LogIdOf<Types>;
pub type Membership = StoredMembershipOf<Types>;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Marks {
    pub format: u32,
    /// The last entry of the log that is in the state.
    pub applied: Option<LogId>,
    pub membership: Arc<Membership>,
    pub revision: Revision,
    /// Reads below it are refused; 0 when never compacted.
    pub compacted: Revision,
    /// The last lease id that was chosen here and not by a caller.
    pub lease_last: i64,
    /// Version of the system rows.
    pub system: u64,
    /// Current rows, and the bytes of their keys and values.
    pub rows: u64,
    pub bytes: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            format: FORMAT,
            applied: None,
            membership: Arc::default(),
            revision: Revision::FIRST,
            compacted: Revision::ZERO,
            lease_last: 0,
            system: 0,
            rows: 0,
            bytes: 0,
        }
    }
}

impl Marks {
    /// 0 when nothing was applied; the first entry of a log has index 0 too, and holds the membership alone.
    pub fn index(&self) -> u64 {
        self.applied.as_ref().map_or(0, |id| id.index)
    }

    pub fn encode(&self) -> Vec<u8> {
        record::plain(&keys::marks(), &self.body())
    }

    /// Errors: [`Error::Corrupt`], [`Error::FormatUnknown`], both without a path.
    pub fn decode(sealed: &[u8]) -> Result<Self, Error> {
        Self::from_body(record::plainly(&keys::marks(), sealed)?)
    }

    pub fn body(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("marks are plain numbers and names")
    }

    pub fn from_body(body: &[u8]) -> Result<Self, Error> {
        let (format, _) = postcard::take_from_bytes::<u32>(body).map_err(|_| damaged("the marks cannot be read"))?;
        if format != FORMAT {
            let path = std::path::PathBuf::new();
            return Err(Error::FormatUnknown { path, found: u64::from(format), known: u64::from(FORMAT) });
        }
        postcard::from_bytes(body).map_err(|_| damaged("the marks cannot be read"))
    }
}
