//! Any etcd v3 cluster as a store, and the etcd v3 protocol itself.
//!
//! ```text
//!   proto     messages, clients and servers, generated
//!   Client    endpoints, TLS, the token; typed stubs, and calls that go on at the next endpoint
//!   Etcd      store::Store over a Client
//! ```
//!
//! ```text
//!   Etcd ── range, txn, lease ... ──▶ wire ──▶ Client::call ──▶ cluster
//!     └── watch ──▶ hub ──▶ one stream of all revisions ──────────┘
//! ```

mod call;
mod client;
mod cluster;
mod engine;
mod error;
mod options;
pub mod proto;
mod stream;
mod told;
mod watch;
mod wire;

pub use call::Repeat;
pub use client::{Client, Connection, Stamp, Stamped};
pub use engine::Etcd;
pub use error::Error;
pub use options::{Identity, Login, Options, Tls};
