//! One function for each thing that is looked at.

use std::fs::OpenOptions;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::output::text;

/// The control plane, and one small instance.
const MEMORY_BYTES_MIN: u64 = 512 << 20;
/// A kernel, an image, and room to write.
const DISK_BYTES_MIN: u64 = 2 << 30;
/// What listens, by the setting that moves it and the words for it.
const LISTENERS: [(&str, &str, &str); 3] = [
    ("api.listen", "API", "vt up --listen 127.0.0.1:PORT"),
    ("ingress.http", "HTTP ingress", "vt up --http-port PORT"),
    ("ingress.tls", "TLS ingress", "write tls = \"127.0.0.1:PORT\" below [ingress], and vt up --config FILE"),
];
/// `KVM_GET_API_VERSION` of linux/kvm.h: `_IO(0xAE, 0x00)`.
const KVM_GET_API_VERSION: libc::c_ulong = 0xAE00;
/// The one version there is.
const KVM_API_VERSION: libc::c_int = 12;

/// A program that is needed, the Debian package that has it, and what for.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86", "runs the machines"),
    ("nft", "nftables", "filters and translates their traffic"),
    ("mkfs.ext4", "e2fsprogs", "makes writable disks"),
    ("apt-get", "apt", "fetches the guest kernel"),
    ("dpkg-deb", "dpkg", "unpacks the guest kernel"),
];

pub async fn all(data_dir: Option<&Path>, running: bool) -> Vec<Finding> {
    let mut findings = vec![
        root(),
        processors(),
        memory(),
        disk(data_dir.unwrap_or(Path::new(default("data_dir")))),
        kvm(),
        cgroups(),
        ipv6(),
        tun(),
    ];
    findings.extend(PROGRAMS.iter().map(|(program, package, what)| self::program(program, package, what)));
    if !running {
        findings
            .extend(LISTENERS.iter().filter_map(|(key, what, fix)| Some(port(default(key).parse().ok()?, what, fix))));
    }
    findings
}

/// What the cloud takes when nobody says otherwise.
fn default(key: &str) -> &'static str {
    crate::cloud::config::SETTINGS.iter().find(|setting| setting.key == key).map_or("", |setting| setting.default)
}

fn root() -> Finding {
    if rustix::process::geteuid().is_root() {
        Finding::good("root", "yes")
    } else {
        Finding::bad("root", "no: instances need taps, cgroups and mounts", "run it as root: sudo vt up")
    }
}

fn processors() -> Finding {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Finding::good("cpus", format!("{count}, {}", std::env::consts::ARCH))
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let amount = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    let (Some(total), Some(free)) = (amount("MemTotal"), amount("MemAvailable")) else {
        return Finding::note("memory", "cannot be read", "mount /proc");
    };
    let what = format!("{}, {} free", text::bytes(total), text::bytes(free));
    if free < MEMORY_BYTES_MIN {
        Finding::bad("memory", what, format!("free at least {}", text::bytes(MEMORY_BYTES_MIN)))
    } else {
        Finding::good("memory", what)
    }
}

/// The folder, or the nearest one above it that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_path_buf()
}

fn disk(data_dir: &Path) -> Finding {
    let Ok(stat) = rustix::fs::statvfs(existing(data_dir)) else {
        return Finding::note("disk", format!("{} cannot be looked at", data_dir.display()), "say --data-dir DIR");
    };
    let free = stat.f_bavail * stat.f_frsize;
    let what = format!("{} free at {}", text::bytes(free), data_dir.display());
    if free < DISK_BYTES_MIN {
        Finding::bad("disk", what, format!("free at least {}, or say --data-dir DIR", text::bytes(DISK_BYTES_MIN)))
    } else {
        Finding::good("disk", what)
    }
}

/// The device can be opened and speaks. Whether a guest really runs under it, `vt up` tries with a tiny one.
fn kvm() -> Finding {
    const FIX: &str =
        "turn virtualisation on in the firmware, or nested virtualisation in the host that this machine runs on";
    let device = match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(device) => device,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::note("kvm", "there is no /dev/kvm: guests are emulated, many times slower", FIX);
        }
        Err(error) => {
            return Finding::note(
                "kvm",
                format!("/dev/kvm cannot be opened ({error}): guests are emulated, many times slower"),
                FIX,
            );
        }
    };
    // SAFETY: the request takes no argument and returns a number; the descriptor is open for the whole call.
    let version = unsafe { libc::ioctl(device.as_raw_fd(), KVM_GET_API_VERSION as _, 0) };
    if version == KVM_API_VERSION {
        Finding::good("kvm", "/dev/kvm answers; `vt up` tries it with a tiny guest before it relies on it")
    } else {
        Finding::note(
            "kvm",
            format!("/dev/kvm does not work (version {version}): guests are emulated, many times slower"),
            FIX,
        )
    }
}

fn cgroups() -> Finding {
    const NEEDED: [&str; 3] = ["memory", "cpu", "pids"];
    if let Ok(text) = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        let missing: Vec<&str> =
            NEEDED.into_iter().filter(|name| !text.split_whitespace().any(|found| found == *name)).collect();
        if missing.is_empty() {
            return Finding::good("cgroups", "v2 with memory, cpu and pids");
        }
        // A hybrid machine has the controllers under version 1.
    }
    let first = NEEDED.into_iter().filter(|name| Path::new("/sys/fs/cgroup").join(name).is_dir()).count();
    if first == NEEDED.len() {
        return Finding::good("cgroups", "v1 with memory, cpu and pids");
    }
    Finding::bad(
        "cgroups",
        "the controllers memory, cpu and pids are not all there",
        "mount -t cgroup2 none /sys/fs/cgroup",
    )
}

fn ipv6() -> Finding {
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").map(|text| text.trim() == "1");
    match off {
        Ok(false) => Finding::good("ipv6", "on"),
        Ok(true) => {
            Finding::note("ipv6", "switched off for all interfaces", "sysctl -w net.ipv6.conf.all.disable_ipv6=0")
        }
        Err(_) => Finding::bad(
            "ipv6",
            "the kernel has none, and instances have IPv6 addresses",
            "boot without ipv6.disable=1",
        ),
    }
}

fn tun() -> Finding {
    if Path::new("/dev/net/tun").exists() {
        Finding::good("tun", "/dev/net/tun")
    } else {
        Finding::bad("tun", "there is no /dev/net/tun, and instances need it for their network", "modprobe tun")
    }
}

fn program(program: &str, package: &str, what: &str) -> Finding {
    // Programs of the system are often outside an ordinary user's search path.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    match folders.map(|folder| folder.join(program)).find(|path| path.is_file()) {
        Some(path) => Finding::good(program, path.display().to_string()),
        None => Finding::bad(program, format!("not installed; it {what}"), format!("apt-get install {package}")),
    }
}

fn port(address: SocketAddr, what: &str, fix: &str) -> Finding {
    let name = format!("port {}", address.port());
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(name, format!("free for the {what}")),
        Err(error) => Finding::note(name, format!("taken, wanted for the {what} ({error})"), fix),
    }
}
