//! ChainFire: Photon's own store.
//!
//! [`Embedded`] is the engine inside the process, durable on one disk, without set-up.
//!
//! ```text
//!   txn, lease ──▶ queue ──▶ writer thread: apply all that wait ──▶ one commit, one fsync ──▶ feed ──▶ answers
//!   range ───────▶ snapshot of the newest commit (never waits for the writer)
//!   watch ───────▶ feed, or the log on disk for what the feed no longer has
//! ```
//!
//! Tasks: one writer thread, one tokio task that waits for leases to run out. Both sleep while nothing happens and
//! nothing is written then.

pub mod command;
pub mod door;
pub mod embedded;
mod fault;
pub mod log;
pub mod member;
mod record;
pub mod state;

pub use embedded::{Embedded, Options};
