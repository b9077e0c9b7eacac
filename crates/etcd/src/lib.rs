//! Any etcd v3 cluster as a store, and the etcd v3 protocol itself.
//!
//! ```text
//!   proto     messages, clients and servers, generated
//!   Client    endpoints, TLS, the token; typed stubs, and calls that go on at the next endpoint
//! ```

mod call;
mod client;
mod error;
mod options;
pub mod proto;
mod told;

pub use call::Repeat;
pub use client::{Client, Connection, Stamp, Stamped};
pub use error::Error;
pub use options::{Identity, Login, Options, Tls};
