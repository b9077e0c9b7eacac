//! The replicated state: what the log says, applied.
//!
//! ```text
//!   log ──▶ State::apply ──▶ one batch in the tree ──▶ visible ──▶ feed ──▶ answers
//!                                │                        ▲
//!                                └─ when full: seal       │ Reader: ranges, watches, leases, hash, copies
//!                                     └──▶ table on disk ──▶ durable index
//! ```
//!
//! Deterministic: the same entries lead to the same rows, revisions, lease ids and hashes on every member, in whatever
//! batches they come. Nothing is synced while applying: what a crash takes is applied again from the log, and the files
//! always hold the whole state after some entry, never a part of one ([`lsm`] says how).

mod book;
mod copy;
mod disk;
mod draft;
mod hash;
mod home;
mod keys;
mod look;
mod lsm;
mod machine;
mod marks;
mod memory;
mod past;
mod reader;
mod recent;
mod reclaim;
mod seen;

use std::sync::Arc;

pub use copy::{Dump, Incoming, extent, import, inspect};
pub use draft::LeaseChange;
pub use home::Place;
pub use lsm::Options as TreeOptions;
pub use machine::{Builder, State};
pub use marks::{LogId, Marks, Membership};
pub use memory::Image;
pub use reader::{Applied, Reader, Status};

/// Hears what became of leases, in order.
pub type HearLeases = dyn Fn(&[LeaseChange]) + Send + Sync;

/// Called before anybody is answered.
#[derive(Clone)]
pub struct LeaseHook(pub Arc<HearLeases>);

#[derive(Clone, Default)]
pub struct Options {
    pub tree: TreeOptions,
    pub on_leases: Option<LeaseHook>,
}
