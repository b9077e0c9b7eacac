//! Kernel settings under /proc/sys/net, which shows the calling thread's network namespace.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::error::Error;
use crate::wish::Wish;

const ROOT: &str = "/proc/sys/net/";

/// Settings by their path below /proc/sys/net, with their values.
pub type Settings = BTreeMap<String, String>;

/// What the node as a whole needs. Put back by `clear` where the engine changed it.
pub fn node() -> Settings {
    [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")]
        .into_iter()
        .map(|(path, value)| (path.to_owned(), value.to_owned()))
        .collect()
}

/// What one bridge needs, beyond the kernel's defaults and whatever the machine's owner made of those.
pub fn bridge(name: &str) -> Settings {
    let v4 = [
        ("forwarding", "1"),
        // Answer for the gateway alone, never for an address of another bridge or of the uplink.
        ("arp_ignore", "1"),
        ("arp_announce", "2"),
        ("proxy_arp", "0"),
        ("send_redirects", "0"),
        ("accept_redirects", "0"),
        // A source that would not be answered through this bridge is forged.
        ("rp_filter", "1"),
    ];
    let v6 = [
        ("disable_ipv6", "0"),
        ("accept_dad", "0"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_redirects", "0"),
        ("forwarding", "1"),
        // No address but those given: the link-local one is fe80::1.
        ("addr_gen_mode", "1"),
    ];
    let all = v4.map(|(key, value)| (format!("ipv4/conf/{name}/{key}"), value));
    all.into_iter()
        .chain(v6.map(|(key, value)| (format!("ipv6/conf/{name}/{key}"), value)))
        .map(|(path, value)| (path, value.to_owned()))
        .collect()
}

/// What one tap needs: the host speaks to guests through the bridge and never on the tap itself.
pub fn tap(name: &str) -> Settings {
    Settings::from([(format!("ipv6/conf/{name}/disable_ipv6"), "1".to_owned())])
}

/// All of the above for a whole wish.
pub fn all(wish: &Wish) -> Settings {
    let mut settings = node();
    for wanted in &wish.bridges {
        settings.extend(bridge(&wanted.name));
    }
    for (_, wanted) in wish.taps() {
        settings.extend(tap(&wanted.name));
    }
    settings
}

/// Interfaces that learn their IPv6 routes from router advertisements. Once the node forwards, the kernel stops
/// listening there unless told `2` (linux: Documentation/networking/ip-sysctl.rst, accept_ra), and the machine
/// would lose its default route minutes after we started.
///
/// # Errors
/// [`Error::Sysctl`].
pub fn keep_listening() -> Result<Settings, Error> {
    let folder = format!("{ROOT}ipv6/conf");
    let failed = |source| Error::Sysctl { path: folder.clone(), source };
    let mut settings = Settings::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if matches!(name.as_str(), "all" | "lo") {
            continue;
        }
        let path = format!("ipv6/conf/{name}/accept_ra");
        if get(&path).as_deref() == Some("1") && get(&format!("ipv6/conf/{name}/forwarding")).as_deref() == Some("0") {
            settings.insert(path, "2".to_owned());
        }
    }
    Ok(settings)
}

/// The value without its line end, or `None` where there is no such setting.
pub fn get(path: &str) -> Option<String> {
    fs::read_to_string(format!("{ROOT}{path}")).ok().map(|text| text.trim_end().to_owned())
}

/// # Errors
/// [`Error::Sysctl`].
pub fn put(path: &str, value: &str) -> Result<(), Error> {
    let path = format!("{ROOT}{path}");
    fs::write(&path, value).map_err(|source| Error::Sysctl { path, source })
}

/// Whether the node's settings can be written at all.
///
/// # Errors
/// [`Error::SysctlReadOnly`].
pub fn writable() -> Result<(), Error> {
    let path = format!("{ROOT}ipv4/ip_forward");
    match fs::OpenOptions::new().write(true).open(&path) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::SysctlReadOnly { path, source }),
    }
}

/// Whether the kernel has IPv6.
pub fn has_ipv6() -> bool {
    match fs::metadata(format!("{ROOT}ipv6/conf/all")) {
        Ok(data) => data.is_dir(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
