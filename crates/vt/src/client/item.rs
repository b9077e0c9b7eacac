//! A row as it came, and as the model reads it.

use model::{Error, Row};
use serde_json::Value;

use crate::failure::Failure;
use crate::output::steps::Progress;

/// One row of an answer.
#[derive(Clone, Debug)]
pub struct Item {
    pub row: Row,
    /// With everything the server said, for JSON output.
    pub raw: Value,
}

impl Item {
    pub fn read(raw: Value) -> Result<Self, Failure> {
        match serde_json::from_value(raw.clone()) {
            Ok(row) => Ok(Self { row, raw }),
            Err(error) => Err(Error::internal(format!("the answer is not a row: {error}"))
                .hint("vt version   shows both versions")
                .into()),
        }
    }

    pub fn progress(&self) -> Option<Progress> {
        Progress::read(self.raw.get("progress")?)
    }

    /// A text in the status.
    pub fn status(&self, key: &str) -> Option<&str> {
        self.row.status.get(key)?.as_str().filter(|text| !text.is_empty())
    }

    pub fn status_number(&self, key: &str) -> Option<u64> {
        self.row.status.get(key)?.as_u64()
    }
}

/// A part of a list.
#[derive(Debug)]
pub struct Page {
    pub items: Vec<Item>,
    /// Where the next part begins; null at the end.
    pub next: Value,
}

impl Page {
    pub fn raw(&self) -> Vec<Value> {
        self.items.iter().map(|item| item.raw.clone()).collect()
    }
}
