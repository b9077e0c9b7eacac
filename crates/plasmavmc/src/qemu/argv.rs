//! The command line of one machine.
//!
//! Everything it uses comes as an open descriptor: disks as descriptor sets, the tap, three listening sockets, the file
//! that is the guest's memory. So the process needs no path but the kernel's, and no right to open anything of the host's.

use std::ffi::OsString;
use std::os::fd::RawFd;

use super::Accelerator;
use crate::kernel::Kernel;
use model::guest::PORT;

/// Where the jail shows the kernel's folder.
pub const KERNEL_AT: &str = "/kernel";

/// Translated code is kept in at most this much memory, in MiB. It is the monitor's largest part under software
/// emulation and would by default grow to a gibibyte; 16 is measurably slower, 128 no faster.
const TCG_CACHE_MIB: u64 = 64;
/// The monitor itself (17 MiB measured after minutes of load, plus 5 of written library pages), its translated code,
/// and room for queues and the page cache it needs to make progress.
const TCG_OVERHEAD_BYTES: u64 = (TCG_CACHE_MIB + 64) << 20;
const KVM_OVERHEAD_BYTES: u64 = 64 << 20;
/// Page tables and the bookkeeping for them take up to this part of the guest's memory.
const TABLES_PART: u64 = 128;

/// The hard limit on a machine's process, in bytes: its guest's memory and what the monitor takes beside.
pub fn memory_limit(accelerator: Accelerator, memory_bytes: u64) -> u64 {
    let overhead = match accelerator {
        Accelerator::Kvm => KVM_OVERHEAD_BYTES,
        Accelerator::Tcg => TCG_OVERHEAD_BYTES,
    };
    memory_bytes + overhead + memory_bytes / TABLES_PART
}

/// What the virtual CPUs begin with.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// The kernel's first instruction.
    Kernel(&'a Kernel),
    /// Where a saved machine was halted; its state is handed over through the monitor.
    Saved,
}

/// Where the guest's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The process's own, and gone with it.
    Own,
    /// A file of the memory's size. `share`: what the guest writes is in the file; else the guest begins with what is in it
    /// and writes to copies.
    File { file: RawFd, share: bool },
}

/// The parts of one machine. Descriptors are by number, as the process will have them.
#[derive(Clone, Debug)]
pub struct Devices<'a> {
    /// Stands on the command line, so that the process can be known again.
    pub mark: &'a str,
    pub accelerator: Accelerator,
    pub tsc_khz: u64,
    pub origin: Origin<'a>,
    pub vcpus: u32,
    pub memory_bytes: u64,
    pub memory: Memory,
    pub root: Option<RawFd>,
    pub scratch: Option<RawFd>,
    pub tap: Option<(RawFd, &'a str)>,
    /// Listening sockets.
    pub monitor: RawFd,
    pub guest: RawFd,
    pub console: RawFd,
}

