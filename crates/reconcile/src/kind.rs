//! What a kind says of itself and does; the registry of all kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use model::{Error, Id, Level, Row, Scope};
use schemars::Schema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::command::Door;
use crate::rows::Table;
use crate::stream::Stream;
use crate::turn::{Report, Turn};

/// Which loop takes the turns of a kind's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The control plane.
    Control,
    /// The node that the scheduler assigned the row to.
    AssignedNode,
    /// Every node, each for itself.
    EveryNode,
}

/// A stream that a kind's rows offer.
#[derive(Clone, Copy, Debug)]
pub struct StreamContract {
    /// Last segment of its path: `logs`, `exec`.
    pub name: &'static str,
    pub about: &'static str,
    /// True when the caller sends too: carried by a WebSocket. Otherwise lines of JSON in a plain response.
    pub duplex: bool,
    /// The query parameters it reads, each with what it means.
    pub parameters: &'static [(&'static str, &'static str)],
}

/// A column of the kind's table on a terminal.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    /// A JSON pointer into the row.
    pub pointer: &'static str,
}

/// What the registry, the API and the CLI know of a kind.
#[derive(Debug)]
pub struct Contract {
    /// Singular, as people type it: `vm`.
    pub name: &'static str,
    /// The API's collection: `vms`.
    pub plural: &'static str,
    /// Prefix of its ids.
    pub prefix: &'static str,
    pub about: &'static str,
    /// The levels at which rows of it may live.
    pub levels: &'static [Level],
    /// The level of the scope that a row of it opens, for org, project, app and env.
    pub opens: Option<Level>,
    pub place: Place,
    /// What callers of the API may do besides reading.
    pub create: bool,
    pub set: bool,
    pub delete: bool,
    pub spec: fn() -> Schema,
    pub status: fn() -> Schema,
    pub phases: &'static [&'static str],
    pub columns: &'static [Column],
    pub streams: &'static [StreamContract],
    /// A right spec, for the documentation and for tests.
    pub example: fn() -> Value,
}

/// What someone wants a row to be.
#[derive(Debug)]
pub struct Wish<'a> {
    pub id: &'a Id,
    pub scope: &'a Scope,
    pub name: &'a str,
    /// As the caller sent it.
    pub spec: Value,
    /// The row as it is, when it is changed rather than created.
    pub before: Option<&'a Row>,
}

/// A wish that was found good.
#[derive(Debug, Default)]
pub struct Admitted {
    /// With defaults filled in and secrets taken out.
    pub spec: Value,
    /// Names that this row alone may hold, besides its own.
    pub claims: Vec<String>,
    /// Encrypted content for `sealed/`, with its version.
    pub sealed: Option<(u64, Vec<u8>)>,
    /// The row's name, for kinds that number their rows instead of asking for a name.
    pub name: Option<String>,
}

impl Admitted {
    pub fn spec(spec: &impl serde::Serialize) -> Result<Self, Error> {
        let spec = serde_json::to_value(spec).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Self { spec, ..Self::default() })
    }
}

/// What a kind may look at while it decides on a wish.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    pub door: &'a Door,
    pub now_ms: u64,
}

/// What a row wants from a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub memory_bytes: u64,
    /// Thousandths of a cpu.
    pub cpu_milli: u64,
}

/// A resource kind: one folder, one line in the registry.
#[async_trait]
pub trait Kind: Send + Sync + 'static {
    fn contract(&self) -> &Contract;

    /// Decides on a wish before anything changes: validates, fills in defaults, pins what must not move later.
    /// Errors name the field and the fix.
    async fn admit(&self, cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error>;

    /// Decides whether a row may be asked to go, given the rows as they are.
    fn admit_delete(&self, _row: &Row, _rows: &Table) -> Result<(), Error> {
        Ok(())
    }

    /// What the row wants from a node; `None` for kinds that no scheduler places.
    fn demand(&self, _row: &Row) -> Option<Demand> {
        None
    }

    /// What the row offers to demands, for the kind whose rows are nodes; `None` when it takes no more.
    fn capacity(&self, _row: &Row) -> Option<Demand> {
        None
    }

    /// One turn: observe, plan, act, observe. Most kinds hand this to [`crate::turn::drive`].
    async fn turn(&self, turn: &Turn) -> Result<Report, Error>;

    /// Called when a row of this place is gone for good, so that memory about it can go too.
    fn forget(&self, _id: &Id) {}

    /// Opens one of the contract's streams.
    async fn stream(&self, _row: &Row, name: &str, _parameters: Value) -> Result<Stream, Error> {
        Err(Error::not_found(format!("stream {name}")))
    }

    /// What is going on right now, for people who wait; never stored. Shape: `{what, done, total, unit}`.
    fn progress(&self, _row: &Row) -> Option<Value> {
        None
    }
}

/// All kinds of one cloud.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: Arc<BTreeMap<&'static str, Arc<dyn Kind>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.kinds.keys()).finish()
    }
}

impl Registry {
    /// # Panics
    /// When two kinds share a name, a plural or an id prefix.
    pub fn new(kinds: Vec<Arc<dyn Kind>>) -> Self {
        let mut map: BTreeMap<&'static str, Arc<dyn Kind>> = BTreeMap::new();
        for kind in kinds {
            let contract = kind.contract();
            let clash = map.values().any(|other| {
                let other = other.contract();
                other.name == contract.name || other.plural == contract.plural || other.prefix == contract.prefix
            });
            assert!(!clash, "kind {} is listed twice", contract.name);
            map.insert(contract.name, kind);
        }
        Self { kinds: Arc::new(map) }
    }

    /// In order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Kind>> {
        self.kinds.values()
    }

    pub fn get(&self, name: &str) -> Option<&Arc<dyn Kind>> {
        self.kinds.get(name)
    }

    pub fn by_plural(&self, plural: &str) -> Option<&Arc<dyn Kind>> {
        self.iter().find(|kind| kind.contract().plural == plural)
    }

    /// The kind whose rows open scopes of `level`.
    pub fn opening(&self, level: Level) -> Option<&Arc<dyn Kind>> {
        self.iter().find(|kind| kind.contract().opens == Some(level))
    }
}

/// Reads a kind's own form out of `value`; an error names the field below `root`, and the nearest right one.
pub fn read<T: DeserializeOwned>(root: &str, value: &Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { root.to_owned() } else { format!("{root}.{path}") };
        Error::invalid(field.clone(), format!("`{field}`: {}", error.inner()))
    })
}
