//! The host's end of a guest's channel.
//!
//! ```text
//!             +--------- write task <- frames (bounded) <- Channel, Session, Logs
//!  socket <---+
//!             +--------- read task  -> state (watch), events, log lines (windowed), sessions (windowed), answers
//! ```
//!
//! The read task waits for nobody but the socket: what a consumer has not taken yet is bounded by a window that the
//! guest keeps to, and a guest that does not keep to it loses its connection. Dropping the last [`Channel`] detaches:
//! the guest goes on, and another [`Channel::connect`] finds it as it is.

mod connect;
mod error;
mod events;
mod logs;
mod read;
mod session;
mod shared;
#[cfg(test)]
mod tests;

pub use connect::Channel;
pub use error::Error;
pub use events::Events;
pub use logs::{LogItem, Logs};
pub use session::{Chunk, Control, Output, Session, Stdin};
