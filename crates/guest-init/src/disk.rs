//! From the initramfs to the image's root file system.
//!
//! ```text
//! /.vt/lower    the image, read-only
//! /.vt/scratch  a disk, or memory: upper/ and work/
//! /.vt/root     the overlay of both; moved onto / and entered
//! ```

use std::fs;
use std::os::fd::OwnedFd;

use model::guest::{Config, Disk, FailureCode};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

use crate::failure::{Context, Failure};
use crate::{clock, console};

const LOWER: &str = "/.vt/lower";
const SCRATCH: &str = "/.vt/scratch";
const ROOT: &str = "/.vt/root";
/// A disk may show up a moment after its driver was bound.
const DEVICE_WAIT_MS: u64 = 5_000;
const DEVICE_POLL_MS: u64 = 5;

/// Kept for the end: what must be made read-only before the power goes.
pub struct Scratch(Option<OwnedFd>);

/// Where the kernel's driver of disks takes and gives devices.
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_blk";

/// Disks whose driver was told to let go of them, in the order of their names.
#[derive(Default)]
pub struct Unbound(Vec<String>);

/// Lets go of all disks: what the kernel knows of them, their size above all, is of this machine, and a machine that
/// goes on from here has others in their place.
pub fn unbind() -> std::io::Result<Unbound> {
    let entries = match fs::read_dir(DRIVER) {
        Ok(entries) => entries,
        // No disks, or no driver for them.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Unbound::default()),
        Err(error) => return Err(error),
    };
    let mut devices: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some((name.strip_prefix("virtio")?.parse::<u32>().ok()?, name)))
        .collect();
    devices.sort_unstable();
    for (_, name) in &devices {
        fs::write(format!("{DRIVER}/unbind"), name)?;
    }
    Ok(Unbound(devices.into_iter().map(|(_, name)| name).collect()))
}

/// Takes them back as they are now. In their order, so that they have their names again.
pub fn bind(unbound: Unbound) -> Result<(), Failure> {
    for name in unbound.0 {
        fs::write(format!("{DRIVER}/bind"), &name).context(FailureCode::MountFailed, format_args!("bind {name}"))?;
    }
    Ok(())
}

/// Mounts the image and its writable layer and makes them `/`.
pub fn enter(config: &Config) -> Result<Scratch, Failure> {
    for dir in [LOWER, SCRATCH, ROOT] {
        fs::create_dir_all(dir).context(FailureCode::MountFailed, format_args!("create {dir}"))?;
    }
    mount_disk(&config.root, LOWER, MountFlags::RDONLY)?;
    match &config.scratch {
        Some(disk) => mount_disk(disk, SCRATCH, MountFlags::NOATIME)?,
        None => mount("tmpfs", SCRATCH, "tmpfs", MountFlags::NOATIME, Some(c"mode=755"))
            .context(FailureCode::MountFailed, "mount the memory layer")?,
    }
    for dir in ["upper", "work"] {
        let path = format!("{SCRATCH}/{dir}");
        fs::create_dir_all(&path).context(FailureCode::MountFailed, format_args!("create {path}"))?;
    }
    // metacopy off: a file whose mode changed must not depend on its lower copy, which another image may replace.
    let options = c"lowerdir=/.vt/lower,upperdir=/.vt/scratch/upper,workdir=/.vt/scratch/work,metacopy=off";
    mount("overlay", ROOT, "overlay", MountFlags::empty(), Some(options))
        .context(FailureCode::MountFailed, "mount the overlay")?;
    let scratch = rustix::fs::openat(CWD, SCRATCH, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();

    for old in ["/proc", "/sys", "/dev"] {
        let _ = unmount(old, UnmountFlags::DETACH);
    }
    rustix::process::chdir(ROOT).context(FailureCode::MountFailed, "enter the new root")?;
    rustix::mount::mount_move(".", "/").context(FailureCode::MountFailed, "move the new root")?;
    rustix::process::chroot(".").context(FailureCode::MountFailed, "change root")?;
    rustix::process::chdir("/").context(FailureCode::MountFailed, "enter /")?;
    let _ = mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
    furnish()?;
    Ok(Scratch(scratch))
}

fn mount_disk(disk: &Disk, target: &str, flags: MountFlags) -> Result<(), Failure> {
    let deadline = clock::monotonic_ms() + DEVICE_WAIT_MS;
    // Asked of the folder first: the kernel complains on the console about each mount of a device that is not there.
    while fs::metadata(&disk.device).is_err() && clock::monotonic_ms() < deadline {
        clock::nap(DEVICE_POLL_MS);
    }
    loop {
        match mount(disk.device.as_str(), target, disk.fs.as_str(), flags, None) {
            Ok(()) => return Ok(()),
            Err(Errno::NXIO) if clock::monotonic_ms() < deadline => clock::nap(DEVICE_POLL_MS),
            Err(error) => {
                let act = format!("mount {} as {}: {error}", disk.device, disk.fs);
                return Err(Failure::new(FailureCode::MountFailed, act));
            }
        }
    }
}

/// What every Linux program expects to find. Done inside of the new root, so that an image's links cannot lead out.
fn furnish() -> Result<(), Failure> {
    let strict = MountFlags::NOSUID | MountFlags::NODEV;
    let closed = strict | MountFlags::NOEXEC;
    let table = [
        ("proc", "/proc", closed, None),
        ("sysfs", "/sys", closed, None),
        ("devtmpfs", "/dev", MountFlags::NOSUID, Some(c"mode=0755")),
        ("devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, Some(c"gid=5,mode=620,ptmxmode=666")),
        ("tmpfs", "/dev/shm", strict, Some(c"mode=1777")),
        ("tmpfs", "/run", strict, Some(c"mode=755")),
        ("tmpfs", "/tmp", strict, Some(c"mode=1777")),
    ];
    for (kind, target, flags, options) in table {
        fs::create_dir_all(target).context(FailureCode::MountFailed, format_args!("create {target}"))?;
        mount(kind, target, kind, flags, options).context(FailureCode::MountFailed, format_args!("mount {target}"))?;
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        // devtmpfs is one for the whole machine, so they may be there already.
        let _ = std::os::unix::fs::symlink(target, link);
    }
    if let Err(error) = mount("cgroup2", "/sys/fs/cgroup", "cgroup2", closed, None) {
        console::info(&format!("no control groups: {error}"));
    }
    Ok(())
}

/// Everything written is on its disk afterwards, and the disk is clean.
pub fn settle(scratch: &Scratch) {
    use rustix::fd::AsRawFd;
    rustix::fs::sync();
    let _ = rustix::mount::mount_remount("/", MountFlags::RDONLY, c"");
    if let Some(fd) = &scratch.0 {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let _ = rustix::mount::mount_remount(path.as_str(), MountFlags::RDONLY, c"");
    }
    rustix::fs::sync();
}
