//! A guest that lies about who it is. Each lie is told by a frame written by hand, beside a true one told the same way
//! that does arrive.

use std::net::{Ipv4Addr, Ipv6Addr};

use novanet::Mac;

use crate::lab::frame::{
    ETH_ARP, ETH_IP, ETH_IP6, advertisement, arp, ethernet, router_advertisement, tagged, udp4, udp6,
};
use crate::lab::{Guest, Node, missing, network};

const BROADCAST: Mac = Mac([0xff; 6]);

struct Scene {
    node: Node,
    liar: Guest,
    victim: Guest,
}

impl Scene {
    async fn new() -> Self {
        let mut node = Node::new();
        node.apply(vec![network(1, &[2, 3, 4])]).await;
        let (liar, victim) = (Guest::boot(&node.handle, 1, 2).await, Guest::boot(&node.handle, 1, 3).await);
        Self { node, liar, victim }
    }

    /// The liar sends `payload` to the victim under its own MAC.
    fn frame(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        ethernet(self.victim.at.mac, self.liar.at.mac, kind, payload)
    }

    async fn arrives(&self, frame: &[u8], mark: &[u8]) {
        self.liar.inject(frame);
        assert!(self.victim.receives(mark, true), "{mark:?} should arrive");
    }

    /// It does not arrive, and the rule with this reason counted it.
    async fn is_dropped(&self, frame: &[u8], mark: &[u8], reason: &str) {
        let before = self.node.dropped(reason).await;
        self.liar.inject(frame);
        assert!(!self.victim.receives(mark, false), "{} should be dropped as {reason}", String::from_utf8_lossy(mark));
        assert_eq!(self.node.dropped(reason).await, before + 1, "{reason}");
    }
}

#[tokio::test]
async fn forged_sources_go_nowhere() {
    if missing().is_some() {
        return;
    }
    let scene = Scene::new().await;
    let (me, victim) = (scene.liar.at, scene.victim.at);
    let another = scene.node.handle.prefixes().port(1, 4).unwrap();

    scene.arrives(&scene.frame(ETH_IP, &udp4(me.v4, victim.v4, 9, b"true-v4")), b"true-v4").await;
    for (forged, mark) in [
        (another.v4, "a-neighbour"),
        (scene.node.handle.prefixes().network(1).unwrap().gateway_v4, "the-gateway"),
        (Ipv4Addr::new(8, 8, 8, 8), "the-world"),
        (Ipv4Addr::UNSPECIFIED, "nobody"),
    ] {
        let mark = mark.as_bytes();
        scene.is_dropped(&scene.frame(ETH_IP, &udp4(forged, victim.v4, 9, mark)), mark, "ipv4").await;
    }

    scene.arrives(&scene.frame(ETH_IP6, &udp6(me.v6, victim.v6, 9, b"true-v6")), b"true-v6").await;
    scene.arrives(&scene.frame(ETH_IP6, &udp6(me.link_local, victim.link_local, 9, b"true-ll")), b"true-ll").await;
    for (forged, mark) in [
        (another.v6, "a-neighbour"),
        (another.link_local, "a-neighbours-link"),
        ("fe80::1".parse().unwrap(), "the-gateway"),
        ("2001:db8::1".parse().unwrap(), "the-world"),
        (Ipv6Addr::UNSPECIFIED, "nobody"),
    ] {
        let mark = mark.as_bytes();
        scene.is_dropped(&scene.frame(ETH_IP6, &udp6(forged, victim.v6, 9, mark)), mark, "ipv6").await;
    }

    for (forged, mark) in [(another.mac, "a-neighbours-mac"), (novanet::address::GATEWAY_MAC, "the-gateways-mac")] {
        let packet = udp4(me.v4, victim.v4, 9, mark.as_bytes());
        scene.is_dropped(&ethernet(victim.mac, forged, ETH_IP, &packet), mark.as_bytes(), "mac").await;
    }
}

#[tokio::test]
async fn what_is_no_ip_or_hides_in_a_tag_goes_nowhere() {
    if missing().is_some() {
        return;
    }
    let scene = Scene::new().await;
    let (me, victim) = (scene.liar.at, scene.victim.at);
    scene.is_dropped(&scene.frame(0x88b5, b"experimental-ether-type"), b"experimental", "ether_type").await;
    let another = scene.node.handle.prefixes().port(1, 4).unwrap();
    for (source, mark) in [(me.v4, "honest-in-a-tag"), (another.v4, "forged-in-a-tag")] {
        let frame = tagged(&scene.frame(ETH_IP, &udp4(source, victim.v4, 9, mark.as_bytes())), 5);
        scene.is_dropped(&frame, mark.as_bytes(), "ether_type").await;
        let priority = tagged(&scene.frame(ETH_IP, &udp4(source, victim.v4, 9, mark.as_bytes())), 0);
        scene.is_dropped(&priority, mark.as_bytes(), "ether_type").await;
    }
}

