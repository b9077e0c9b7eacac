//! The same kernel, modules, root image, memory and vcpus under a bare QEMU command line, with the least that serves:
//! a script as PID 1 that loads the modules, mounts the root with a layer in memory, sets an address and becomes nginx.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::machine::Sample;
use super::{CONNECT_MAX, first_answer, now_ms};
use crate::http::Connection;
use crate::run::{kill_group, output};

const TAP: &str = "vtbench0";
const MAC: &str = "02:fc:ff:fe:00:02";
/// Of the range for benchmarks (RFC 2544).
const HOST: &str = "198.18.255.1/30";
const GUEST: Ipv4Addr = Ipv4Addr::new(198, 18, 255, 2);
const PORT: u16 = 8080;

/// No program is started that nginx could do without.
const INIT: &str = "#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
while read module; do $b insmod /modules/$module; done < /modules/order
until [ -b /dev/vda ]; do $b usleep 2000; done
$b mount -t erofs -o ro /dev/vda /lower
$b mount -t tmpfs tmpfs /layer
$b mkdir /layer/upper /layer/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /root
$b mount -o move /dev /root/dev
$b mount -t proc proc /root/proc
$b ln -s /proc/self/fd/1 /root/dev/stdout
$b ln -s /proc/self/fd/2 /root/dev/stderr
$b ip address add GUEST/30 dev eth0
$b ip link set eth0 up
exec $b chroot /root /usr/sbin/nginx -c /etc/nginx/vt.conf
";
/// Grace periods are expedited, as the product's PID 1 does it.
const HURRY: &str = "rcupdate.rcu_expedited=1";

pub struct Bare {
    arguments: Vec<String>,
    log: PathBuf,
}

impl Bare {
    /// Makes the initramfs and the tap. What the machine of the cloud was started with is what this one is started with.
    pub fn prepare(folder: &Path, data: &Path, sample: &Sample) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let kernels = data.join("kernels");
        let current = fs::read_to_string(kernels.join("current")).context("the name of the kernel")?;
        let version = current.trim().rsplit(' ').next().unwrap_or_default();
        let kernel = kernels.join(version);
        let initramfs = folder.join("initramfs.cpio");
        fs::write(&initramfs, archive(&kernel.join("modules"))?)?;
        let text = |path: &Path| path.display().to_string();
        let mut arguments: Vec<String> =
            "-nodefaults -no-user-config -display none -no-reboot -M microvm -serial stdio"
                .split(' ')
                .map(str::to_owned)
                .collect();
        for flag in ["-accel", "-cpu", "-smp", "-m"] {
            arguments.extend([flag.to_owned(), sample.after(flag)?.to_owned()]);
        }
        arguments.extend(["-append".to_owned(), format!("{} {HURRY}", sample.after("-append")?)]);
        arguments.extend(["-kernel".into(), text(&kernel.join("vmlinux")), "-initrd".into(), text(&initramfs)]);
        arguments.extend([
            "-drive".into(),
            format!("id=root,file={},format=raw,if=none,readonly=on", sample.root_image.display()),
            "-device".into(),
            "virtio-blk-device,drive=root".into(),
            "-netdev".into(),
            format!("tap,id=net,ifname={TAP},script=no,downscript=no"),
            "-device".into(),
            format!("virtio-net-device,netdev=net,mac={MAC}"),
        ]);
        tap()?;
        Ok(Self { arguments, log: folder.join("console.log") })
    }

    /// Milliseconds from the start of the process to the first 200.
    pub fn boot(&self) -> Result<f64> {
        let log = fs::File::create(&self.log)?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(&self.arguments).process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let began = now_ms();
        let machine = Machine(command.spawn().context("starting qemu-system-x86_64")?);
        let host = format!("{GUEST}:{PORT}");
        let addr = SocketAddr::from((GUEST, PORT));
        let answered = first_answer(|| Connection::open(addr, &host, CONNECT_MAX));
        drop(machine);
        let answered = answered.with_context(|| format!("the bare machine; its console: {}", self.log.display()))?;
        Ok(answered - began)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        Command::new("ip").args(["link", "delete", TAP]).status().ok();
    }
}

struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        kill_group(&self.0);
        self.0.wait().ok();
    }
}

fn tap() -> Result<()> {
    Command::new("ip").args(["link", "delete", TAP]).stderr(Stdio::null()).status().ok();
    let guest = GUEST.to_string();
    // The neighbour is known from the start: a lost question for it would cost a second.
    let lines: [&[&str]; 4] = [
        &["tuntap", "add", "dev", TAP, "mode", "tap"],
        &["address", "add", HOST, "dev", TAP],
        &["link", "set", TAP, "up"],
        &["neigh", "replace", &guest, "lladdr", MAC, "dev", TAP, "nud", "permanent"],
    ];
    for line in lines {
        output(Command::new("ip").args(line))?;
    }
    Ok(())
}

/// The initramfs: busybox, the script, the modules in their order.
fn archive(modules: &Path) -> Result<Vec<u8>> {
    const FOLDER: u32 = 0o040_755;
    const FILE: u32 = 0o100_755;
    const CONSOLE: u32 = 0o020_600;
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| fs::read(path).ok());
    let mut out = Vec::new();
    for folder in ["bin", "dev", "lower", "layer", "root", "modules"] {
        member(&mut out, folder, FOLDER, 0, &[]);
    }
    member(&mut out, "dev/console", CONSOLE, 5 << 8 | 1, &[]);
    member(&mut out, "bin/busybox", FILE, 0, &busybox.context("busybox-static is not installed")?);
    member(&mut out, "init", FILE, 0, INIT.replace("GUEST", &GUEST.to_string()).as_bytes());
    let order = fs::read_to_string(modules.join("order")).context("the order of modules")?;
    for name in order.lines() {
        member(&mut out, &format!("modules/{name}"), FILE, 0, &fs::read(modules.join(name))?);
    }
    member(&mut out, "modules/order", FILE, 0, order.as_bytes());
    member(&mut out, "TRAILER!!!", 0, 0, &[]);
    Ok(out)
}

/// One member of a cpio archive in the "newc" form (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
fn member(out: &mut Vec<u8>, name: &str, mode: u32, device: u32, content: &[u8]) {
    let inode = u32::try_from(out.len() / 4 + 1).unwrap_or(u32::MAX);
    let fields = [
        inode,
        mode,
        0,
        0,
        1,
        0,
        u32::try_from(content.len()).unwrap_or(u32::MAX),
        0,
        0,
        device >> 8,
        device & 0xff,
        u32::try_from(name.len() + 1).unwrap_or(u32::MAX),
        0,
    ];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_made_of_aligned_members() {
        let mut out = Vec::new();
        member(&mut out, "init", 0o100_755, 0, b"hello");
        assert_eq!(out.len() % 4, 0);
        assert_eq!(&out[..6], b"070701");
        assert_eq!(&out[14..22], format!("{:08x}", 0o100_755).as_bytes());
        assert_eq!(&out[54..62], b"00000005", "the size of its content");
    }
}
