//! The words: ids, scopes, units, rows, events, reasons, errors, the manifest. Pure; no I/O, no clock.
//!
//! ```text
//! guest     what host and guest say to each other; the only part that PID 1 builds
//! id        prefixed ids over UUID v7: vm_01J...
//! scope     org -> project -> app -> env, as a path of ids
//! row       one thing as it is wished and as it was seen
//! event     what happened to a row; a row is the fold of its events
//! fold      the one function from events to rows
//! reason    why a row is not as wished, since when, what would unblock it
//! error     what a caller is told: code, message, hint
//! unit      memory, disk, cpu as people write them
//! manifest  vt.toml, version v1
//! ```

pub mod guest;

#[cfg(feature = "full")]
pub mod error;
#[cfg(feature = "full")]
pub mod event;
#[cfg(feature = "full")]
pub mod fold;
#[cfg(feature = "full")]
pub mod id;
#[cfg(feature = "full")]
pub mod manifest;
#[cfg(feature = "full")]
pub mod name;
#[cfg(feature = "full")]
pub mod reason;
#[cfg(feature = "full")]
pub mod row;
#[cfg(feature = "full")]
pub mod scope;
#[cfg(feature = "full")]
pub mod unit;

#[cfg(feature = "full")]
pub use self::{
    error::{Code, Error},
    event::Event,
    id::Id,
    reason::Reason,
    row::Row,
    scope::{Level, Scope},
};
