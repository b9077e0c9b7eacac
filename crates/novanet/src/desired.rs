//! What the control plane wants of this node: complete, with a generation.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::address::Prefixes;
use crate::error::Error;

/// Of one node.
pub const PORTS_MAX: usize = 4096;
/// Of a port's id, in bytes.
pub const PORT_ID_BYTES_MAX: usize = 64;

/// All networks and ports of this node. What is not in here is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Grows with every change; a lower one than the last applied is refused, the same one may come again.
    pub generation: u64,
    /// Unique by number, in any order, may be empty.
    pub networks: Vec<Network>,
}

/// One project's network, as far as this node takes part in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// 0 to 4095, given by the control plane and never used again for another project.
    pub number: u16,
    /// Unique by offset, in any order, may be empty: the bridge and its gateway exist all the same.
    pub ports: Vec<Port>,
}

/// One guest's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The control plane's name for it, unique on the node; 1 to 64 bytes of letters, digits, `_`, `-`, `.`.
    pub id: String,
    /// 2 to 254: the last byte of its addresses.
    pub offset: u8,
    /// May reach the gateway and what lies behind it, but no other isolated port of its own network.
    #[serde(default)]
    pub isolated: bool,
}

impl Port {
    pub fn new(id: impl Into<String>, offset: u8) -> Self {
        Self { id: id.into(), offset, isolated: false }
    }
}

impl Desired {
    /// # Errors
    /// [`Error::Desired`] for what contradicts itself, [`Error::NetworkNumber`] and [`Error::PortOffset`] for what does
    /// not fit the prefixes. The control plane mends them; nothing was changed.
    pub fn check(&self, prefixes: &Prefixes) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Desired { what });
        let (mut numbers, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for network in &self.networks {
            prefixes.network(network.number)?;
            if !numbers.insert(network.number) {
                return refuse(format!("network {} appears twice", network.number));
            }
            let mut offsets = BTreeSet::new();
            for port in &network.ports {
                prefixes.port(network.number, port.offset)?;
                if !offsets.insert(port.offset) {
                    return refuse(format!("network {} has two ports at offset {}", network.number, port.offset));
                }
                let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
                if port.id.is_empty() || port.id.len() > PORT_ID_BYTES_MAX || !port.id.bytes().all(plain) {
                    let (network, offset) = (network.number, port.offset);
                    return refuse(format!("the id of network {network}'s port {offset} is malformed"));
                }
                if !ids.insert(port.id.as_str()) {
                    return refuse(format!("port {} appears twice", port.id));
                }
            }
        }
        if ids.len() > PORTS_MAX {
            return refuse(format!("{} ports, and a node has at most {PORTS_MAX}", ids.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        let prefixes = Prefixes { v4: "10.240.0.0/12".parse().unwrap(), v6: "fd12:3456:789a::/48".parse().unwrap() };
        let network = |number, ports: &[(&str, u8)]| Network {
            number,
            ports: ports.iter().map(|(id, offset)| Port::new(*id, *offset)).collect(),
        };
        let desired = |networks| Desired { generation: 1, networks };
        assert!(desired(vec![network(1, &[("a", 2), ("b", 3)]), network(2, &[("c", 2)])]).check(&prefixes).is_ok());
        for bad in [
            vec![network(1, &[]), network(1, &[])],
            vec![network(1, &[("a", 2), ("b", 2)])],
            vec![network(1, &[("a", 2)]), network(2, &[("a", 2)])],
            vec![network(1, &[("", 2)])],
            vec![network(1, &[("a b", 2)])],
            vec![network(4096, &[])],
            vec![network(1, &[("a", 1)])],
        ] {
            assert!(desired(bad.clone()).check(&prefixes).is_err(), "{bad:?}");
        }
    }
}
