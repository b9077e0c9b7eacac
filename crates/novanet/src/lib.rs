//! novanet: a node's part of every project's network.
//!
//! A project has one network; on a node that is a bridge, and each of its guests there a tap on it. Guests of one
//! network speak freely, guests of two do not meet, and all of them reach the outside behind the node's address. The
//! engine gets a complete desired state with a generation, keeps the last good one on disk, and makes the kernel
//! agree with it; the kernel goes on without the engine.
//!
//! ```text
//!            control plane's numbers                         the kernel of this node
//! address    network n, port o  -> addresses, names
//! desired -> wish -----------+
//!                            +-> turn::plan -> steps -------> netlink, tap, sysctl   devices
//! observe <- devices, tables +-> ruleset    -> text --------> nft -f -               rules, in one transaction
//!                            +-> verify     -> checks
//! state      desired.json, before.json: temp, fsync, rename, fsync of the folder
//! ```
//!
//! Tasks: one thread per engine (`service`), which takes one act at a time. It needs root, the program `nft`, and
//! /dev/net/tun; [`preflight`] says what is missing.

pub mod address;
mod config;
mod desired;
mod engine;
mod error;
mod netlink;
mod nft;
mod observe;
mod preflight;
mod ruleset;
mod service;
mod state;
mod sysctl;
pub mod tap;
mod turn;
mod verify;
mod wish;

pub use address::{Mac, Names, NetworkAddresses, PortAddresses, Prefixes};
pub use config::{Config, MTU_DEFAULT, default_v4};
pub use desired::{Desired, Network, Port};
pub use error::Error;
pub use observe::{Device, Drops, Kind, Observed, PortFlags, TableSeen};
pub use preflight::{Preflight, preflight};
pub use service::{Applied, Cleared, Handle, Opened, Service};
pub use verify::Check;
