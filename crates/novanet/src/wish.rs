//! The desired state with every number turned into a name or an address: what the rules and the devices are made from.

use crate::address::{Names, NetworkAddresses, PortAddresses, Prefixes};
use crate::config::Config;
use crate::desired::Desired;
use crate::error::Error;

/// What this node should look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub names: Names,
    pub prefixes: Prefixes,
    pub mtu: u32,
    pub egress: bool,
    /// Sorted by number.
    pub bridges: Vec<BridgeWish>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeWish {
    pub name: String,
    pub at: NetworkAddresses,
    /// Sorted by offset.
    pub taps: Vec<TapWish>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapWish {
    pub name: String,
    pub port: String,
    pub isolated: bool,
    pub at: PortAddresses,
}

impl Wish {
    /// # Errors
    /// Those of [`Config::check`] and [`Desired::check`].
    pub fn new(config: &Config, desired: &Desired) -> Result<Self, Error> {
        config.check()?;
        let (names, prefixes) = (config.names()?, config.prefixes());
        desired.check(&prefixes)?;
        let mut bridges = Vec::with_capacity(desired.networks.len());
        for network in &desired.networks {
            let mut taps = Vec::with_capacity(network.ports.len());
            for port in &network.ports {
                taps.push(TapWish {
                    name: names.tap(network.number, port.offset),
                    port: port.id.clone(),
                    isolated: port.isolated,
                    at: prefixes.port(network.number, port.offset)?,
                });
            }
            taps.sort_by_key(|tap| tap.at.offset);
            let name = names.bridge(network.number);
            bridges.push(BridgeWish { name, at: prefixes.network(network.number)?, taps });
        }
        bridges.sort_by_key(|bridge| bridge.at.number);
        Ok(Self { names, prefixes, mtu: config.mtu, egress: config.egress, bridges })
    }

    pub fn taps(&self) -> impl Iterator<Item = (&BridgeWish, &TapWish)> {
        self.bridges.iter().flat_map(|bridge| bridge.taps.iter().map(move |tap| (bridge, tap)))
    }
}
