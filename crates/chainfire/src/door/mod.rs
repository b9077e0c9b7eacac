//! The etcd v3 API over a store.

pub mod host;

pub use host::Host;