/// Arguments after the program's name. The machine is started halted.
pub fn arguments(devices: &Devices) -> Vec<OsString> {
    let mut out: Vec<String> = Vec::new();
    let mut add = |arguments: &[&str]| out.extend(arguments.iter().map(|&one| one.to_owned()));
    add(&["-name", devices.mark, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"]);
    // No bus to plug into, few devices to find. ACPI stays on: Debian's kernel takes virtio-mmio from there alone.
    add(&["-M", "microvm,memory-backend=memory"]);
    match devices.accelerator {
        Accelerator::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
        Accelerator::Tcg => add(&["-accel", &format!("tcg,tb-size={TCG_CACHE_MIB}"), "-cpu", "max"]),
    }
    add(&["-smp", &devices.vcpus.to_string(), "-m", &format!("{}M", devices.memory_bytes >> 20)]);
    let size = devices.memory_bytes;
    match devices.memory {
        Memory::Own => add(&["-object", &format!("memory-backend-ram,id=memory,size={size}")]),
        Memory::File { file, share } => {
            let share = if share { "on" } else { "off" };
            // Opened by its descriptor's name: a path would have to lead out of the jail.
            let path = format!("mem-path=/proc/self/fd/{file},share={share}");
            add(&["-object", &format!("memory-backend-file,id=memory,size={size},{path}")]);
        }
    }
    match devices.origin {
        Origin::Kernel(kernel) => {
            let file = |name: &str| format!("{KERNEL_AT}/{name}");
            add(&["-kernel", &file(&kernel.image), "-initrd", &file(&kernel.initramfs)]);
            add(&["-append", &kernel_arguments(devices.accelerator, devices.tsc_khz)]);
        }
        Origin::Saved => add(&["-incoming", "defer"]),
    }

    // A set has one descriptor, opened as it is to be used; the monitor cannot open it any other way.
    if let Some(root) = devices.root {
        let file = "driver=file,filename=/dev/fdset/1,read-only=on,locking=off";
        add(&["-add-fd", &format!("fd={root},set=1"), "-blockdev", &format!("{file},node-name=root-file")]);
        add(&["-blockdev", "driver=raw,node-name=root,file=root-file,read-only=on"]);
        add(&["-device", "virtio-blk-device,drive=root"]);
    }
    if let Some(scratch) = devices.scratch {
        // Nothing on it outlives the boot, so nothing waits for the host's disk.
        let file = "driver=file,filename=/dev/fdset/2,discard=unmap,cache.no-flush=on,locking=off";
        add(&["-add-fd", &format!("fd={scratch},set=2"), "-blockdev", &format!("{file},node-name=scratch-file")]);
        add(&["-blockdev", "driver=raw,node-name=scratch,file=scratch-file,discard=unmap,cache.no-flush=on"]);
        add(&["-device", "virtio-blk-device,drive=scratch,discard=on"]);
    }
    if let Some((tap, mac)) = devices.tap {
        add(&["-netdev", &format!("tap,id=net,fd={tap}")]);
        add(&["-device", &format!("virtio-net-device,netdev=net,mac={mac}")]);
    }
    let socket = |id: &str, fd: RawFd| format!("socket,id={id},fd={fd},server=on,wait=off");
    add(&["-device", "virtio-serial-device,max_ports=2", "-chardev", &socket("guest", devices.guest)]);
    add(&["-device", &format!("virtserialport,chardev=guest,name={PORT},nr=1")]);
    add(&["-chardev", &socket("console", devices.console), "-serial", "chardev:console"]);
    add(&["-chardev", &socket("monitor", devices.monitor), "-mon", "chardev=monitor,mode=control"]);
    add(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    out.into_iter().map(OsString::from).collect()
}

fn kernel_arguments(accelerator: Accelerator, tsc_khz: u64) -> String {
    // A guest that panics or reboots ends its process at once; the engine decides what follows. The self-tests of the
    // crypto library and the initialisers named cost a third of a second under emulation and serve nothing here.
    let mut words = vec![
        "console=ttyS0",
        "reboot=t",
        "panic=-1",
        "quiet",
        "cryptomgr.notests",
        "initcall_blacklist=init_kprobe_trace,load_system_certificate_list,crypto_kdf108_init,ksm_init",
    ];
    let rate = format!("tsc_early_khz={tsc_khz}");
    if accelerator == Accelerator::Tcg {
        // Without both, Debian's kernel hangs early: it has no other clock to measure this one by.
        words.extend([rate.as_str(), "tsc=reliable"]);
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(accelerator: Accelerator) -> String {
        let kernel = Kernel {
            version: "6.1".to_owned(),
            folder: "/k".into(),
            image: "vmlinux".to_owned(),
            initramfs: "initramfs-x.cpio".to_owned(),
        };
        full_line(accelerator, Origin::Kernel(&kernel), Memory::Own)
    }

    fn full_line(accelerator: Accelerator, origin: Origin, memory: Memory) -> String {
        let devices = Devices {
            mark: "vt-t-vm_1",
            accelerator,
            tsc_khz: 2_600_000,
            origin,
            vcpus: 2,
            memory_bytes: 128 << 20,
            memory,
            root: Some(11),
            scratch: Some(12),
            tap: Some((13, "02:fc:00:00:00:01")),
            monitor: 14,
            guest: 15,
            console: 16,
        };
        let arguments = arguments(&devices);
        arguments.iter().map(|one| one.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_root_is_read_only_and_the_filter_is_on() {
        let line = line(Accelerator::Tcg);
        for part in [
            "-name vt-t-vm_1 ",
            "-smp 2 -m 128M ",
            "-kernel /kernel/vmlinux -initrd /kernel/initramfs-x.cpio ",
            "tsc_early_khz=2600000 tsc=reliable",
            "-blockdev driver=raw,node-name=root,file=root-file,read-only=on ",
            "virtio-net-device,netdev=net,mac=02:fc:00:00:00:01 ",
            "name=vt.guest",
            "spawn=deny",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        // The order of the disks is the guest's order of names.
        assert!(line.find("drive=root").unwrap() < line.find("drive=scratch").unwrap());
    }

    #[test]
    fn a_saved_machine_has_the_devices_of_one_that_boots_and_no_kernel() {
        let saved = full_line(Accelerator::Tcg, Origin::Saved, Memory::File { file: 17, share: false });
        let memory = "-object memory-backend-file,id=memory,size=134217728,mem-path=/proc/self/fd/17,share=off ";
        assert!(saved.contains(memory) && saved.contains(" -incoming defer ") && !saved.contains("kernel"), "{saved}");
        let devices = |line: &str| line[line.find("-add-fd").unwrap()..].to_owned();
        assert_eq!(devices(&saved), devices(&line(Accelerator::Tcg)));
    }

    #[test]
    fn each_accelerator_has_its_own_processor_clock_and_overhead() {
        assert!(line(Accelerator::Kvm).contains("-accel kvm -cpu host"));
        assert!(!line(Accelerator::Kvm).contains("tsc"));
        assert_eq!(memory_limit(Accelerator::Kvm, 128 << 20), (128 + 64 + 1) << 20);
        assert_eq!(memory_limit(Accelerator::Tcg, 1 << 30), (1024 + 128 + 8) << 20);
    }
}
