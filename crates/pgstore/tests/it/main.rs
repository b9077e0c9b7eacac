//! The store on a real PostgreSQL, which the tests start themselves.

mod disk;
mod effort;
mod faults;
mod kill;
mod leases;
mod open;
mod relay;
mod server;
mod several;
mod suite;
mod tls;
mod workload;
