//! Who the machine is: host name, `/etc/hosts`, `/etc/resolv.conf`, machine id.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;

use model::guest::{Config, FailureCode, Network};

use crate::failure::{Context, Failure};

/// Writes the four files. An image's own versions are replaced: they describe the machine it was built on.
pub fn write(config: &Config) -> Result<(), Failure> {
    let code = FailureCode::ConfigParseFailed;
    rustix::system::sethostname(config.hostname.as_bytes()).context(code, "set the host name")?;
    fs::create_dir_all("/etc").context(FailureCode::MountFailed, "create /etc")?;
    replace("/etc/hostname", &format!("{}\n", config.hostname), 0o644)?;
    replace("/etc/hosts", &hosts(&config.hostname, config.network.as_ref()), 0o644)?;
    replace("/etc/machine-id", &format!("{}\n", config.machine_id), 0o444)?;
    if let Some(network) = config.network.as_ref().filter(|network| !network.dns.is_empty()) {
        replace("/etc/resolv.conf", &resolv(network), 0o644)?;
    }
    Ok(())
}

fn hosts(hostname: &str, network: Option<&Network>) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    let v4 = network.and_then(|network| network.v4.as_ref()).map(|v4| v4.address.to_string());
    let v6 = network.and_then(|network| network.v6.as_ref()).map(|v6| v6.address.to_string());
    for address in [v4, v6].into_iter().flatten() {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    if network.is_none_or(|network| network.v4.is_none() && network.v6.is_none()) {
        let _ = writeln!(text, "127.0.1.1\t{hostname}");
    }
    text
}

fn resolv(network: &Network) -> String {
    network.dns.iter().fold(String::new(), |mut text, server| {
        let _ = writeln!(text, "nameserver {server}");
        text
    })
}

/// By rename, so that a link an image left there is replaced and not followed.
fn replace(path: &str, text: &str, mode: u32) -> Result<(), Failure> {
    let temporary = format!("{path}.vt-new");
    let _ = fs::remove_file(&temporary);
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().context(FailureCode::MountFailed, format_args!("write {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::guest::V4;

    #[test]
    fn the_machine_knows_its_own_name() {
        let v4 = V4 { address: "10.0.0.7".parse().unwrap(), prefix: 24, gateway: None };
        let network = Network {
            mac: String::new(),
            v4: Some(v4),
            v6: None,
            dns: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            mtu: 1500,
        };
        assert!(hosts("web", Some(&network)).ends_with("10.0.0.7\tweb\n"));
        assert!(hosts("web", None).ends_with("127.0.1.1\tweb\n"));
        assert_eq!(resolv(&network), "nameserver 10.0.0.1\nnameserver fd00::1\n");
    }
}
