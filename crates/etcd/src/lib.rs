//! Any etcd v3 cluster as a store, and the etcd v3 protocol itself.

pub mod proto;
