//! Coming, drifting, crashing, going.

use novanet::{Desired, Error};

use crate::lab::{Guest, Node, Server, ask, missing, network, ping};

#[tokio::test]
async fn a_second_apply_of_the_same_changes_nothing() {
    if missing().is_some() {
        return;
    }
    let node = Node::new();
    let desired = Desired { generation: 5, networks: vec![network(1, &[2, 3]), network(2, &[2])] };
    let first = node.handle.apply(desired.clone()).await.unwrap();
    assert!(first.rules_replaced && !first.changed.is_empty());
    let again = node.handle.apply(desired.clone()).await.unwrap();
    assert_eq!((again.changed, again.rules_replaced), (vec![], false));
    let checks = node.handle.verify().await.unwrap();
    assert!(checks.iter().all(|check| check.ok), "{checks:#?}");
    assert!(checks.len() > 7);

    let stale = Desired { generation: 4, ..desired };
    assert!(matches!(node.handle.apply(stale).await, Err(Error::Generation { given: 4, held: 5 })));
    let seen = node.handle.observe().await.unwrap();
    assert_eq!((seen.generation, seen.bridges.len(), seen.taps.len(), seen.tables.len()), (Some(5), 2, 3, 2));
    assert!(seen.tables.iter().all(|table| table.current));
}

#[tokio::test]
async fn a_refused_state_leaves_the_last_good_one_alone() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2])]).await;
    let before = node.handle.observe().await.unwrap();
    for networks in [vec![network(1, &[2, 2])], vec![network(4096, &[])], vec![network(3, &[1])]] {
        assert!(node.handle.apply(Desired { generation: 9, networks }).await.is_err());
    }
    assert_eq!(node.handle.observe().await.unwrap(), before);
}

#[tokio::test]
async fn deleted_networks_and_ports_leave_and_the_others_do_not_notice() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2, 3]), network(2, &[2])]).await;
    let stays = Guest::boot(&node.handle, 1, 2).await;
    let goes = Guest::boot(&node.handle, 2, 2).await;
    let _server = Server::start(&stays.space, stays.at.v4, 80);
    node.apply(vec![network(1, &[2])]).await;
    let seen = node.handle.observe().await.unwrap();
    let names: Vec<&str> = seen.bridges.iter().chain(&seen.taps).map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["vt0a1bn001", "vt0a1bp00102"]);
    assert_eq!(seen.bridges[0].neighbours.len(), 3, "those of the port that stays");
    assert!(!node.space.nft("list ruleset").contains("00202"));
    assert!(ask(&node.space, stays.at.v4, 80, true).is_some());
    let gateway = node.handle.prefixes().network(2).unwrap().gateway_v4;
    assert!(!ping(&goes.space, gateway, false));
    assert!(matches!(node.handle.attach(2, 2).await, Err(Error::PortUnknown { .. })));
}

#[tokio::test]
async fn a_guest_that_goes_and_comes_back_finds_its_place() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let networks = vec![network(1, &[2])];
    node.apply(networks.clone()).await;
    for _ in 0..2 {
        let guest = Guest::boot(&node.handle, 1, 2).await;
        let second = node.handle.attach(1, 2).await;
        assert!(matches!(second, Err(Error::Tap { .. })), "one hypervisor at a time");
        let _servers = [Server::start(&guest.space, guest.at.v4, 80), Server::start(&guest.space, guest.at.v6, 80)];
        assert!(ask(&node.space, guest.at.v4, 80, true).is_some());
        assert!(ask(&node.space, guest.at.v6, 80, true).is_some());
        drop(guest);
        let seen = node.handle.observe().await.unwrap();
        assert!(seen.taps.len() == 1 && !seen.taps[0].carrier);
        let again = node.handle.apply(Desired { generation: 1, networks: networks.clone() }).await.unwrap();
        assert!(again.changed.is_empty() && !again.rules_replaced, "{again:?}");
    }
}

#[tokio::test]
async fn a_well_filled_node_is_applied_whole() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let offsets: Vec<u8> = (2..27).collect();
    let networks: Vec<_> = (0..12).map(|number| network(number, &offsets)).collect();
    node.apply(networks).await;
    let seen = node.handle.observe().await.unwrap();
    assert_eq!((seen.bridges.len(), seen.taps.len()), (12, 300));
    assert!(node.handle.verify().await.unwrap().iter().all(|check| check.ok));
    let guest = Guest::boot(&node.handle, 11, 26).await;
    assert!(ping(&guest.space, node.handle.prefixes().network(11).unwrap().gateway_v6, true));
    node.apply(vec![]).await;
    let seen = node.handle.observe().await.unwrap();
    assert!(seen.bridges.is_empty() && seen.taps.is_empty());
}

