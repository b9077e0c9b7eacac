//! Who reaches whom.

use crate::lab::{Guest, Node, Server, ask, missing, network, ping};

#[tokio::test]
async fn a_guest_reaches_its_gateway_its_neighbours_and_is_reached_by_the_host() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2, 3])]).await;
    let (one, two) = (Guest::boot(&node.handle, 1, 2).await, Guest::boot(&node.handle, 1, 3).await);
    let gateway = node.handle.prefixes().network(1).unwrap();

    assert!(ping(&one.space, gateway.gateway_v4, true));
    assert!(ping(&one.space, gateway.gateway_v6, true));

    let _servers = [Server::start(&two.space, two.at.v4, 80), Server::start(&two.space, two.at.v6, 80)];
    assert_eq!(ask(&node.space, two.at.v4, 80, true).unwrap(), format!("from {}: hello", gateway.gateway_v4));
    assert_eq!(ask(&node.space, two.at.v6, 80, true).unwrap(), format!("from {}: hello", gateway.gateway_v6));
    assert_eq!(ask(&one.space, two.at.v4, 80, true).unwrap(), format!("from {}: hello", one.at.v4));
    assert_eq!(ask(&one.space, two.at.v6, 80, true).unwrap(), format!("from {}: hello", one.at.v6));
}

#[tokio::test]
async fn two_projects_do_not_meet() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2]), network(2, &[2])]).await;
    let (one, two) = (Guest::boot(&node.handle, 1, 2).await, Guest::boot(&node.handle, 2, 2).await);
    let _servers = [Server::start(&two.space, two.at.v4, 80), Server::start(&two.space, two.at.v6, 80)];
    assert!(ask(&node.space, two.at.v4, 80, true).is_some(), "the server is there");
    assert!(ask(&node.space, two.at.v6, 80, true).is_some());

    assert_eq!(ask(&one.space, two.at.v4, 80, false), None);
    assert_eq!(ask(&one.space, two.at.v6, 80, false), None);
    assert!(!ping(&one.space, two.at.v4, false) && !ping(&one.space, two.at.v6, false));
    assert!(node.dropped("between_networks").await >= 4);

    // Nor the other's gateway, which is an address of the host.
    let theirs = node.handle.prefixes().network(2).unwrap();
    assert!(!ping(&one.space, theirs.gateway_v4, false) && !ping(&one.space, theirs.gateway_v6, false));
}

#[tokio::test]
async fn a_guest_reaches_no_service_of_the_host_at_any_of_its_addresses() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2])]).await;
    let _outside = node.outside();
    let guest = Guest::boot(&node.handle, 1, 2).await;
    let gateway = node.handle.prefixes().network(1).unwrap();
    let _servers = [
        Server::start(&node.space, std::net::Ipv4Addr::UNSPECIFIED, 22),
        Server::start(&node.space, std::net::Ipv6Addr::UNSPECIFIED, 23),
    ];
    assert!(ask(&node.space, gateway.gateway_v4, 22, true).is_some(), "the service is there");
    assert!(ask(&node.space, gateway.gateway_v6, 23, true).is_some());

    assert_eq!(ask(&guest.space, gateway.gateway_v4, 22, false), None);
    assert_eq!(ask(&guest.space, gateway.gateway_v6, 23, false), None);
    assert_eq!(ask(&guest.space, std::net::Ipv4Addr::new(192, 0, 2, 1), 22, false), None);
    assert_eq!(ask(&guest.space, "2001:db8:ff::1".parse::<std::net::IpAddr>().unwrap(), 23, false), None);
    assert!(node.dropped("to_host").await >= 4);
    assert!(ping(&guest.space, gateway.gateway_v4, true), "and is not cut off");
}

#[tokio::test]
async fn isolated_ports_reach_the_gateway_and_not_each_other() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let mut apart = network(1, &[2, 3]);
    apart.ports.iter_mut().for_each(|port| port.isolated = true);
    node.apply(vec![apart]).await;
    let (one, two) = (Guest::boot(&node.handle, 1, 2).await, Guest::boot(&node.handle, 1, 3).await);
    let gateway = node.handle.prefixes().network(1).unwrap().gateway_v4;
    assert!(ping(&one.space, gateway, true));
    assert!(!ping(&one.space, two.at.v4, false) && !ping(&one.space, two.at.v6, false));

    // Nor by asking the gateway to carry it.
    one.space.ip(&format!("route add {}/32 via {gateway}", two.at.v4));
    one.space.ip(&format!("-6 route add {}/128 via fe80::1 dev eth0", two.at.v6));
    two.space.ip(&format!("route add {}/32 via {gateway}", one.at.v4));
    two.space.ip(&format!("-6 route add {}/128 via fe80::1 dev eth0", one.at.v6));
    assert!(!ping(&one.space, two.at.v4, false) && !ping(&one.space, two.at.v6, false));
    assert!(node.dropped("hairpin").await >= 2);
    one.space.ip(&format!("route del {}/32", two.at.v4));
    two.space.ip(&format!("route del {}/32", one.at.v4));

    node.apply(vec![network(1, &[2, 3])]).await;
    assert!(ping(&one.space, two.at.v4, true), "the same ports, no longer isolated");
}