#[tokio::test]
async fn nobody_answers_for_another() {
    if missing().is_some() {
        return;
    }
    let scene = Scene::new().await;
    let (me, victim) = (scene.liar.at, scene.victim.at);
    let gateway = scene.node.handle.prefixes().network(1).unwrap();
    let to = (victim.mac, victim.v4);

    scene.arrives(&scene.frame(ETH_ARP, &arp(2, (me.mac, me.v4), to, b"true-arp")), b"true-arp").await;
    let announced = arp(1, (me.mac, me.v4), (Mac([0; 6]), me.v4), b"true-gratuitous");
    scene.arrives(&ethernet(BROADCAST, me.mac, ETH_ARP, &announced), b"true-gratuitous").await;
    for (from, mark) in [
        ((me.mac, gateway.gateway_v4), "i-am-the-gateway"),
        ((me.mac, victim.v4), "i-am-you"),
        ((gateway.gateway_mac, me.v4), "i-am-at-its-mac"),
        ((me.mac, Ipv4Addr::UNSPECIFIED), "probe-for-another"),
    ] {
        let packet = arp(1, from, to, mark.as_bytes());
        scene.is_dropped(&ethernet(BROADCAST, me.mac, ETH_ARP, &packet), mark.as_bytes(), "arp").await;
    }
    let probe = arp(1, (me.mac, Ipv4Addr::UNSPECIFIED), (Mac([0; 6]), me.v4), b"probe-for-itself");
    scene.arrives(&ethernet(BROADCAST, me.mac, ETH_ARP, &probe), b"probe-for-itself").await;

    let told = |target, mark| scene.frame(ETH_IP6, &advertisement(me.v6, victim.v6, target, me.mac, mark));
    scene.arrives(&told(me.v6, *b"true-1"), b"true-1").await;
    scene.arrives(&told(me.link_local, *b"true-2"), b"true-2").await;
    scene.is_dropped(&told(gateway.gateway_link_local, *b"liar-1"), b"liar-1", "neighbour").await;
    scene.is_dropped(&told(gateway.gateway_v6, *b"liar-2"), b"liar-2", "neighbour").await;
    scene.is_dropped(&told(victim.v6, *b"liar-3"), b"liar-3", "neighbour").await;
}

#[tokio::test]
async fn nobody_routes_or_hands_out_addresses() {
    if missing().is_some() {
        return;
    }
    let scene = Scene::new().await;
    let (me, victim) = (scene.liar.at, scene.victim.at);
    let all = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let router = ethernet(all, me.mac, ETH_IP6, &router_advertisement(me.link_local, *b"router"));
    scene.is_dropped(&router, b"router", "router").await;
    let routes = scene.victim.space.ip("-6 route show default");
    assert!(routes.contains("fe80::1") && !routes.contains(" ra "), "{routes}");
    for port in [67, 68] {
        let packet = udp4(me.v4, victim.v4, port, b"dhcp-lease");
        scene.is_dropped(&scene.frame(ETH_IP, &packet), b"dhcp-lease", "dhcp").await;
    }
    for port in [546, 547] {
        let packet = udp6(me.v6, victim.v6, port, b"dhcp6-lease");
        scene.is_dropped(&scene.frame(ETH_IP6, &packet), b"dhcp6-lease", "dhcp").await;
    }
}

#[tokio::test]
async fn frames_for_others_are_not_overheard() {
    if missing().is_some() {
        return;
    }
    let scene = Scene::new().await;
    let me = scene.liar.at;
    // Port 4 has no guest: a learning, flooding bridge would show its frames to everybody.
    let absent = scene.node.handle.prefixes().port(1, 4).unwrap();
    let packet = udp4(me.v4, absent.v4, 9, b"not-for-you");
    scene.liar.inject(&ethernet(absent.mac, me.mac, ETH_IP, &packet));
    let packet = udp4(me.v4, absent.v4, 9, b"not-for-anyone");
    scene.liar.inject(&ethernet(Mac([2, 0, 0, 0, 0, 9]), me.mac, ETH_IP, &packet));
    assert!(!scene.victim.receives(b"not-for-", false));
}

#[tokio::test]
async fn a_tap_that_no_rule_names_is_mute() {
    if missing().is_some() {
        return;
    }
    let scene = Scene::new().await;
    // As between the making of a device and its rules, were they made in the wrong order.
    let (space, name) = (&scene.node.space, "vt0a1bp00163");
    let stranger = space.run(move || novanet::tap::attach(name)).unwrap();
    space.ip(&format!("link set {name} master vt0a1bn001"));
    space.ip(&format!("link set {name} up"));
    let (me, victim) = (scene.node.handle.prefixes().port(1, 0x63).unwrap(), scene.victim.at);
    let packet = udp4(me.v4, victim.v4, 9, b"from-nowhere");
    let frame = [vec![0; 10], ethernet(victim.mac, me.mac, ETH_IP, &packet)].concat();
    let before = scene.node.dropped("no_port").await;
    rustix::io::write(&stranger, &frame).unwrap();
    assert!(!scene.victim.receives(b"from-nowhere", false));
    assert_eq!(scene.node.dropped("no_port").await, before + 1);
}
