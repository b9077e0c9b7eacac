//! ChainFire: Photon's own store.
//!
//! [`Embedded`] is the engine inside the process, durable on one disk, without set-up. [`Member`](member::Member) is one
//! of several that are one store together; [`door`] lets clients of etcd in.
//!
//! ```text
//!   Embedded:  txn, lease ──▶ queue ──▶ writer: apply all that wait ──▶ one commit, one fsync ──▶ feed ──▶ answers
//!
//!   Member:    txn, lease ──▶ proposer ──▶ Raft ──▶ log: one fsync ──▶ quorum ──▶ state ──▶ feed ──▶ answers
//!
//!   both:      range ───────▶ snapshot of the newest state (never waits for a writer)
//!              watch ───────▶ feed, or the log on disk for what the feed no longer has
//! ```
//!
//! Tasks of [`Embedded`]: one writer thread, one tokio task that waits for leases to run out. Both sleep while nothing
//! happens and nothing is written then. Those of a member: see [`member`].

pub mod command;
pub mod door;
pub mod embedded;
mod fault;
pub mod log;
pub mod member;
mod record;
pub mod state;

pub use embedded::{Embedded, Options};
