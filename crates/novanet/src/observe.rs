//! What the kernel holds under our names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::address::Mac;

/// Everything that carries this engine's tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// Of the last desired state that was applied whole; none before the first and after a clear.
    pub generation: Option<u64>,
    /// Sorted by name.
    pub bridges: Vec<Device>,
    /// Sorted by name.
    pub taps: Vec<Device>,
    /// At most two: family inet and family bridge.
    pub tables: Vec<TableSeen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Bridge,
    Tap,
    Other,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    pub name: String,
    #[serde(skip)]
    pub index: u32,
    pub kind: Kind,
    pub up: bool,
    /// A tap has it while a hypervisor holds it open, a bridge while one of its taps has it.
    pub carrier: bool,
    /// Bytes.
    pub mtu: u32,
    pub mac: Option<Mac>,
    /// The bridge it is a port of.
    pub bridge: Option<String>,
    /// Of a bridge: whether it filters multicast by what it overhears.
    pub snooping: Option<bool>,
    /// Of a bridge's port.
    pub flags: Option<PortFlags>,
    pub addresses: BTreeSet<IpNet>,
    /// Permanent ones only.
    pub neighbours: BTreeMap<IpAddr, Mac>,
    /// MACs that the bridge sends to this port without having learned them.
    pub forwards: BTreeSet<Mac>,
}

/// How a bridge treats one of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PortFlags {
    /// Takes senders' MACs for routes.
    pub learning: bool,
    /// Sends frames for unknown MACs here too.
    pub flood: bool,
    pub isolated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableSeen {
    /// `inet` or `bridge`.
    pub family: String,
    pub rules: usize,
    /// Whether it is, rule by rule, what the engine last put there.
    pub current: bool,
    pub drops: Vec<Drops>,
}

/// What one rule has dropped since the rules were last replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drops {
    pub family: String,
    pub chain: String,
    pub reason: String,
    pub packets: u64,
    pub bytes: u64,
}

/// Devices by name.
pub type Devices = BTreeMap<String, Device>;
