//! The packet filter's rules as text for `nft -f -`. Pure; every word comes from a number or a checked tag.
//!
//! Two tables, replaced together in one transaction, so a packet meets the old rules or the new ones:
//!
//! ```text
//! frame from a guest -> tap -> bridge vt_<tag>, prerouting    who are you: MAC, addresses, ARP, neighbour discovery
//!    to its own network                                       open, on the bridge
//!    to the host     -> inet vt_<tag>, input                  answers, ping and neighbour discovery; nothing else
//!    to elsewhere    -> inet vt_<tag>, forward                no other network; the outside if egress is on
//!                    -> inet vt_<tag>, postrouting            masquerade
//! packet to a guest  -> inet vt_<tag>, forward                answers only; what the host itself opens is not forwarded
//! ```
//!
//! Both tables catch devices by the beginning of their name and drop what no rule names, so a tap whose rules are
//! missing is mute rather than free. Every drop counts, under a reason in its comment.

use std::fmt::Write as _;

use crate::wish::{BridgeWish, TapWish, Wish};

/// Of a chain that judges one port's frames: this and the tap's number, `port_00702`.
pub const PORT_CHAIN: &str = "port_";

/// Reasons, as they stand in the rules' comments.
pub const DROP_BETWEEN: &str = "between_networks";
pub const DROP_TO_HOST: &str = "to_host";

/// The whole transaction that puts `wish` in place of whatever the two tables held.
pub fn render(wish: &Wish) -> String {
    let mut out = String::with_capacity(4096 + wish.taps().count() * 2048);
    remove_into(&mut out, &wish.names.table());
    inet(&mut out, wish);
    bridge(&mut out, wish);
    out
}

/// The transaction that removes both tables, present or not.
pub fn remove(table: &str) -> String {
    let mut out = String::new();
    remove_into(&mut out, table);
    out
}

fn remove_into(out: &mut String, table: &str) {
    for family in ["inet", "bridge"] {
        // Naming a table creates it where it is missing; only then can the same transaction delete it in any case.
        let _ = writeln!(out, "table {family} {table}\ndelete table {family} {table}");
    }
}

/// `name { elements = ... }`, and no elements at all where there are none: nft refuses an empty list.
fn set(out: &mut String, name: &str, types: &str, elements: impl Iterator<Item = String>) {
    let list = elements.collect::<Vec<_>>().join(", ");
    let elements = if list.is_empty() { String::new() } else { format!(" elements = {{ {list} }};") };
    let _ = writeln!(out, "  set {name} {{ type {types};{elements} }}");
}

fn inet(out: &mut String, wish: &Wish) {
    let bridges = format!("\"{}*\"", wish.names.bridges());
    let (v4, v6) = (wish.prefixes.v4, wish.prefixes.v6);
    let _ = writeln!(out, "table inet {} {{", wish.names.table());
    set(out, "same", "ifname . ifname", wish.bridges.iter().map(|b| format!("\"{0}\" . \"{0}\"", b.name)));
    set(
        out,
        "gateways4",
        "ifname . ipv4_addr",
        wish.bridges.iter().map(|b| format!("\"{}\" . {}", b.name, b.at.gateway_v4)),
    );
    set(
        out,
        "gateways6",
        "ifname . ipv6_addr",
        wish.bridges.iter().flat_map(|b| {
            [b.at.gateway_v6, b.at.gateway_link_local].map(|gateway| format!("\"{}\" . {gateway}", b.name))
        }),
    );
    let egress = if wish.egress { "accept" } else { "counter drop comment \"egress_off\"" };
    let _ = write!(
        out,
        "  chain input {{
    type filter hook input priority filter; policy accept;
    iifname {bridges} jump to_host
  }}
  chain to_host {{
    ct state established,related accept
    ct state invalid counter drop comment \"invalid\"
    iifname . ip daddr @gateways4 icmp type echo-request accept
    iifname . ip6 daddr @gateways6 icmpv6 type echo-request accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    counter drop comment \"{DROP_TO_HOST}\"
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname . oifname @same accept
    iifname {bridges} oifname {bridges} counter drop comment \"{DROP_BETWEEN}\"
    iifname {bridges} jump from_guest
    oifname {bridges} jump to_guest
  }}
  chain from_guest {{
    ct state established,related accept
    ct state invalid counter drop comment \"invalid\"
    ip daddr {v4} counter drop comment \"{DROP_BETWEEN}\"
    ip6 daddr {v6} counter drop comment \"{DROP_BETWEEN}\"
    ip daddr 169.254.0.0/16 counter drop comment \"metadata\"
    ip6 daddr fd00:ec2::/32 counter drop comment \"metadata\"
    {egress}
  }}
  chain to_guest {{
    ct state established,related accept
    counter drop comment \"unasked\"
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname {bridges} return
    oifname \"lo\" return
    ip saddr {v4} counter masquerade comment \"nat4\"
    ip6 saddr {v6} counter masquerade comment \"nat6\"
  }}
}}
"
    );
}

