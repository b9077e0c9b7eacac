//! The etcd v3 API over a store: to a client it is etcd.
//!
//! ```text
//!   connection ── route ──▶ grpc ──▶ kv, watch, lease, cluster, maintenance, auth, lock, election ──▶ desk ──▶ store
//!                   └─────▶ http: health, version, metrics, the same calls in JSON                      └────▶ host
//! ```
//!
//! A [`Store`](store::Store) keeps keys; a [`Host`] knows the cluster and keeps the system rows: users, roles, alarms.
//! Every request is decided on the system rows as they are here, and what it changes carries their version, so that a
//! permission that was taken away meanwhile is not used. Tasks: one for each listener and each connection, which runs its calls.

pub mod alarm;
mod auth;
mod authority;
mod cluster;
mod connection;
mod desk;
mod election;
mod front;
mod grpc;
mod health;
pub mod host;
mod http;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod metrics;
mod monitor;
mod options;
mod refusal;
mod route;
mod serve;
pub mod solo;
pub mod tenants;
pub mod tls;
mod turns;
mod watch;

pub use host::Host;
pub use options::{Options, TlsFiles};
pub use serve::{Error, Handle, serve, serve_tenants};
pub use solo::Solo;
