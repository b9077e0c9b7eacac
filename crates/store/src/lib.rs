//! The waist of Photon: one ordered key-value store, as a trait.
//!
//! Everything above keeps its truth here and nothing above knows which engine runs below. The model is etcd's:
//!
//! - every transaction that changes something takes exactly one [`Revision`], assigned in commit order, so a cursor
//!   over revisions can never skip one; a transaction that changes nothing takes none;
//! - [`Store::txn`] compares, then does one of two lists of operations, atomically, and answers once it is durable;
//! - [`Store::range`] reads at the newest revision or at any that has not been compacted;
//! - [`Store::watch`] delivers whole revisions in commit order, from any revision that has not been compacted;
//! - a lease ties keys to a life sign: when it runs out, its keys are deleted in one revision.
//!
//! ```text
//!   caller ── range ───────────────▶ rows (snapshot)
//!          ── txn ──▶ admit ──▶ apply ──▶ rows ──▶ durable ──▶ feed ──▶ watchers
//!          ── lease_* ──▶ lessor ──(ran out)──▶ apply: one revision of deletes
//! ```
//!
//! What engines share lives here as plain code without I/O: [`admit`] (is the request well formed and within the
//! limits), [`apply`] (what a transaction does to rows), [`select`] (what a range answers), [`feed`] (recent revisions
//! and who waits for them), [`lessor`] (when leases run out). [`memory::Memory`] is the engine for tests and simulation.
//! [`conformance`] is the suite that every engine passes.

pub mod admit;
pub mod apply;
pub mod conformance;
mod error;
pub mod feed;
mod kv;
mod lease;
pub mod lessor;
pub mod limits;
pub mod memory;
pub mod select;
pub mod space;
mod span;
mod store;
mod txn;
mod watch;

pub use error::Error;
pub use kv::{Key, KeyValue, Range, RangeAnswer, RangeEnd, Revision, Sort, SortBy, SortOrder, Value};
pub use lease::{Lease, LeaseId, LeaseStatus};
pub use span::Span;
pub use store::{Status, Store};
pub use txn::{Compare, CompareOp, Keep, Op, OpAnswer, Target, Txn, TxnAnswer};
pub use watch::{Advance, Batch, EventKind, WatchEvent, WatchRequest, WatchSource, Watcher};
