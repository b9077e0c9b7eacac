//! From what is and what is wished to the steps between them. Pure: no step when nothing differs.
//!
//! ```text
//! 1 remove    what carries our tag and is not wished
//! 2 rules     replaced before any new tap exists, so no guest is ever without its guard
//! 3 bridges   made down, set up, then up
//! 4 taps      made down, tied to their bridge, then up
//! ```

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use crate::address::{GATEWAY_LINK_LOCAL, GATEWAY_MAC, Mac, Names, V4_NETWORK_LENGTH, V6_NETWORK_LENGTH};
use crate::error::Error;
use crate::observe::{Device, Devices, Kind, PortFlags};
use crate::sysctl::{self, Settings};
use crate::wish::{BridgeWish, TapWish, Wish};

/// One change to the kernel's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    DeleteDevice { name: String },
    AddBridge { name: String },
    AddTap { name: String },
    SetMac { name: String, mac: Mac },
    SetMtu { name: String, mtu: u32 },
    SetSnooping { name: String, on: bool },
    Setting { path: String, value: String },
    AddAddress { name: String, address: IpNet },
    DeleteAddress { name: String, address: IpNet },
    SetBridge { name: String, bridge: String },
    SetFlags { name: String, flags: PortFlags },
    AddForward { name: String, mac: Mac },
    DeleteForward { name: String, mac: Mac },
    SetNeighbour { name: String, address: IpAddr, mac: Mac },
    DeleteNeighbour { name: String, address: IpAddr },
    SetUp { name: String },
}

/// The steps before the rules are replaced, and those after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    pub before: Vec<Step>,
    pub after: Vec<Step>,
}

/// # Errors
/// [`Error::DeviceTaken`] when a wished name belongs to another kind of device, which is not ours to remove.
pub fn plan(wish: &Wish, devices: &Devices, settings: &Settings) -> Result<Turn, Error> {
    let mut turn = Turn { before: orphans(wish, devices), after: Vec::new() };
    for bridge in &wish.bridges {
        let seen = seen(devices, &bridge.name, Kind::Bridge)?;
        bridge_steps(&mut turn.after, wish, bridge, seen, settings);
    }
    for (bridge, tap) in wish.taps() {
        let seen = seen(devices, &tap.name, Kind::Tap)?;
        tap_steps(&mut turn.after, wish, bridge, tap, seen, settings);
    }
    Ok(turn)
}

/// Deletes what carries our tag and is not wished, taps before the bridges they are on.
fn orphans(wish: &Wish, devices: &Devices) -> Vec<Step> {
    let wished = |name: &str| {
        wish.bridges.iter().any(|bridge| bridge.name == name || bridge.taps.iter().any(|tap| tap.name == name))
    };
    delete(&wish.names, devices, |device| !wished(&device.name))
}

/// Deletes our devices that `choose` picks.
pub fn delete(names: &Names, devices: &Devices, choose: impl Fn(&Device) -> bool) -> Vec<Step> {
    let of = |kind: Kind| {
        let ours = move |device: &&Device| device.kind == kind && names.owns(&device.name);
        devices.values().filter(ours)
    };
    of(Kind::Tap)
        .chain(of(Kind::Bridge))
        .filter(|device| choose(device))
        .map(|device| Step::DeleteDevice { name: device.name.clone() })
        .collect()
}

fn seen<'a>(devices: &'a Devices, name: &str, kind: Kind) -> Result<Option<&'a Device>, Error> {
    match devices.get(name) {
        Some(device) if device.kind != kind => {
            let kind = format!("{:?}", device.kind).to_lowercase();
            Err(Error::DeviceTaken { name: name.to_owned(), kind })
        }
        seen => Ok(seen),
    }
}

/// The addresses a bridge has: the gateway's three.
pub fn gateway_addresses(bridge: &BridgeWish) -> [IpNet; 3] {
    [
        IpNet::new_assert(bridge.at.gateway_v4.into(), V4_NETWORK_LENGTH),
        IpNet::new_assert(bridge.at.gateway_v6.into(), V6_NETWORK_LENGTH),
        Ipv6Net::new_assert(GATEWAY_LINK_LOCAL, V6_NETWORK_LENGTH).into(),
    ]
}

/// The addresses of a port that the host knows without asking.
pub fn neighbour_addresses(tap: &TapWish) -> [IpAddr; 3] {
    [tap.at.v4.into(), tap.at.v6.into(), tap.at.link_local.into()]
}

