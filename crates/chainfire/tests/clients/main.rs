//! Clients that nobody here wrote, at ChainFire's door and at the real etcd: what they see has to be the same.
//!
//! Packages of other languages are installed by name and version into the folder of what is built, once; a test whose client
//! cannot be installed is skipped and says why.

mod etcdctl;
mod node;
mod packages;
mod program;
mod python;
#[allow(dead_code, reason = "each of the two test programs uses its part")]
#[path = "../servers/mod.rs"]
mod servers;
