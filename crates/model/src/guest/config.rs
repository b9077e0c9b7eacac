//! Everything a guest is told before it starts its process.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Text that must not reach a log: `Debug` prints its length alone. On the wire it is a plain string.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl Hidden {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<hidden, {} bytes>", self.0.len())
    }
}

/// The whole configuration of one boot of one machine. Sent once; a second, different one is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The protocol that host and guest agreed on in their hellos.
    pub protocol: u32,
    pub instance_id: String,
    /// At most 64 bytes (the kernel's limit).
    pub hostname: String,
    /// 32 lower-case hex digits, as in `/etc/machine-id`.
    pub machine_id: String,
    /// Fresh random bytes as hex, 32 bytes or more, at most 512. Credited in full to the guest's pool.
    pub entropy: Hidden,
    /// Nanoseconds since the Unix epoch, read just before sending.
    pub clock_unix_ns: u64,
    /// Mounted read-only.
    pub root: Disk,
    /// The writable layer. Without one it lives in the guest's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Disk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    pub process: Process,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// The text of `/run/secrets/platform.env`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Hidden>,
    /// Without secrets the process is not started: failure `secrets_missing`.
    #[serde(default)]
    pub secrets_required: bool,
}

/// A block device of the guest and the file system on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// For example `/dev/vda`.
    pub device: String,
    /// As the kernel names it: `erofs`, `ext4`, `squashfs`.
    pub fs: String,
}

/// The one interface, `eth0`. Addresses are static; nothing is asked of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Six hex pairs with colons.
    pub mac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<V4>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<V6>,
    /// Name servers in order; may be empty, then the image's own `/etc/resolv.conf` stays.
    #[serde(default)]
    pub dns: Vec<std::net::IpAddr>,
    /// Bytes, 1280 to 9000.
    pub mtu: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct V4 {
    pub address: Ipv4Addr,
    /// 0 to 32.
    pub prefix: u8,
    /// The default route. It may lie outside of the prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct V6 {
    pub address: Ipv6Addr,
    /// 0 to 128.
    pub prefix: u8,
    /// The default route; may be link-local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv6Addr>,
}

/// The workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Not empty. `argv[0]` without a slash is looked for in `PATH`.
    pub argv: Vec<String>,
    /// `KEY=VALUE` each; a later one wins. `PATH` and `HOME` are added when absent.
    #[serde(default)]
    pub env: Vec<String>,
    /// Absolute; created when missing. Empty means `/`.
    #[serde(default)]
    pub workdir: String,
    /// `name`, `uid`, `name:group` or `uid:gid`, as in an image's config. Empty means root.
    #[serde(default)]
    pub user: String,
    /// Run to its end as the same user before each first start; empty for none.
    #[serde(default)]
    pub prestart: Vec<String>,
    #[serde(default = "prestart_timeout_default")]
    pub prestart_timeout_seconds: u32,
    #[serde(default)]
    pub restart: Restart,
    /// Seconds between SIGTERM and SIGKILL when the machine itself is told to stop (`reboot` or `poweroff` inside).
    #[serde(default = "grace_default")]
    pub grace_seconds: u32,
}

fn prestart_timeout_default() -> u32 {
    30
}

fn grace_default() -> u32 {
    10
}

/// What follows an exit of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    pub policy: RestartPolicy,
    /// `on-failure` gives up after this many restarts; under `always` that many in a row are called a crash loop.
    #[serde(default = "max_retries_default")]
    pub max_retries: u32,
    /// The first wait; it doubles with each restart in a row, up to 30 s or this number when it is larger.
    #[serde(default = "backoff_default")]
    pub backoff_seconds: u32,
}

fn max_retries_default() -> u32 {
    3
}

fn backoff_default() -> u32 {
    2
}

impl Default for Restart {
    fn default() -> Self {
        Self { policy: RestartPolicy::Always, max_retries: max_retries_default(), backoff_seconds: backoff_default() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// A probe that the guest runs against its own address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    #[serde(rename = "type")]
    pub kind: HealthKind,
    pub port: u16,
    /// For `http`, starting with a slash. Any 2xx or 3xx answer passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Between probes once the first has passed; before that they come every 25 ms.
    pub interval_seconds: u32,
    pub timeout_seconds: u32,
    /// Failures this long after the start do not count.
    pub grace_period_seconds: u32,
    /// Passes in a row that make it ready; at least 1.
    pub success_threshold: u32,
    /// Failures in a row that make it unready; at least 1.
    pub failure_threshold: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthKind {
    Http,
    Tcp,
}