#[tokio::test]
async fn clear_leaves_the_machine_as_it_was() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let _outside = node.outside();
    let look = |node: &Node| {
        let links = node.space.ip("-o -br link show");
        let routes = [node.space.ip("route show"), node.space.ip("-6 route show")];
        let settings = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/up0/accept_ra"];
        (links, routes, settings.map(|path| node.space.sysctl(path)), node.space.nft("list ruleset"))
    };
    // A new namespace takes this over from the machine, and machines differ.
    node.space.set_sysctl("ipv4/ip_forward", "0");
    node.space.set_sysctl("ipv6/conf/all/forwarding", "0");
    let before = look(&node);
    assert_eq!(before.2, ["0", "0", "1"]);
    assert_eq!(before.3, "");
    node.apply(vec![network(1, &[2, 3]), network(2, &[2])]).await;
    let during = look(&node);
    assert_eq!(during.2, ["1", "1", "2"], "forwarding, and the uplink still hears its router");
    let guest = Guest::boot(&node.handle, 1, 2).await;
    let cleared = node.handle.clear().await.unwrap();
    assert!(cleared.removed.len() >= 5, "{cleared:?}");
    assert_eq!(look(&node), before);
    drop(guest);
    let left: Vec<_> = std::fs::read_dir(node.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    // And it goes on as on a fresh node, at any generation.
    let again = Desired { generation: 1, networks: vec![network(1, &[2])] };
    assert!(node.handle.apply(again).await.unwrap().rules_replaced);
}

#[tokio::test]
async fn another_engines_things_are_not_touched() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.space.ip("link add vtffffn001 type bridge");
    node.space.ip("link add br0 type bridge");
    node.space.nft("add table inet vt_ffff");
    node.space.nft("add table inet filter");
    node.apply(vec![network(1, &[2])]).await;
    node.reopen().await;
    node.handle.clear().await.unwrap();
    let links = node.space.ip("-o -br link show");
    assert!(links.contains("vtffffn001") && links.contains("br0") && !links.contains("vt0a1b"), "{links}");
    assert_eq!(node.space.nft("list tables"), "table inet vt_ffff\ntable inet filter\n");
    assert_eq!(node.space.sysctl("ipv4/ip_forward"), "1", "the other engine still forwards");
}

#[tokio::test]
async fn after_a_crash_leftovers_are_swept_and_running_guests_stay_connected() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2])]).await;
    let guest = Guest::boot(&node.handle, 1, 2).await;
    let _server = Server::start(&guest.space, guest.at.v4, 80);
    // What an apply leaves that died before it was kept on disk.
    node.space.ip("link add vt0a1bn0ff type bridge");
    node.space.ip("tuntap add vt0a1bp0ff02 mode tap");
    let before = node.handle.observe().await.unwrap();
    assert_eq!((before.bridges.len(), before.taps.len()), (2, 2));

    node.reopen().await;
    let opened = node.handle.opened();
    assert_eq!(opened.swept, ["device vt0a1bp0ff02", "device vt0a1bn0ff"]);
    assert_eq!(opened.generation, Some(1));
    assert!(opened.restored.is_empty() && opened.warnings.is_empty(), "{opened:?}");
    let after = node.handle.observe().await.unwrap();
    assert_eq!(after.generation, Some(1));
    assert_eq!(after.taps.len(), 1);
    assert_eq!(after.taps[0].index, before.taps[0].index, "the same device, not one of the same name");
    assert!(ask(&node.space, guest.at.v4, 80, true).is_some());
}

#[tokio::test]
async fn without_a_last_good_state_all_of_ours_is_swept() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2])]).await;
    node.handle.clone().close().await;
    std::fs::remove_file(node.folder.path().join("desired.json")).unwrap();
    node.reopen().await;
    assert_eq!(node.handle.opened().swept.len(), 3);
    assert!(!node.space.ip("-o link show").contains("vt0a1b"));
    assert_eq!(node.space.nft("list ruleset"), "");
}

#[tokio::test]
async fn after_a_reboot_the_last_good_state_comes_back_without_the_control_plane() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2])]).await;
    node.handle.clone().close().await;
    node.space = crate::lab::Space::new();
    node.reopen().await;
    assert!(!node.handle.opened().restored.is_empty());
    assert!(node.handle.verify().await.unwrap().iter().all(|check| check.ok));
    let guest = Guest::boot(&node.handle, 1, 2).await;
    assert!(ping(&guest.space, node.handle.prefixes().network(1).unwrap().gateway_v4, true));
}

