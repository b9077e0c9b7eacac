//! What tells this installation from another on the same machine; drawn once and kept.

use std::net::IpAddr;
use std::path::Path;

use ipnet::{Ipv4Net, Ipv6Net};
use model::Error;
use serde::{Deserialize, Serialize};
use world::{file, random};

use super::config::Config;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub schema_version: u32,
    /// Six hexadecimal digits in the names of devices, tables and cgroups.
    pub tag: String,
    /// The addresses of all projects, a /24 each.
    pub ipv4: Ipv4Net,
    /// The unique local /48 of all projects (RFC 4193).
    pub ipv6: Ipv6Net,
    /// The machine's name in the cloud.
    pub node: String,
}

/// The identity in `path`, or a new one. A setting that names another network than the kept one is refused: machines
/// hold its addresses.
pub async fn open_or_create(path: &Path, config: &Config) -> Result<Identity, Error> {
    let io = |error: &dyn std::fmt::Display| Error::internal(format!("{}: {error}", path.display()));
    if let Some(bytes) = file::read_optional(path).map_err(|error| io(&error))? {
        let identity: Identity = serde_json::from_slice(&bytes).map_err(|error| io(&error))?;
        if let Some(wanted) = config.ipv6.filter(|wanted| *wanted != identity.ipv6) {
            let message = format!(
                "setting `network.ipv6` is {wanted}, and this data folder's machines live in {}",
                identity.ipv6
            );
            return Err(
                Error::invalid("network.ipv6", message).hint("leave the setting out, or choose a new --data-dir")
            );
        }
        if config.ipv4_set && config.ipv4 != identity.ipv4 {
            let message = format!(
                "setting `network.ipv4` is {}, and this data folder's machines live in {}",
                config.ipv4, identity.ipv4
            );
            return Err(
                Error::invalid("network.ipv4", message).hint("leave the setting out, or choose a new --data-dir")
            );
        }
        return Ok(identity);
    }
    let global = random::hex(5);
    let drawn = format!("fd{}:{}:{}::/48", &global[..2], &global[2..6], &global[6..]);
    let drawn = drawn.parse().map_err(|error| io(&error))?;
    let name =
        config.node_name.clone().unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let tag = random::hex(3);
    let ipv6 = config.ipv6.unwrap_or(drawn);
    let ipv4 = if config.ipv4_set { config.ipv4 } else { free_prefix(&tag, config, ipv6).await };
    let identity = Identity { schema_version: 1, tag, ipv4, ipv6, node: model::name::nearest(&name) };
    let text = serde_json::to_vec_pretty(&identity).map_err(|error| io(&error))?;
    file::write_atomic(path, &text, 0o644).map_err(|error| io(&error))?;
    Ok(identity)
}

/// The default prefix, or the one that the network engine suggests where something else on this machine uses it.
async fn free_prefix(tag: &str, config: &Config, ipv6: Ipv6Net) -> Ipv4Net {
    let mut network = novanet::Config::new(tag, config.data_dir.join("network"), ipv6);
    network.v4 = config.ipv4;
    let found = novanet::preflight(&network).await;
    let suggested = found.errors.into_iter().chain(found.warnings).find_map(|finding| match finding {
        novanet::Error::PrefixTaken { suggestion, .. } => suggestion,
        _ => None,
    });
    suggested.unwrap_or(config.ipv4)
}

/// The machine's own name servers that a guest can reach: not those on loopback.
pub fn name_servers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).filter(|address| !address.is_loopback()).collect()
}
