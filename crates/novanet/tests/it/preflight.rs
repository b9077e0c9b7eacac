//! What a machine must have.

use novanet::{Error, Preflight, preflight};

use crate::lab::{Node, Space, config, missing, network, open};

fn looked(space: &Space) -> Preflight {
    space.run(look)
}

fn look() -> Preflight {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(preflight(&config(std::path::Path::new("/nonexistent"))))
}

fn codes(found: &Preflight) -> Vec<&'static str> {
    found.errors.iter().map(Error::code).collect()
}

/// Looks again with a part of the file system covered, which ends with the space.
fn without(cover: impl FnOnce() + Send + 'static) -> Preflight {
    Space::new().run(move || {
        cover();
        look()
    })
}

#[test]
fn what_is_missing_has_a_name() {
    use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
    if missing().is_some() {
        return;
    }
    let covered = without(|| mount("none", "/dev/net", "tmpfs", MountFlags::empty(), None).unwrap());
    assert_eq!(codes(&covered), ["tun_missing"], "{covered:?}");

    let covered = without(|| {
        for folder in ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin"] {
            let nft = format!("{folder}/nft");
            if std::path::Path::new(&nft).exists() {
                mount_bind("/dev/null", &nft).unwrap();
            }
        }
    });
    assert_eq!(codes(&covered), ["nft_missing"], "{covered:?}");
    assert!(covered.errors[0].hint().contains("apt-get install nftables"));

    let covered = without(|| {
        mount_bind("/proc/sys", "/proc/sys").unwrap();
        mount_remount("/proc/sys", MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    });
    assert_eq!(codes(&covered), ["sysctl_read_only"], "{covered:?}");
}

#[test]
fn without_root_that_is_all_it_says() {
    if missing().is_some() {
        return;
    }
    let found = Space::new().run(|| {
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        look()
    });
    assert_eq!(codes(&found), ["not_root"]);
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
    assert_eq!(codes(&found), ["network_prefix_taken"], "{found:?}");
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

#[test]
fn a_nameserver_in_the_range_is_a_warning() {
    if missing().is_some() || !std::path::Path::new("/etc/resolv.conf").exists() {
        return;
    }
    let found = looked(&Space::resolving("10.255.255.53"));
    assert!(found.errors.is_empty(), "{found:?}");
    assert_eq!(found.warnings.len(), 1);
    assert!(found.warnings[0].to_string().contains("nameserver"), "{}", found.warnings[0]);
    assert_eq!(found.warnings[0].hint(), "set the v4 prefix to 10.192.0.0/12");
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
