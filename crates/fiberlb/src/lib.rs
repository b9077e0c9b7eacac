//! The ingress of one node: HTTP by host name, TLS by server name without terminating it, TCP by port.
//!
//! ```text
//!            Handle::apply(Desired)                      Handle::status()  Handle::changes()
//!                    |                                             ^
//!   desired   validate (pure)                                      |
//!   persist   last good configuration on disk                      |
//!   engine    one table, swapped whole  <----- pick a backend -----+---- housekeeper: drains, ports to open again
//!                    |                              |
//!   listener  accept, bounded                       |
//!     http/   sniff h1 or h2 -> headers -> forward -+-> pooled connections -> body or tunnel
//!     tls/    ClientHello -> server name -----------+-> splice, untouched
//!     tcp     port ---------------------------------+-> splice
//! ```
//!
//! - An engine: it takes a complete desired state with a generation, keeps the last good one on disk, and serves that
//!   one again at start, before and whether or not a control plane speaks to it.
//! - Picking a backend and counting the request in flight happen under the same lock that swaps the table. So once
//!   `apply` has returned, a removed backend gets nothing new, and its count only falls.
//! - Tasks: one per listener, one per connection, one per upstream connection, one housekeeper. All end with
//!   [`Handle::close`], or when the last handle is dropped.
//! - Absent on purpose: TLS termination, wildcard hosts, path routing, active health checks (the agent gates backends
//!   through the desired state; here a backend that fails is only avoided for a while).

mod backend;
mod config;
mod desired;
mod engine;
mod error;
mod health;
pub mod host;
mod http;
mod listener;
mod persist;
mod pick;
mod ports;
mod service;
mod socket;
mod splice;
mod status;
mod tcp;
mod tls;

pub use config::{Config, Limits};
pub use desired::{Backend, Desired, Mode, Route, denied};
pub use error::Error;
pub use service::{Applied, Handle, Outcome, Service};
pub use status::{BackendStatus, RouteStatus, Status};
pub use tls::hello;