/// How the bridge treats a tap: nothing is learned from guests, and nothing for others comes to them.
pub fn port_flags(tap: &TapWish) -> PortFlags {
    PortFlags { learning: false, flood: false, isolated: tap.isolated }
}

fn bridge_steps(steps: &mut Vec<Step>, wish: &Wish, bridge: &BridgeWish, seen: Option<&Device>, settings: &Settings) {
    let name = &bridge.name;
    if seen.is_none() {
        steps.push(Step::AddBridge { name: name.clone() });
    }
    if seen.is_none_or(|seen| seen.mac != Some(GATEWAY_MAC)) {
        steps.push(Step::SetMac { name: name.clone(), mac: GATEWAY_MAC });
    }
    if seen.is_none_or(|seen| seen.snooping != Some(false)) {
        steps.push(Step::SetSnooping { name: name.clone(), on: false });
    }
    common(steps, wish, name, seen, &sysctl::bridge(name), settings);
    let wanted = gateway_addresses(bridge);
    for address in seen.into_iter().flat_map(|seen| &seen.addresses).filter(|address| !wanted.contains(address)) {
        steps.push(Step::DeleteAddress { name: name.clone(), address: *address });
    }
    for address in wanted {
        if seen.is_none_or(|seen| !seen.addresses.contains(&address)) {
            steps.push(Step::AddAddress { name: name.clone(), address });
        }
    }
    if seen.is_none_or(|seen| !seen.up) {
        steps.push(Step::SetUp { name: name.clone() });
    }
    // A bridge forgets its neighbours when it goes down, so these come after.
    let kept = seen.filter(|seen| seen.up).map(|seen| &seen.neighbours);
    for tap in &bridge.taps {
        for address in neighbour_addresses(tap) {
            if kept.is_none_or(|kept| kept.get(&address) != Some(&tap.at.mac)) {
                steps.push(Step::SetNeighbour { name: name.clone(), address, mac: tap.at.mac });
            }
        }
    }
    let wanted: Vec<IpAddr> = bridge.taps.iter().flat_map(neighbour_addresses).collect();
    for address in kept.into_iter().flat_map(|kept| kept.keys()).filter(|address| !wanted.contains(address)) {
        steps.push(Step::DeleteNeighbour { name: name.clone(), address: *address });
    }
}

fn tap_steps(
    steps: &mut Vec<Step>,
    wish: &Wish,
    bridge: &BridgeWish,
    tap: &TapWish,
    seen: Option<&Device>,
    settings: &Settings,
) {
    let name = &tap.name;
    if seen.is_none() {
        steps.push(Step::AddTap { name: name.clone() });
    }
    common(steps, wish, name, seen, &sysctl::tap(name), settings);
    let enslaved = seen.filter(|seen| seen.bridge.as_ref() == Some(&bridge.name));
    if enslaved.is_none() {
        steps.push(Step::SetBridge { name: name.clone(), bridge: bridge.name.clone() });
    }
    if enslaved.is_none_or(|seen| seen.flags != Some(port_flags(tap))) {
        steps.push(Step::SetFlags { name: name.clone(), flags: port_flags(tap) });
    }
    for mac in enslaved.into_iter().flat_map(|seen| &seen.forwards).filter(|mac| **mac != tap.at.mac) {
        steps.push(Step::DeleteForward { name: name.clone(), mac: *mac });
    }
    if enslaved.is_none_or(|seen| !seen.forwards.contains(&tap.at.mac)) {
        steps.push(Step::AddForward { name: name.clone(), mac: tap.at.mac });
    }
    for address in seen.into_iter().flat_map(|seen| &seen.addresses) {
        steps.push(Step::DeleteAddress { name: name.clone(), address: *address });
    }
    if seen.is_none_or(|seen| !seen.up) {
        steps.push(Step::SetUp { name: name.clone() });
    }
}

/// The frame size and the kernel settings.
fn common(
    steps: &mut Vec<Step>,
    wish: &Wish,
    name: &str,
    seen: Option<&Device>,
    wanted: &Settings,
    settings: &Settings,
) {
    if seen.is_none_or(|seen| seen.mtu != wish.mtu) {
        steps.push(Step::SetMtu { name: name.to_owned(), mtu: wish.mtu });
    }
    for (path, value) in wanted {
        if seen.is_none() || settings.get(path) != Some(value) {
            steps.push(Step::Setting { path: path.clone(), value: value.clone() });
        }
    }
}

#[cfg(test)]
mod tests;
