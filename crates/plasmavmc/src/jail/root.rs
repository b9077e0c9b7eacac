//! The root folder that a jailed process sees.
//!
//! ```text
//!   /usr /lib /lib64 /bin /sbin /nix/store   the host's, read-only: the program and its libraries
//!   /etc/ld.so.cache                         the host's, read-only
//!   /dev/null zero urandom [kvm]             made anew; kvm belongs to the process's user
//!   /proc/PID                                of its own process number space, in which it is alone; nothing else of
//!                                            /proc: a guest's memory comes as /proc/self/fd/N
//!   what `show` names                        read-only
//! ```
//!
//! Itself a tmpfs, read-only in the end. No /sys, nothing of any tenant.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::launch::{Act, Call, below, c_path};

/// What is in the root besides the system's own folders.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// Host folders, and where they are seen (absolute, one level deep). Read-only.
    pub show: &'a [(&'a Path, &'a str)],
    /// `/dev/kvm`.
    pub kvm: bool,
}

/// Shown where the host has them. On a merged file system all but the first are links, and stay links.
const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store"];
const LINKER_CACHE: &str = "/etc/ld.so.cache";
/// The tmpfs holds links, empty folders and four nodes.
const TMPFS: &str = "mode=755,size=1m,nr_inodes=128";

const READ_ONLY: libc::c_ulong = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;

pub(super) fn acts(layout: &Layout, mount_point: &Path, owner: u32, acts: &mut Vec<Act>) -> io::Result<()> {
    let mut builder = Builder { mount_point, acts };
    builder.mount("keeping mounts private", "none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    builder.mount("mounting the root", "tmpfs", mount_point, "tmpfs", libc::MS_NOSUID, TMPFS)?;
    for path in SYSTEM.map(Path::new) {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => builder.link(&fs::read_link(path)?, path)?,
            Ok(metadata) if metadata.is_dir() => {
                builder.folders(path)?;
                builder.bind(path, path)?;
            }
            _ => {}
        }
    }
    let cache = Path::new(LINKER_CACHE);
    if cache.is_file() {
        builder.folders(Path::new("/etc"))?;
        builder.push(format!("making {LINKER_CACHE}"), Call::EmptyFile(builder.inside(cache)?));
        builder.bind(cache, cache)?;
    }
    for (host, inside) in layout.show {
        builder.folders(Path::new(inside))?;
        builder.bind(host, Path::new(inside))?;
    }
    builder.folders(Path::new("/dev"))?;
    for (name, mode, (major, minor), owner) in [
        ("null", 0o666, (1, 3), 0),
        ("zero", 0o666, (1, 5), 0),
        ("urandom", 0o444, (1, 9), 0),
        ("kvm", 0o600, (10, 232), owner),
    ] {
        if name == "kvm" && !layout.kvm {
            continue;
        }
        let at = builder.inside(&Path::new("/dev").join(name))?;
        let device = libc::makedev(major, minor);
        builder.push(format!("making /dev/{name}"), Call::Node { at, mode: libc::S_IFCHR | mode, device, owner });
    }
    builder.folders(Path::new("/proc"))?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let proc = below(mount_point, Path::new("/proc"));
    builder.mount("mounting its own /proc", "proc", &proc, "proc", flags, "subset=pid,hidepid=2")?;
    builder.push("entering the root".to_owned(), Call::Enter(c_path(mount_point)?));
    let flags = libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NOEXEC;
    builder.mount("closing the root to writes", "tmpfs", Path::new("/"), "tmpfs", flags, TMPFS)
}

struct Builder<'a> {
    mount_point: &'a Path,
    acts: &'a mut Vec<Act>,
}

impl Builder<'_> {
    fn push(&mut self, name: String, call: Call) {
        self.acts.push(Act { name, call });
    }

    fn inside(&self, path: &Path) -> io::Result<CString> {
        c_path(&below(self.mount_point, path))
    }

    fn mount(
        &mut self,
        name: &str,
        source: &str,
        target: &Path,
        kind: &str,
        flags: libc::c_ulong,
        data: &str,
    ) -> io::Result<()> {
        let text = |text: &str| CString::new(text).map_err(io::Error::from);
        let call =
            Call::Mount { source: text(source)?, target: c_path(target)?, kind: text(kind)?, flags, data: text(data)? };
        self.push(name.to_owned(), call);
        Ok(())
    }

    /// The folder with its parents, as far as an earlier call has not made them.
    fn folders(&mut self, path: &Path) -> io::Result<()> {
        let mut parents: Vec<PathBuf> =
            path.ancestors().filter(|one| one.parent().is_some()).map(Path::to_owned).collect();
        parents.reverse();
        for path in parents {
            let inside = self.inside(&path)?;
            let made = |act: &Act| matches!(&act.call, Call::Folder(made, _) if *made == inside);
            if !self.acts.iter().any(made) {
                self.push(format!("making {}", path.display()), Call::Folder(inside, 0o755));
            }
        }
        Ok(())
    }

    fn link(&mut self, to: &Path, at: &Path) -> io::Result<()> {
        let call = Call::Symlink { to: c_path(to)?, at: self.inside(at)? };
        self.push(format!("linking {}", at.display()), call);
        Ok(())
    }

    fn bind(&mut self, host: &Path, inside: &Path) -> io::Result<()> {
        let target = below(self.mount_point, inside);
        let name = format!("showing {}", host.display());
        let host = host.to_str().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        self.mount(&name, &host, &target, "", libc::MS_BIND | libc::MS_REC, "")?;
        self.mount(&format!("{name} read-only"), "none", &target, "", READ_ONLY, "")
    }
}