fn bridge(out: &mut String, wish: &Wish) {
    let _ = writeln!(out, "table bridge {} {{", wish.names.table());
    for (bridge, tap) in wish.taps() {
        port(out, bridge, tap);
    }
    let _ = writeln!(out, "  chain from_tap {{");
    let jumps: Vec<String> =
        wish.taps().map(|(_, tap)| format!("\"{}\" : goto {}", tap.name, port_chain(tap))).collect();
    if !jumps.is_empty() {
        let _ = writeln!(out, "    iifname vmap {{ {} }}", jumps.join(", "));
    }
    let _ = write!(
        out,
        "    counter drop comment \"no_port\"
  }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname \"{}*\" jump from_tap
  }}
}}
",
        wish.names.taps()
    );
}

/// The name of the chain that judges one port's frames.
pub fn port_chain(tap: &TapWish) -> String {
    format!("{PORT_CHAIN}{:03x}{:02x}", tap.at.network, tap.at.offset)
}

/// One port: only its MAC, its two addresses and the link-local one made from its MAC, as sender of packets, of ARP
/// and of neighbour advertisements; it neither routes nor hands out addresses.
///
/// The gateway does not carry packets between two ports of one network (`hairpin`): they have no need of it, and it would
/// be a way around isolation.
fn port(out: &mut String, bridge: &BridgeWish, tap: &TapWish) {
    let (network, gateway) = (&bridge.at, bridge.at.gateway_mac);
    let (mac, v4, v6, link_local) = (tap.at.mac, tap.at.v4, tap.at.v6, tap.at.link_local);
    // The target address of a neighbour solicitation or advertisement: 8 bytes into ICMPv6, 16 long (RFC 4861, 4.3).
    let target = "@th,64,128";
    let (own, own_link_local) = (format!("{:#034x}", u128::from(v6)), format!("{:#034x}", u128::from(link_local)));
    let _ = write!(
        out,
        "  chain {chain} {{
    ether saddr != {mac} counter drop comment \"mac\"
    ether type != {{ arp, ip, ip6 }} counter drop comment \"ether_type\"
    ether type arp goto {chain}_arp
    ether type ip goto {chain}_ip
    goto {chain}_ip6
  }}
  chain {chain}_arp {{
    arp htype != 1 counter drop comment \"arp\"
    arp ptype != ip counter drop comment \"arp\"
    arp hlen != 6 counter drop comment \"arp\"
    arp plen != 4 counter drop comment \"arp\"
    arp saddr ether != {mac} counter drop comment \"arp\"
    arp saddr ip {v4} accept
    arp operation request arp saddr ip 0.0.0.0 arp daddr ip {v4} accept
    counter drop comment \"arp\"
  }}
  chain {chain}_ip {{
    udp dport {{ 67, 68 }} counter drop comment \"dhcp\"
    ip saddr != {v4} counter drop comment \"ipv4\"
    ether daddr {gateway} ip daddr {net4} ip daddr != {gateway4} counter drop comment \"hairpin\"
    accept
  }}
  chain {chain}_ip6 {{
    ip6 saddr :: icmpv6 type nd-neighbor-solicit {target} {own} accept
    ip6 saddr :: icmpv6 type nd-neighbor-solicit {target} {own_link_local} accept
    ip6 saddr != {{ {v6}, {link_local} }} counter drop comment \"ipv6\"
    icmpv6 type {{ nd-router-advert, nd-redirect }} counter drop comment \"router\"
    icmpv6 type nd-neighbor-advert {target} != {own} {target} != {own_link_local} counter drop comment \"neighbour\"
    udp dport {{ 546, 547 }} counter drop comment \"dhcp\"
    ether daddr {gateway} ip6 daddr {net6} ip6 daddr != {gateway6} counter drop comment \"hairpin\"
    accept
  }}
",
        chain = port_chain(tap),
        net4 = network.v4,
        net6 = network.v6,
        gateway4 = network.gateway_v4,
        gateway6 = network.gateway_v6,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::desired::{Desired, Network, Port};

    fn wish(networks: Vec<Network>) -> Wish {
        let config = Config::new("abcd", "/nonexistent", "fd12:3456:789a::/48".parse().unwrap());
        Wish::new(&config, &Desired { generation: 1, networks }).unwrap()
    }

    #[test]
    fn the_text_depends_on_what_is_wished_and_not_on_its_order() {
        let port = |offset: u8| Port::new(format!("p{offset}"), offset);
        let one =
            wish(vec![Network { number: 1, ports: vec![port(2), port(3)] }, Network { number: 2, ports: vec![] }]);
        let two =
            wish(vec![Network { number: 2, ports: vec![] }, Network { number: 1, ports: vec![port(3), port(2)] }]);
        assert_eq!(render(&one), render(&two));
        assert_ne!(render(&one), render(&wish(vec![])));
    }

    #[test]
    fn both_tables_go_before_they_come() {
        let text = render(&wish(vec![]));
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
        assert!(at("delete table inet vt_abcd") < at("table inet vt_abcd {"));
        assert!(at("delete table bridge vt_abcd") < at("table bridge vt_abcd {"));
        assert!(!text.contains("elements"), "an empty list is a syntax error");
    }
}