#[tokio::test]
async fn drift_is_named_by_verify_and_repaired_by_the_same_apply() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    let networks = vec![network(1, &[2])];
    node.apply(networks.clone()).await;
    let same = Desired { generation: 1, networks };
    let (bridge, tap) = ("vt0a1bn001", "vt0a1bp00102");
    let rule = |space: &crate::lab::Space| {
        let listing = space.nft("-a list chain inet vt_0a1b forward");
        let line = listing.lines().find(|line| line.contains("between_networks")).unwrap();
        let handle = line.rsplit(' ').next().unwrap().to_owned();
        space.nft(&format!("delete rule inet vt_0a1b forward handle {handle}"));
    };
    type Damage<'a> = Box<dyn Fn(&crate::lab::Space) + 'a>;
    let by_ip = |words: String| -> Damage<'_> { Box::new(move |space| drop(space.ip(&words))) };
    let by_nft = |words: &'static str| -> Damage<'_> { Box::new(move |space| drop(space.nft(words))) };
    let damages: Vec<(Damage<'_>, &str)> = vec![
        (by_ip(format!("link del {tap}")), "exists"),
        (by_ip(format!("link del {bridge}")), "exists"),
        (by_ip(format!("link set {bridge} down")), "up"),
        (by_ip(format!("link set {tap} down")), "up"),
        (by_ip(format!("link set {tap} nomaster")), "up"),
        (by_ip(format!("link set {bridge} mtu 1400")), "up"),
        (by_ip(format!("addr flush dev {bridge}")), "gateway"),
        (by_ip(format!("neigh del 10.240.1.2 dev {bridge}")), "neighbour"),
        (by_nft("delete table inet vt_0a1b"), "forward"),
        (by_nft("delete table bridge vt_0a1b"), "antispoof"),
        (by_nft("flush chain inet vt_0a1b postrouting"), "nat"),
        (by_nft("insert rule inet vt_0a1b to_host accept"), "host_guard"),
        (Box::new(rule), "forward"),
        (Box::new(|space| space.set_sysctl("ipv4/ip_forward", "0")), "forward"),
        (Box::new(|space| space.set_sysctl("ipv4/conf/vt0a1bn001/arp_ignore", "0")), "settings"),
    ];
    for (at, (damage, name)) in damages.iter().enumerate() {
        damage(&node.space);
        let checks = node.handle.verify().await.unwrap();
        assert!(checks.iter().any(|check| check.name == *name && !check.ok), "damage {at}, {name}: {checks:#?}");
        let applied = node.handle.apply(same.clone()).await.unwrap();
        assert!(applied.rules_replaced || !applied.changed.is_empty(), "damage {at}");
        let checks = node.handle.verify().await.unwrap();
        assert!(checks.iter().all(|check| check.ok), "damage {at}: {checks:#?}");
    }
    let guest = Guest::boot(&node.handle, 1, 2).await;
    let gateway = node.handle.prefixes().network(1).unwrap();
    assert!(ping(&guest.space, gateway.gateway_v4, true) && ping(&guest.space, gateway.gateway_v6, true));
}

#[tokio::test]
async fn a_foreign_firewall_that_drops_is_found() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2])]).await;
    node.space.nft("add table ip filter");
    let command = "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }";
    node.space.nft(command.strip_prefix("nft ").unwrap());
    let checks = node.handle.verify().await.unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| !check.ok).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].name, "foreign_firewall");
    assert!(failed[0].detail.contains("ip filter FORWARD"));
}

#[tokio::test]
async fn a_folder_has_one_engine() {
    if missing().is_some() {
        return;
    }
    let node = Node::new();
    let second = crate::lab::open(&node.space, node.config());
    assert!(matches!(second, Err(Error::StateLocked { .. })));
    assert!(node.handle.observe().await.is_ok());
    node.handle.clone().close().await;
    assert!(matches!(node.handle.observe().await, Err(Error::Closed)));
    assert!(crate::lab::open(&node.space, node.config()).is_ok());
}

#[tokio::test]
async fn applies_at_once_are_taken_one_by_one() {
    if missing().is_some() {
        return;
    }
    let node = Node::new();
    let applies = (1..=8_u16).map(|number| {
        let networks = (1..=number).map(|number| network(number, &[2])).collect();
        let handle = node.handle.clone();
        async move { handle.apply(Desired { generation: u64::from(number), networks }).await }
    });
    let results = futures::future::join_all(applies).await;
    assert!(results.iter().any(Result::is_ok));
    let seen = node.handle.observe().await.unwrap();
    assert_eq!((seen.generation, seen.bridges.len(), seen.taps.len()), (Some(8), 8, 8));
    assert!(node.handle.verify().await.unwrap().iter().all(|check| check.ok));
}
