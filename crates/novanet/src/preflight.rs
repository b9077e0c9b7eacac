//! Whether this machine can be a node, asked before anything is changed.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::address::{Names, Prefixes};
use crate::config::Config;
use crate::desired::Desired;
use crate::error::Error;
use crate::netlink::{By, Netlink, Occupied};
use crate::nft::Nft;
use crate::wish::Wish;
use crate::{ruleset, sysctl, tap};

/// What stands in the way, and what may.
#[derive(Debug, Default)]
pub struct Preflight {
    /// Each one keeps the engine from working. In the order in which they are worth mending.
    pub errors: Vec<Error>,
    /// What may cost guests some of their way out: a broader route that our networks lie in, a nameserver in our range, a
    /// foreign firewall.
    pub warnings: Vec<Error>,
}

/// Where a free IPv4 prefix is looked for, in this order: private ranges (RFC 1918) and the shared one (RFC 6598), each
/// large enough for all networks.
const V4_CANDIDATES: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 240, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 192, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 12),
];

/// Which nameservers the machine asks (resolv.conf(5)).
const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// Looks at the calling thread's network namespace and changes nothing. Needs a Tokio runtime with I/O.
pub async fn preflight(config: &Config) -> Preflight {
    let mut found = Preflight::default();
    if let Err(error) = config.check() {
        found.errors.push(error);
        return found;
    }
    if !rustix::process::geteuid().is_root() {
        // Without it the rest would say no for want of permission, each in its own words.
        found.errors.push(Error::NotRoot);
        return found;
    }
    if let Err(source) = tap::device() {
        found.errors.push(Error::TunMissing { source });
    }
    if !sysctl::has_ipv6() {
        found.errors.push(Error::Ipv6Missing);
    }
    found.errors.extend(sysctl::writable().err());
    match Nft::find() {
        Err(error) => found.errors.push(error),
        Ok(nft) => filter(config, &nft, &mut found).await,
    }
    match Netlink::open() {
        Err(error) => found.errors.push(error),
        Ok(netlink) => match (netlink.occupied().await, config.names()) {
            (Ok(mut occupied), Ok(names)) => {
                let text = std::fs::read_to_string(RESOLVER_FILE).unwrap_or_default();
                occupied.extend(nameservers(&text));
                collisions(&config.prefixes(), &names, &occupied, &mut found);
            }
            (Err(error), _) | (_, Err(error)) => found.errors.push(error),
        },
    }
    found
}

/// Whether the kernel would take our rules, and whether someone else's undo them.
async fn filter(config: &Config, nft: &Nft, found: &mut Preflight) {
    match Wish::new(config, &Desired::default()) {
        Ok(wish) => found.errors.extend(nft.check(&ruleset::render(&wish)).await.err()),
        Err(error) => found.errors.push(error),
    }
    let foreign = nft.forward_policies_drop().await.unwrap_or_default();
    found.warnings.extend(foreign.into_iter().map(|(family, table, chain)| Error::ForeignFirewall {
        family,
        table,
        chain,
    }));
}

/// The nameservers in a resolver's configuration; lines that hold none are not for us to judge.
fn nameservers(text: &str) -> impl Iterator<Item = Occupied> {
    text.lines().filter_map(|line| {
        let address: IpAddr = line.strip_prefix("nameserver")?.trim().parse().ok()?;
        Some(Occupied { net: address.into(), device: format!("the nameserver in {RESOLVER_FILE}"), by: By::Nameserver })
    })
}

/// A subnet on a link, or a route into our range, would fight ours: an error. A broader route through a gateway only
/// loses the part that our networks really use, and a nameserver is lost to guests alone, whose packets for our range
/// stay here: warnings.
fn collisions(prefixes: &Prefixes, names: &Names, occupied: &[Occupied], found: &mut Preflight) {
    let foreign: Vec<&Occupied> = occupied.iter().filter(|entry| !names.owns(&entry.device)).collect();
    for prefix in [IpNet::V4(prefixes.v4), IpNet::V6(prefixes.v6)] {
        let mut told: Vec<&Occupied> = Vec::new();
        for &entry in foreign.iter().filter(|entry| overlap(&prefix, &entry.net)) {
            if told.iter().any(|other| other.net == entry.net && other.device == entry.device) {
                continue;
            }
            told.push(entry);
            let suggestion = free_v4(&foreign).filter(|_| matches!(prefix, IpNet::V4(_)));
            let error = Error::PrefixTaken { prefix, with: entry.net, device: entry.device.clone(), suggestion };
            let broader = entry.net.prefix_len() < prefix.prefix_len();
            if entry.by == By::Nameserver || (entry.by == By::Route && broader) {
                found.warnings.push(error);
            } else {
                found.errors.push(error);
            }
        }
    }
}

fn free_v4(foreign: &[&Occupied]) -> Option<Ipv4Net> {
    V4_CANDIDATES.into_iter().find(|candidate| !foreign.iter().any(|entry| overlap(&(*candidate).into(), &entry.net)))
}

fn overlap(one: &IpNet, two: &IpNet) -> bool {
    one.contains(two) || two.contains(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(occupied: &[(&str, &str, bool)]) -> Preflight {
        let occupied: Vec<Occupied> = occupied
            .iter()
            .map(|(net, device, routed)| Occupied {
                net: net.parse().unwrap(),
                device: (*device).to_owned(),
                by: if *routed { By::Route } else { By::Link },
            })
            .collect();
        let prefixes = Prefixes { v4: "10.240.0.0/12".parse().unwrap(), v6: "fd12:3456:789a::/48".parse().unwrap() };
        let mut found = Preflight::default();
        collisions(&prefixes, &Names::new("abcd").unwrap(), &occupied, &mut found);
        found
    }

    #[test]
    fn only_what_is_foreign_and_overlaps_is_a_collision() {
        let clear = judged(&[
            ("192.168.1.0/24", "eth0", false),
            ("10.0.0.0/16", "eth0", false),
            ("10.240.1.0/24", "vtabcdn001", false),
            ("fd12:3456:789a:1::/64", "vtabcdn001", false),
            ("fe80::/64", "eth0", false),
        ]);
        assert!(clear.errors.is_empty() && clear.warnings.is_empty());
    }

    #[test]
    fn collisions_are_told_once_with_a_free_range() {
        let found = judged(&[("10.250.0.0/16", "docker0", false), ("10.250.0.0/16", "docker0", false)]);
        assert_eq!(found.errors.len(), 1);
        assert_eq!(found.errors[0].code(), "network_prefix_taken");
        assert_eq!(found.errors[0].hint(), "set the v4 prefix to 10.192.0.0/12");
        assert_eq!(judged(&[("10.240.1.0/24", "vtffffn001", false)]).errors.len(), 1, "another engine is foreign");
        assert_eq!(judged(&[("10.0.0.0/8", "eth0", false)]).errors.len(), 1, "a subnet around ours is on the link");
        let vpn = judged(&[("10.0.0.0/8", "wg0", true)]);
        assert!(vpn.errors.is_empty() && vpn.warnings.len() == 1);
        assert_eq!(judged(&[("10.241.0.0/16", "wg0", true)]).errors.len(), 1);
    }

    #[test]
    fn nameservers_are_read_as_the_resolver_reads_them() {
        let text =
            "# nameserver 10.1.1.1\nsearch example\nnameserver 10.255.255.53\nnameserver\tfd00::53\nnameserver x\n";
        let nets: Vec<String> = nameservers(text).map(|entry| entry.net.to_string()).collect();
        assert_eq!(nets, ["10.255.255.53/32", "fd00::53/128"]);
    }
}
