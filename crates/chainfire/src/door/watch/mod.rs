//! The Watch service.
//!
//! Watches of the same stretch of keys share one watcher of the store, whoever opened them: a *group*. What it delivers
//! is encoded once and the bytes are shared. A watch is in its group while it keeps up; when it starts in the past, or
//! its client does not read, it has a watcher of its own until it has caught up.
//!
//! ```text
//!              ┌─ group (one store watcher) ─▶ chunk ─┬▶ queue of a stream ─▶ frames ─▶ client
//!   store ─────┤                                      └▶ queue of another
//!              └─ own store watcher, while behind ────▶ frames of its stream
//!
//!   a watch:   created ──▶ in its group ◀──────────────── caught up
//!                  └──(starts in the past)──▶ behind ──(queue full)──◀ in its group
//!                                               └──▶ cancelled: what it needs was compacted
//! ```
//!
//! A queue is bounded: a client that does not read costs no memory beyond it, loses nothing, and is cancelled with the
//! revision of the compaction when the history it would need is gone.

mod catch_up;
mod chunk;
mod group;
mod hub;
mod queue;
mod stream;

pub use hub::Hub;
pub use stream::watch;
