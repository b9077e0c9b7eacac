//! The API as the commands use it: HTTPS to one address, trusting one authority, with one token.
//!
//! ```text
//! Api     requests, problem documents -> Failure
//! Item    a row as it came, and as the model reads it
//! target  names -> ids and scopes, each looked up once
//! stream  lines of JSON and server-sent events
//! socket  WebSocket for exec
//! nouns   which kinds there are words for
//! ```

mod api;
mod item;
pub mod nouns;
pub mod socket;
pub mod stream;
mod target;
mod tls;

pub use api::{Api, WAIT_SECONDS_MAX, key};
pub use item::Item;
pub use target::Target;
