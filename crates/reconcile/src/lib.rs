//! The loop: commands in, events and rows out, turns that make the world follow, waits that say why not yet.
//!
//! ```text
//!   Door::submit        command.rs   the only door for intent and for reports
//!     -> log + row      log.rs       the only writer: one store transaction per accepted command
//!     -> Rows           rows.rs      the rows as a table in memory, fed by a watch
//!        outage         outage.rs    the store does not answer: everything waits for it, and one task asks
//!     -> Loop           turn.rs      one turn per row: observe -> plan (pure) -> act -> observe -> report
//!     -> wait           wait.rs      is the row as wished at my generation, and if not, why not
//!        why            why.rs       the chain of events behind a row, and what blocks it
//!        replay         replay.rs    folds the log again and compares it with the rows
//! ```
//!
//! A kind implements [`Kind`] and is listed in a [`Registry`]; nothing here, in control or in the agent knows which
//! kinds there are.

pub mod command;
mod draft;
pub mod keys;
pub mod kind;
pub mod log;
pub mod outage;
pub mod replay;
pub mod rows;
pub mod stream;
pub mod turn;
pub mod wait;
pub mod why;

pub use command::{Command, Door, Origin, Receipt, Verb};
pub use kind::{Admission, Admitted, Contract, Kind, Place, Registry, Wish};
pub use outage::{Away, Outage};
pub use rows::{Rows, Table};
pub use stream::Stream;
pub use turn::{Loop, Machine, Next, Plan, Report, Turn};
