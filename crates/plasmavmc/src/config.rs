//! What the engine is told once, when it is opened.

use std::path::PathBuf;

use crate::kernel::Source;
use crate::qemu::Accelerator;

/// The uid that the first machine may have, by default.
pub const UID_BASE: u32 = 200_000;

/// Settings of one engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// A folder of its own per machine below it; 0700. One engine at a time.
    pub state_dir: PathBuf,
    /// Kernels and initramfs archives; made when missing, may be shared by engines.
    pub kernel_dir: PathBuf,
    /// Where a kernel comes from when `kernel_dir` has none.
    pub kernel_source: Source,
    /// The static PID 1 program of the guest, as bytes of an executable file.
    pub guest_init: &'static [u8],
    /// Machines' users are this and above; see [`UID_BASE`].
    pub uid_base: u32,
    /// 1 to 8 lower-case hex digits that tell this installation's cgroups and processes from another's.
    pub instance_tag: String,
    /// Machines that may run at once.
    pub vms_max: usize,
    /// `None` to find out: KVM when a guest really runs under it, else software emulation.
    pub accelerator: Option<Accelerator>,
}
