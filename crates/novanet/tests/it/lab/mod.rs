//! The laboratory.
//!
//! ```text
//! guest's space                      node's space                                    outside's space
//! own stack - eth0 (tap) <-- pump --> tap of the engine - bridge - forward - up0 <-- veth --> up1 - servers
//!                            ^ inject, seen
//! ```

pub mod frame;
mod guest;
mod node;
mod server;
mod space;

pub use guest::Guest;
pub use node::{Node, config, network, open};
pub use server::{Server, ask, connect, ping};
pub use space::Space;

/// Why these tests cannot run here, said and returned, or `None`.
pub fn missing() -> Option<String> {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if novanet::tap::device().is_err() {
        "no /dev/net/tun"
    } else if std::process::Command::new("nft").arg("--version").output().is_err() {
        "no nft"
    } else if std::process::Command::new("ip").arg("-V").output().is_err() {
        "no ip"
    } else {
        return None;
    };
    println!("skipped: {reason}");
    Some(reason.to_owned())
}
