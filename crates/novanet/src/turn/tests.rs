//! Tables of seen and wished, and the steps that lie between.

use super::*;
use crate::config::Config;
use crate::desired::{Desired, Network, Port};

fn wish() -> Wish {
    let config = Config::new("abcd", "/nonexistent", "fd12:3456:789a::/48".parse().unwrap());
    let networks = vec![Network { number: 1, ports: vec![Port::new("a", 2)] }];
    Wish::new(&config, &Desired { generation: 1, networks }).unwrap()
}

/// A machine on which `wish` has come true.
fn fulfilled(wish: &Wish) -> (Devices, Settings) {
    let mut devices = Devices::new();
    for bridge in &wish.bridges {
        let mut device = bare(&bridge.name, Kind::Bridge, wish.mtu);
        device.mac = Some(GATEWAY_MAC);
        device.snooping = Some(false);
        device.addresses = gateway_addresses(bridge).into();
        for tap in &bridge.taps {
            device.neighbours.extend(neighbour_addresses(tap).map(|address| (address, tap.at.mac)));
            let mut port = bare(&tap.name, Kind::Tap, wish.mtu);
            port.bridge = Some(bridge.name.clone());
            port.flags = Some(port_flags(tap));
            port.forwards = [tap.at.mac].into();
            devices.insert(port.name.clone(), port);
        }
        devices.insert(device.name.clone(), device);
    }
    (devices, sysctl::all(wish))
}

fn bare(name: &str, kind: Kind, mtu: u32) -> Device {
    Device {
        name: name.to_owned(),
        index: 1,
        kind,
        up: true,
        carrier: false,
        mtu,
        mac: None,
        bridge: None,
        snooping: None,
        flags: None,
        addresses: [].into(),
        neighbours: [].into(),
        forwards: [].into(),
    }
}

#[test]
fn a_wish_that_came_true_needs_nothing() {
    let wish = wish();
    let (devices, settings) = fulfilled(&wish);
    assert_eq!(plan(&wish, &devices, &settings).unwrap(), Turn::default());
}

#[test]
fn from_nothing_devices_are_complete_before_they_are_up() {
    let turn = plan(&wish(), &Devices::new(), &Settings::new()).unwrap();
    assert!(turn.before.is_empty());
    let at = |wanted: &Step| turn.after.iter().position(|step| step == wanted).unwrap();
    let (bridge, tap) = ("vtabcdn001".to_owned(), "vtabcdp00102".to_owned());
    assert_eq!(at(&Step::AddBridge { name: bridge.clone() }), 0);
    let up = at(&Step::SetUp { name: bridge.clone() });
    assert!(at(&Step::Setting { path: format!("ipv6/conf/{bridge}/accept_dad"), value: "0".to_owned() }) < up);
    assert!(up < at(&Step::AddTap { name: tap.clone() }));
    assert!(at(&Step::SetBridge { name: tap.clone(), bridge }) < at(&Step::SetUp { name: tap.clone() }));
    assert_eq!(at(&Step::SetUp { name: tap }), turn.after.len() - 1);
}

#[test]
fn each_drift_has_its_own_repair() {
    type Damage = fn(&mut Devices, &mut Settings);
    let (bridge, tap) = ("vtabcdn001", "vtabcdp00102");
    let table: [(Damage, &str); 9] = [
        (|d, _| d.get_mut("vtabcdn001").unwrap().up = false, "SetUp"),
        (|d, _| d.get_mut("vtabcdn001").unwrap().mtu = 1500, "SetMtu"),
        (|d, _| d.get_mut("vtabcdn001").unwrap().snooping = Some(true), "SetSnooping"),
        (|d, _| d.get_mut("vtabcdn001").unwrap().addresses.clear(), "AddAddress"),
        (|d, _| d.get_mut("vtabcdn001").unwrap().neighbours.clear(), "SetNeighbour"),
        (|d, _| d.get_mut("vtabcdp00102").unwrap().bridge = None, "SetBridge"),
        (|d, _| d.get_mut("vtabcdp00102").unwrap().forwards.clear(), "AddForward"),
        (|d, _| d.get_mut("vtabcdp00102").unwrap().flags.as_mut().unwrap().learning = true, "SetFlags"),
        (|_, s| drop(s.insert("ipv4/conf/vtabcdn001/arp_ignore".to_owned(), "0".to_owned())), "Setting"),
    ];
    for (damage, repair) in table {
        let wish = wish();
        let (mut devices, mut settings) = fulfilled(&wish);
        damage(&mut devices, &mut settings);
        let turn = plan(&wish, &devices, &settings).unwrap();
        assert!(turn.before.is_empty());
        assert!(turn.after.iter().any(|step| format!("{step:?}").starts_with(repair)), "{repair}: {turn:?}");
        assert!(!turn.after.iter().any(|step| matches!(step, Step::AddBridge { .. } | Step::AddTap { .. })));
    }
    assert_eq!((bridge.len(), tap.len()), (10, 12));
}

#[test]
fn ours_and_unwished_goes_and_the_rest_stays() {
    let wish = wish();
    let (mut devices, settings) = fulfilled(&wish);
    for (name, kind) in [
        ("vtabcdn002", Kind::Bridge),
        ("vtabcdp00202", Kind::Tap),
        ("vtabcdn003", Kind::Other),
        ("vtabcdebr", Kind::Bridge),
        ("vtffffn001", Kind::Bridge),
        ("eth0", Kind::Other),
    ] {
        devices.insert(name.to_owned(), bare(name, kind, 1500));
    }
    let turn = plan(&wish, &devices, &settings).unwrap();
    let gone = |name: &str| Step::DeleteDevice { name: name.to_owned() };
    assert_eq!(turn.before, [gone("vtabcdp00202"), gone("vtabcdn002")]);
    assert!(turn.after.is_empty());
}

#[test]
fn a_strangers_device_under_a_wished_name_is_not_touched() {
    let wish = wish();
    let (mut devices, settings) = fulfilled(&wish);
    devices.get_mut("vtabcdn001").unwrap().kind = Kind::Other;
    assert!(matches!(plan(&wish, &devices, &settings), Err(Error::DeviceTaken { .. })));
}
