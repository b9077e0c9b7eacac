//! Debian packages, by name.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::show;

/// What the cloud itself runs.
pub const RUN: &[(&str, &str)] = &[
    ("qemu-system-x86", "the hypervisor"),
    ("nftables", "packet filter of project networks"),
    ("iproute2", "looking at networks"),
    ("e2fsprogs", "writable layers"),
    ("ca-certificates", "registries over HTTPS"),
];

/// What makes and serves the sample images.
pub const SAMPLE: &[(&str, &str)] = &[
    ("umoci", "makes the sample image, as other people's images are made"),
    ("skopeo", "copies images to a registry"),
    ("docker-registry", "a real registry, on loopback"),
    ("curl", "a real client"),
];

/// What the store is compared with.
pub const STORE: &[(&str, &str)] = &[("etcd-server", "the store that ours is measured beside")];

/// What only tests need.
pub const TEST: &[(&str, &str)] = &[
    ("buildah", "another maker of images"),
    ("erofs-utils", "checks and reads root file systems"),
    ("apache2-utils", "a load tool and registry passwords"),
    ("nginx-light", "real backends behind the ingress"),
    ("netcat-openbsd", "real packets"),
    ("iputils-ping", "real packets"),
    ("openssl", "TLS clients and servers"),
    ("busybox-static", "programs of small test images"),
    ("erofs-utils", "checks the root file systems that are made"),
    ("cpio", "reads the archives that are written"),
    ("python3", "test servers"),
    ("etcd-server", "a real etcd, as a store and to compare with"),
    ("etcd-client", "a client of the store that others wrote"),
    ("libfaketime", "members with a wrong clock"),
    ("python3-venv", "clients of the store in Python"),
    ("npm", "a client of the store in JavaScript"),
];

/// Under its own name, or as what another package says that it provides: Node's own package has npm in it.
fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f=${Status}|${Package}, ${Provides}\n"]).output();
    query.is_ok_and(|done| {
        String::from_utf8_lossy(&done.stdout).lines().any(|line| match line.split_once('|') {
            Some(("install ok installed", names)) => {
                names.split(',').any(|name| name.split_whitespace().next() == Some(package))
            }
            _ => false,
        })
    })
}

/// Installs what is missing and says so first.
pub fn ensure(wanted: &[&[(&str, &str)]]) -> Result<()> {
    let missing: Vec<_> = wanted.iter().flat_map(|list| list.iter()).filter(|(name, _)| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("These Debian packages are installed now:");
    for (name, purpose) in &missing {
        println!("  {name:<18} {purpose}");
    }
    let root = Command::new("id").arg("-u").output().context("id")?;
    let program = if String::from_utf8_lossy(&root.stdout).trim() == "0" { None } else { Some("sudo") };
    let apt = |arguments: &[&str]| {
        let mut command = match program {
            Some(sudo) => {
                let mut command = Command::new(sudo);
                command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
                command
            }
            None => Command::new("apt-get"),
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        show(&mut command)
    };
    if !std::path::Path::new("/usr/bin/apt-get").exists() {
        bail!("this machine has no apt-get; install the packages above by hand");
    }
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-qq", "-y", "--no-install-recommends"];
    arguments.extend(missing.iter().map(|(name, _)| *name));
    apt(&arguments)
}
