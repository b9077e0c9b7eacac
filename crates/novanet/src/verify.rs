//! Is it all there? One answer per guard and device, for people who look for what is broken.

use serde::Serialize;

use crate::address::GATEWAY_MAC;
use crate::nft::Listing;
use crate::observe::{Device, Devices, Kind};
use crate::ruleset;
use crate::sysctl::{self, Settings};
use crate::turn;
use crate::wish::{BridgeWish, TapWish, Wish};

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `exists`, `up`, `gateway`, `neighbour`, `settings`, `antispoof`, `forward`, `host_guard`, `nat`,
    /// `foreign_firewall`.
    pub name: &'static str,
    /// A bridge's or tap's name, or `node`.
    pub subject: String,
    pub ok: bool,
    /// What is there, or what is missing.
    pub detail: String,
}

/// What was looked at.
pub struct Evidence<'a> {
    pub devices: &'a Devices,
    pub settings: &'a Settings,
    /// The tables now.
    pub tables: &'a [Listing],
    /// The tables as they were when the rules were last loaded.
    pub installed: &'a [Listing],
    /// Other people's chains whose policy drops forwarded packets.
    pub foreign: &'a [(String, String, String)],
}

/// Pure: the same evidence gives the same answers, the node's first, then each bridge with its taps.
pub fn verify(wish: &Wish, evidence: &Evidence<'_>) -> Vec<Check> {
    let mut checks = vec![forward(wish, evidence), host_guard(evidence), nat(evidence), foreign(evidence)];
    for bridge in &wish.bridges {
        bridge_checks(&mut checks, wish, bridge, evidence);
        for tap in &bridge.taps {
            tap_checks(&mut checks, bridge, tap, evidence);
        }
    }
    checks
}

fn check(name: &'static str, subject: &str, problem: Option<String>, fine: impl Into<String>) -> Check {
    let ok = problem.is_none();
    Check { name, subject: subject.to_owned(), ok, detail: problem.unwrap_or_else(|| fine.into()) }
}

/// What differs between the chains as loaded and as they are.
fn chains(evidence: &Evidence<'_>, family: &str, names: &[&str]) -> Option<String> {
    let table = |tables: &'_ [Listing]| tables.iter().position(|table| table.family == family);
    let (Some(now), Some(then)) = (table(evidence.tables), table(evidence.installed)) else {
        return Some(format!("the {family} table is missing"));
    };
    let (now, then) = (&evidence.tables[now], &evidence.installed[then]);
    names.iter().find_map(|name| {
        if now.chain(name).next().is_none() {
            return Some(format!("the chain {name} is missing"));
        }
        (!now.chain(name).eq(then.chain(name))).then(|| format!("the chain {name} was changed by someone else"))
    })
}

/// What a setting is and should not be.
fn settings(wanted: &Settings, seen: &Settings) -> Option<String> {
    wanted.iter().find(|(path, value)| seen.get(*path) != Some(*value)).map(|(path, value)| {
        let now = seen.get(path).map_or("missing", String::as_str);
        format!("{path} is {now}, not {value}")
    })
}

fn forward(wish: &Wish, evidence: &Evidence<'_>) -> Check {
    let problem = settings(&sysctl::node(), evidence.settings)
        .or_else(|| chains(evidence, "inet", &["forward", "from_guest", "to_guest"]));
    let egress = if wish.egress { "open" } else { "closed" };
    check("forward", "node", problem, format!("networks are apart, the way out is {egress}"))
}

fn host_guard(evidence: &Evidence<'_>) -> Check {
    check("host_guard", "node", chains(evidence, "inet", &["input", "to_host"]), "guests reach no service of the host")
}

fn nat(evidence: &Evidence<'_>) -> Check {
    check("nat", "node", chains(evidence, "inet", &["postrouting"]), "IPv4 and IPv6 are masqueraded")
}

fn foreign(evidence: &Evidence<'_>) -> Check {
    let problem = evidence.foreign.first().map(|(family, table, chain)| {
        format!("{family} {table} {chain} drops what is forwarded unless a rule there allows it")
    });
    check("foreign_firewall", "node", problem, "no other table drops what is forwarded")
}

fn of_kind<'a>(evidence: &Evidence<'a>, name: &str, kind: Kind) -> Option<&'a Device> {
    evidence.devices.get(name).filter(|device| device.kind == kind)
}

fn bridge_checks(checks: &mut Vec<Check>, wish: &Wish, bridge: &BridgeWish, evidence: &Evidence<'_>) {
    let name = &bridge.name;
    let Some(seen) = of_kind(evidence, name, Kind::Bridge) else {
        checks.push(check("exists", name, Some("no such bridge".to_owned()), ""));
        return;
    };
    checks.push(check("exists", name, None, "a bridge"));
    let problem = (!seen.up).then(|| "down".to_owned());
    let problem = problem.or_else(|| (seen.mtu != wish.mtu).then(|| format!("mtu {}, not {}", seen.mtu, wish.mtu)));
    checks.push(check("up", name, problem, format!("up, mtu {}", seen.mtu)));
    let missing = turn::gateway_addresses(bridge).into_iter().find(|address| !seen.addresses.contains(address));
    let problem = missing.map(|address| format!("{address} is missing"));
    let problem = problem.or_else(|| (seen.mac != Some(GATEWAY_MAC)).then(|| format!("its MAC is not {GATEWAY_MAC}")));
    checks.push(check("gateway", name, problem, format!("{}, {}", bridge.at.gateway_v4, bridge.at.gateway_v6)));
    checks.push(check("settings", name, settings(&sysctl::bridge(name), evidence.settings), "as wished"));
    let problem = bridge.taps.iter().find_map(|tap| {
        let unknown = |address: &std::net::IpAddr| seen.neighbours.get(address) != Some(&tap.at.mac);
        let missing = turn::neighbour_addresses(tap).into_iter().find(unknown)?;
        Some(format!("{missing} is not fixed to {}", tap.at.mac))
    });
    checks.push(check("neighbour", name, problem, format!("{} fixed", seen.neighbours.len())));
}

fn tap_checks(checks: &mut Vec<Check>, bridge: &BridgeWish, tap: &TapWish, evidence: &Evidence<'_>) {
    let name = &tap.name;
    let chain = ruleset::port_chain(tap);
    let (arp, ip, ip6) = (format!("{chain}_arp"), format!("{chain}_ip"), format!("{chain}_ip6"));
    let guards = [chain.as_str(), &arp, &ip, &ip6, "from_tap", "prerouting"];
    let guarded = || {
        let fine = format!("{} sends as {}, {} and {} only", tap.port, tap.at.mac, tap.at.v4, tap.at.v6);
        check("antispoof", name, chains(evidence, "bridge", &guards), fine)
    };
    let Some(seen) = of_kind(evidence, name, Kind::Tap) else {
        checks.push(check("exists", name, Some("no such tap".to_owned()), ""));
        checks.push(guarded());
        return;
    };
    checks.push(check("exists", name, None, format!("the tap of {}", tap.port)));
    let problem = (!seen.up).then(|| "down".to_owned());
    let problem = problem
        .or_else(|| (seen.bridge.as_ref() != Some(&bridge.name)).then(|| format!("not on the bridge {}", bridge.name)));
    let problem = problem.or_else(|| {
        (seen.flags != Some(turn::port_flags(tap))).then(|| "the bridge treats it otherwise than wished".to_owned())
    });
    let carrier = if seen.carrier { "held by a hypervisor" } else { "held by nobody" };
    checks.push(check("up", name, problem, format!("up, {carrier}")));
    checks.push(guarded());
}
