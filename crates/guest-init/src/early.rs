//! From the kernel's first call to the point where the host can be talked to.

use std::fs;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, mount};

use crate::console;

/// Where the initramfs keeps kernel modules, and the order to load them in.
const MODULES: &str = "/modules";
const ORDER: &str = "/modules/order";

/// Mounts what init itself needs. Errors go to the console: without these nothing can be reported better.
pub fn mounts() {
    let none = MountFlags::empty();
    for (kind, target, flags) in [("devtmpfs", "/dev", none), ("proc", "/proc", none), ("sysfs", "/sys", none)] {
        let _ = fs::create_dir_all(target);
        if let Err(error) = mount(kind, target, kind, flags, None) {
            // A kernel may have mounted /dev by itself.
            if error != rustix::io::Errno::BUSY {
                console::error(&format!("mount {target}: {error}"));
            }
        }
    }
}

/// Mounts and control groups wait for grace periods, tens of milliseconds each on a slow core. A machine of one workload
/// can afford the expedited ones; a kernel without the setting goes on as it is.
pub fn hurry() {
    let _ = fs::write("/sys/kernel/rcu_expedited", "1");
}

/// One line of the order file.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    pub path: String,
    /// Marked with `?`: no complaint when it does not load.
    pub optional: bool,
}

/// One module a line, relative to `/modules` or absolute; empty lines and `#` comments are skipped.
pub fn parse_order(text: &str) -> Vec<Module> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (optional, path) = line.strip_prefix('?').map_or((false, line), |rest| (true, rest.trim()));
            let path = if path.starts_with('/') { path.to_owned() } else { format!("{MODULES}/{path}") };
            Module { path, optional }
        })
        .collect()
}

/// Loads the modules in order and then drops their files: they are memory of the machine.
pub fn modules() {
    let Ok(order) = fs::read_to_string(ORDER) else {
        return;
    };
    for module in parse_order(&order) {
        if let Err(error) = load(&module.path)
            && error != rustix::io::Errno::EXIST
        {
            let text = format!("module {}: {error}", module.path);
            if module.optional { console::info(&text) } else { console::error(&text) }
        }
    }
    let _ = fs::remove_dir_all(MODULES);
}

fn load(path: &str) -> rustix::io::Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::system::finit_module(&file, c"", 0)
}

/// Room for programs that open many files, as other runtimes give it.
const OPEN_FILES_SOFT: u64 = 65_536;
const OPEN_FILES_HARD: u64 = 1_048_576;

/// Limits and the mask that every process of the machine inherits.
pub fn defaults() {
    use rustix::process::{Resource, Rlimit, setrlimit, umask};
    let limit = Rlimit { current: Some(OPEN_FILES_SOFT), maximum: Some(OPEN_FILES_HARD) };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        console::info(&format!("open files: {error}"));
    }
    umask(Mode::from_raw_mode(0o022));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_file_is_read_with_its_marks() {
        let order = parse_order("# base\nvirtio.ko\n\n? kernel/net/ipv6.ko\n/elsewhere/x.ko\n");
        let shown: Vec<_> = order.iter().map(|module| (module.path.as_str(), module.optional)).collect();
        assert_eq!(
            shown,
            [("/modules/virtio.ko", false), ("/modules/kernel/net/ipv6.ko", true), ("/elsewhere/x.ko", false)]
        );
    }
}
