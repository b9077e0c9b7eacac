//! Everything that can go wrong here, each with a code for programs and a hint for people.

use std::io;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

/// Variants are named after the act that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the tag {tag:?} is not 4 to 6 lower-case hexadecimal digits")]
    ConfigTag { tag: String },
    #[error("the prefix {prefix} is longer than /{longest}")]
    ConfigPrefix { prefix: IpNet, longest: u8 },
    #[error("an mtu of {mtu} is not between 1280 and 9000")]
    ConfigMtu { mtu: u32 },
    #[error("{text:?} is no MAC address")]
    MacMalformed { text: String },
    #[error("the desired state contradicts itself: {what}")]
    Desired { what: String },
    #[error("network {number} does not fit a prefix of {capacity} networks")]
    NetworkNumber { number: u16, capacity: u16 },
    #[error("a port's offset is 2 to 254, not {offset}")]
    PortOffset { offset: u8 },
    #[error("generation {given} is older than {held}, which was applied")]
    Generation { given: u64, held: u64 },
    #[error("no port at offset {offset} of network {network} has been applied")]
    PortUnknown { network: u16, offset: u8 },

    #[error("not root")]
    NotRoot,
    #[error("/dev/net/tun cannot be opened: {source}")]
    TunMissing { source: io::Error },
    #[error("the program nft is not installed")]
    NftMissing,
    #[error("the kernel has no IPv6")]
    Ipv6Missing,
    #[error("{path} cannot be written: {source}")]
    SysctlReadOnly { path: String, source: io::Error },
    #[error("{prefix} overlaps {with} of {device}{}", suggestion_text(*.suggestion))]
    PrefixTaken { prefix: IpNet, with: IpNet, device: String, suggestion: Option<Ipv4Net> },
    #[error("the firewall chain {family} {table} {chain} drops what is forwarded")]
    ForeignFirewall { family: String, table: String, chain: String },
    #[error("another engine holds {path}")]
    StateLocked { path: PathBuf },
    #[error("{path} could not be read: {detail}")]
    StateRead { path: PathBuf, detail: String },
    #[error("{path} could not be written: {source}")]
    StateWrite { path: PathBuf, source: io::Error },

    #[error("the kernel's network interface cannot be reached: {source}")]
    NetlinkOpen { source: io::Error },
    #[error("could not {act} {subject}: {source}")]
    Netlink { act: &'static str, subject: String, source: rtnetlink::Error },
    #[error("the device {name} exists and is a {kind}")]
    DeviceTaken { name: String, kind: String },
    #[error("the device {name} is gone")]
    DeviceGone { name: String },
    #[error("the tap {name} could not be {act}: {source}")]
    Tap { act: &'static str, name: String, source: io::Error },
    #[error("{path} could not be set: {source}")]
    Sysctl { path: String, source: io::Error },
    #[error("the packet filter refused the rules: {detail}")]
    RulesLoad { detail: String },
    #[error("the packet filter's rules could not be listed: {detail}")]
    RulesList { detail: String },
    #[error("not done within {seconds} s")]
    Deadline { seconds: u64 },
    #[error("the engine's thread could not be started: {source}")]
    Start { source: io::Error },
    #[error("the engine is closed")]
    Closed,
}

fn suggestion_text(suggestion: Option<Ipv4Net>) -> String {
    suggestion.map_or_else(String::new, |free| format!("; {free} is free"))
}

impl Error {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ConfigTag { .. } => "network_tag_invalid",
            Self::ConfigPrefix { .. } => "network_prefix_invalid",
            Self::ConfigMtu { .. } => "network_mtu_invalid",
            Self::MacMalformed { .. } => "mac_malformed",
            Self::Desired { .. } => "network_desired_invalid",
            Self::NetworkNumber { .. } => "network_number_out_of_range",
            Self::PortOffset { .. } => "port_offset_out_of_range",
            Self::Generation { .. } => "generation_stale",
            Self::PortUnknown { .. } => "port_unknown",
            Self::NotRoot => "not_root",
            Self::TunMissing { .. } => "tun_missing",
            Self::NftMissing => "nft_missing",
            Self::Ipv6Missing => "ipv6_missing",
            Self::SysctlReadOnly { .. } => "sysctl_read_only",
            Self::PrefixTaken { .. } => "network_prefix_taken",
            Self::ForeignFirewall { .. } => "foreign_firewall",
            Self::StateLocked { .. } => "network_state_locked",
            Self::StateRead { .. } => "network_state_unreadable",
            Self::StateWrite { .. } => "network_state_unwritable",
            Self::NetlinkOpen { .. } | Self::Netlink { .. } => "netlink_failed",
            Self::DeviceTaken { .. } => "device_taken",
            Self::DeviceGone { .. } => "device_gone",
            Self::Tap { .. } => "tap_failed",
            Self::Sysctl { .. } => "sysctl_failed",
            Self::RulesLoad { .. } => "rules_refused",
            Self::RulesList { .. } => "rules_unreadable",
            Self::Deadline { .. } => "network_deadline",
            Self::Start { .. } => "network_start_failed",
            Self::Closed => "network_closed",
        }
    }

    /// What to do about it, for people.
    pub fn hint(&self) -> String {
        match self {
            Self::ConfigTag { .. } => "choose a tag like 4f2a".to_owned(),
            Self::ConfigPrefix { longest, .. } => format!("choose a prefix of /{longest} or shorter"),
            Self::ConfigMtu { .. } => "leave the mtu at 1420".to_owned(),
            Self::MacMalformed { .. } => "write it like 02:fc:00:07:00:05".to_owned(),
            Self::Desired { .. } | Self::PortOffset { .. } => "the control plane sent it; report this".to_owned(),
            Self::NetworkNumber { .. } => "use a /12 for IPv4, which holds all 4096 networks".to_owned(),
            Self::Generation { .. } => "send the whole desired state with a newer generation".to_owned(),
            Self::PortUnknown { .. } => "apply a desired state that holds the port first".to_owned(),
            Self::NotRoot => "run it as root: bridges, taps and packet filters need it".to_owned(),
            Self::TunMissing { .. } => {
                "load the driver (modprobe tun), or give the container /dev/net/tun (character device 10:200)"
                    .to_owned()
            }
            Self::NftMissing => "install it: apt-get install nftables".to_owned(),
            Self::Ipv6Missing => "boot without ipv6.disable=1".to_owned(),
            Self::SysctlReadOnly { .. } => "mount /proc/sys writable; a container needs to be privileged".to_owned(),
            Self::PrefixTaken { prefix: IpNet::V6(_), .. } => "choose another unique local /48 for v6".to_owned(),
            Self::PrefixTaken { suggestion: Some(free), .. } => format!("set the v4 prefix to {free}"),
            Self::PrefixTaken { .. } => "set the v4 prefix to a range that nothing on this machine uses".to_owned(),
            Self::ForeignFirewall { .. } => {
                "allow forwarding from and to the vt* bridges there: a drop in one table wins over another's accept"
                    .to_owned()
            }
            Self::StateLocked { .. } => "stop the other vt on this data folder first".to_owned(),
            Self::StateRead { .. } => {
                "restore the file, or delete it: the control plane sends the desired state again".to_owned()
            }
            Self::StateWrite { .. } => "make room on the disk and check the folder's permissions".to_owned(),
            Self::DeviceTaken { name, .. } => {
                format!("remove it (ip link del {name}), or choose another tag")
            }
            Self::Sysctl { .. } => "check that /proc/sys is writable".to_owned(),
            Self::RulesLoad { .. } | Self::RulesList { .. } => {
                "check that the kernel has nf_tables with nat and bridge families (nft list ruleset)".to_owned()
            }
            Self::NetlinkOpen { .. }
            | Self::Netlink { .. }
            | Self::DeviceGone { .. }
            | Self::Tap { .. }
            | Self::Deadline { .. }
            | Self::Start { .. } => "it is tried again with the next apply; see the log when it stays".to_owned(),
            Self::Closed => "open the engine again".to_owned(),
        }
    }
}
