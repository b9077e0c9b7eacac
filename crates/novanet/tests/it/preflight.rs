//! What a machine must have.

use novanet::{Error, Preflight, preflight};

use crate::lab::{Node, Space, config, missing, network, open};

fn looked(space: &Space) -> Preflight {
    space.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(preflight(&config(std::path::Path::new("/nonexistent"))))
    })
}

#[test]
fn a_plain_machine_passes() {
    if missing().is_some() {
        return;
    }
    let found = looked(&Space::new());
    assert!(found.errors.is_empty() && found.warnings.is_empty(), "{found:?}");
}

#[test]
fn someone_elses_range_is_refused_by_name_and_a_free_one_is_offered() {
    if missing().is_some() {
        return;
    }
    let space = Space::new();
    space.ip("link add docker0 type bridge");
    space.ip("addr add 10.244.0.1/16 dev docker0");
    space.ip("link set docker0 up");
    let found = looked(&space);
    let codes: Vec<_> = found.errors.iter().map(Error::code).collect();
    assert_eq!(codes, ["network_prefix_taken"], "{found:?}");
    assert!(found.errors[0].to_string().contains("docker0"), "{}", found.errors[0]);
    assert_eq!(found.errors[0].hint(), "set the v4 prefix to 10.192.0.0/12");
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open(&space, config(folder.path())), Err(Error::PrefixTaken { .. })));
    assert_eq!(space.nft("list ruleset"), "", "and nothing was changed");
}

#[test]
fn a_broad_route_to_elsewhere_is_a_warning() {
    if missing().is_some() {
        return;
    }
    let space = Space::new();
    space.ip("link add up0 type veth peer name up1");
    space.ip("addr add 192.0.2.1/24 dev up0");
    space.ip("link set up0 up");
    space.ip("route add 10.0.0.0/8 via 192.0.2.2");
    let found = looked(&space);
    assert!(found.errors.is_empty(), "{found:?}");
    assert!(matches!(found.warnings[..], [Error::PrefixTaken { .. }]), "{found:?}");
}

#[tokio::test]
async fn its_own_networks_are_no_collision() {
    if missing().is_some() {
        return;
    }
    let mut node = Node::new();
    node.apply(vec![network(1, &[2])]).await;
    let found = looked(&node.space);
    assert!(found.errors.is_empty() && found.warnings.is_empty(), "{found:?}");
}

#[test]
fn every_error_has_a_code_and_a_hint() {
    let samples = [
        Error::NotRoot,
        Error::NftMissing,
        Error::Ipv6Missing,
        Error::Closed,
        Error::TunMissing { source: std::io::Error::from(std::io::ErrorKind::NotFound) },
        Error::PortOffset { offset: 1 },
    ];
    for error in samples {
        assert!(!error.code().contains(' ') && !error.hint().is_empty() && !error.to_string().is_empty());
    }
}
