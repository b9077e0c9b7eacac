//! The way out, and what may not come in by it.

use std::net::{IpAddr, Ipv4Addr};

use crate::lab::{Guest, Node, Server, ask, connect, missing, network};

const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn outside_v6() -> IpAddr {
    "2001:db8:ff::2".parse().unwrap()
}

#[tokio::test]
async fn guests_go_out_behind_the_nodes_address_in_both_families() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let outside = node.outside();
    node.apply(vec![network(1, &[2])]).await;
    let guest = Guest::boot(&node.handle, 1, 2).await;
    let _servers = [Server::start(&outside, OUTSIDE_V4, 80), Server::start(&outside, outside_v6(), 80)];
    assert_eq!(ask(&guest.space, OUTSIDE_V4, 80, true).unwrap(), "from 192.0.2.1: hello");
    assert_eq!(ask(&guest.space, outside_v6(), 80, true).unwrap(), "from 2001:db8:ff::1: hello");
}

#[tokio::test]
async fn the_outside_opens_nothing_to_a_guest() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let outside = node.outside();
    node.apply(vec![network(1, &[2])]).await;
    let guest = Guest::boot(&node.handle, 1, 2).await;
    let _servers = [Server::start(&guest.space, guest.at.v4, 80), Server::start(&guest.space, guest.at.v6, 80)];
    outside.ip("route add 10.240.0.0/12 via 192.0.2.1");
    outside.ip("-6 route add fd12:3456:789a::/48 via 2001:db8:ff::1");
    assert!(ask(&node.space, guest.at.v4, 80, true).is_some(), "the server is there");
    assert_eq!(ask(&outside, guest.at.v4, 80, false), None);
    assert_eq!(ask(&outside, guest.at.v6, 80, false), None);
    assert!(node.dropped("unasked").await >= 2);
}

#[tokio::test]
async fn egress_may_be_closed() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::with(|config| config.egress = false);
    let outside = node.outside();
    node.apply(vec![network(1, &[2])]).await;
    let guest = Guest::boot(&node.handle, 1, 2).await;
    let _servers = [Server::start(&outside, OUTSIDE_V4, 80), Server::start(&outside, outside_v6(), 80)];
    assert!(ask(&node.space, OUTSIDE_V4, 80, true).is_some(), "the server is there");
    assert_eq!(ask(&guest.space, OUTSIDE_V4, 80, false), None);
    assert_eq!(ask(&guest.space, outside_v6(), 80, false), None);
    assert!(node.dropped("egress_off").await >= 2);
    let _inside = Server::start(&guest.space, guest.at.v4, 80);
    assert!(ask(&node.space, guest.at.v4, 80, true).is_some(), "answers still pass");
}

#[tokio::test]
async fn the_machines_own_metadata_service_is_out_of_reach() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let outside = node.outside();
    outside.ip("addr add 169.254.169.254/32 dev lo");
    node.apply(vec![network(1, &[2])]).await;
    let guest = Guest::boot(&node.handle, 1, 2).await;
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let _server = Server::start(&outside, metadata, 80);
    assert!(ask(&node.space, metadata, 80, true).is_some(), "the node itself reaches it");
    assert_eq!(ask(&guest.space, metadata, 80, false), None);
    assert!(node.dropped("metadata").await >= 1);
}

#[tokio::test]
async fn replacing_the_rules_breaks_no_connection_and_opens_no_gap() {
    use crate::lab::frame::{ETH_IP, ethernet, udp4};
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let outside = node.outside();
    node.apply(vec![network(1, &[2, 3])]).await;
    let (guest, witness) = (Guest::boot(&node.handle, 1, 2).await, Guest::boot(&node.handle, 1, 3).await);
    let _server = Server::start(&outside, OUTSIDE_V4, 80);
    let mut out = connect(&guest.space, OUTSIDE_V4, 80);
    let _inside = Server::start(&guest.space, guest.at.v4, 81);
    let mut within = connect(&node.space, guest.at.v4, 81);

    let forged = udp4(Ipv4Addr::new(6, 6, 6, 6), witness.at.v4, 9, b"through-the-gap");
    let forged = ethernet(witness.at.mac, guest.at.mac, ETH_IP, &forged);
    for round in 0..12_u16 {
        let line = format!("round {round}");
        assert_eq!(out(&line).unwrap(), format!("from 192.0.2.1: {line}"));
        assert!(within(&line).unwrap().ends_with(&line));
        let networks = vec![network(1, &[2, 3]), network(10 + round, &[2])];
        let replaced = async {
            let applied = node.apply(networks).await;
            assert!(applied.rules_replaced, "another network, other rules");
            true
        };
        tokio::pin!(replaced);
        // The liar goes on all through the replacement.
        let mut done = false;
        while !done {
            guest.inject(&forged);
            done = tokio::time::timeout(std::time::Duration::from_micros(200), &mut replaced).await.unwrap_or(false);
        }
    }
    assert!(out("last").is_some() && within("last").is_some());
    assert!(!witness.receives(b"through-the-gap", false), "no forged frame slipped through");
}

#[tokio::test]
async fn a_narrow_link_outside_is_no_black_hole() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let outside = node.outside();
    node.space.ip("link set up0 mtu 1300");
    outside.ip("link set up1 mtu 1300");
    node.apply(vec![network(1, &[2])]).await;
    let guest = Guest::boot(&node.handle, 1, 2).await;
    let _servers = [Server::start(&outside, OUTSIDE_V4, 80), Server::start(&outside, outside_v6(), 80)];
    let long = "x".repeat(4000);
    for address in [IpAddr::from(OUTSIDE_V4), outside_v6()] {
        let mut ask = connect(&guest.space, address, 80);
        assert!(ask(&long).is_some(), "{address}");
    }
}
