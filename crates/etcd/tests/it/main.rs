//! Against a real etcd, Debian's `etcd-server`, started on loopback.

mod access;
mod cluster;
mod conformance;
mod faults;
mod limits;
mod proxy;
mod watching;
