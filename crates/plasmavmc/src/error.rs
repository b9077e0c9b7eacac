//! What can go wrong at this crate's boundary.

use std::io;
use std::path::PathBuf;

/// Named after the act that failed. [`Error::code`] is the stable word for a row's reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the folder {path} cannot be used: {source}")]
    StateFolder { path: PathBuf, source: io::Error },
    #[error("another process already runs the machines in {path}")]
    StateFolderTaken { path: PathBuf },

    #[error("the kernel folder {path} cannot be used: {source}")]
    KernelFolder { path: PathBuf, source: io::Error },
    #[error("the guest kernel could not be fetched: {source}")]
    KernelFetch { source: world::process::Error },
    #[error("the package sources know no kernel package {package}")]
    KernelPackage { package: String },
    #[error("there is no guest kernel for {arch} yet")]
    KernelArchitecture { arch: &'static str },
    #[error("the guest kernel could not be unpacked: {why}")]
    KernelUnpack { why: String },
    #[error("the guest kernel is not prepared yet")]
    KernelAbsent,

    #[error("{program} is not installed")]
    ProgramMissing { program: String },
    #[error("{program} does not work: {why}")]
    Program { program: String, why: String },

    #[error("machine {id}: its specification is not possible: {why}")]
    Spec { id: String, why: String },
    #[error("machine {id}: generation {given} is older than {known}")]
    StaleGeneration { id: String, given: u64, known: u64 },
    #[error("machine {id} does not exist here")]
    Unknown { id: String },
    #[error("machine {id} does not run")]
    NotRunning { id: String },
    #[error("machine {id} is paused")]
    Paused { id: String },
    #[error("machine {id} cannot be put to sleep, and goes on running: {why}")]
    Sleep { id: String, why: String },
    #[error("machine {id} cannot go on from what was saved: {why}")]
    Wake { id: String, why: String },
    #[error("machine {id}: its guest does not answer: {why}")]
    Guest { id: String, why: String },
    #[error("machine {id}: {source}")]
    Exec { id: String, source: crate::channel::Error },
    #[error("{count} machines run here, which is the limit")]
    TooMany { count: usize },

    #[error("machine {id}: its disk {path} cannot be used: {source}")]
    Disk { id: String, path: PathBuf, source: io::Error },
    #[error("machine {id}: its scratch disk could not be made: {why}")]
    Scratch { id: String, why: String },
    #[error("machine {id}: its network device {tap} cannot be opened: {source}")]
    Tap { id: String, tap: String, source: io::Error },
    #[error("machine {id}: its jail could not be built: {act}: {source}")]
    Jail { id: String, act: String, source: io::Error },
    #[error("machine {id}: its jail does not hold: {why}")]
    JailBroken { id: String, why: String },
    #[error("the cgroups of this host cannot be used: {why}")]
    Cgroups { why: String },
    #[error("machine {id} did not start: {why}")]
    Start { id: String, why: String },
    #[error("machine {id}: its state file {path} cannot be written: {source}")]
    State { id: String, path: PathBuf, source: io::Error },
    #[error("machine {id} does not end: process {pid} is still there after SIGKILL")]
    Unkillable { id: String, pid: u32 },
    #[error("machine {id}: its log cannot be read: {source}")]
    Log { id: String, source: io::Error },
}

impl Error {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::StateFolder { .. } | Error::State { .. } => "vm_state_failed",
            Error::StateFolderTaken { .. } => "vm_state_taken",
            Error::KernelFolder { .. } | Error::KernelUnpack { .. } => "kernel_unpack_failed",
            Error::KernelFetch { .. } | Error::KernelPackage { .. } => "kernel_fetch_failed",
            Error::KernelArchitecture { .. } => "kernel_architecture_unknown",
            Error::KernelAbsent => "kernel_absent",
            Error::ProgramMissing { .. } => "program_missing",
            Error::Program { .. } => "program_failed",
            Error::Spec { .. } => "vm_spec_invalid",
            Error::StaleGeneration { .. } => "vm_generation_stale",
            Error::Unknown { .. } => "vm_unknown",
            Error::NotRunning { .. } => "vm_not_running",
            Error::Paused { .. } => "vm_paused",
            Error::Sleep { .. } => "vm_sleep_failed",
            Error::Wake { .. } => "vm_wake_failed",
            Error::Exec { source: crate::channel::Error::ExecRefused { .. }, .. } => "exec_refused",
            Error::Exec { source: crate::channel::Error::TooManySessions { .. }, .. } => "exec_limit_reached",
            Error::Guest { .. } | Error::Exec { .. } => "guest_unreachable",
            Error::TooMany { .. } => "vm_limit_reached",
            Error::Disk { .. } => "disk_unusable",
            Error::Scratch { .. } => "scratch_failed",
            Error::Tap { .. } => "network_setup_failed",
            Error::Jail { .. } | Error::Cgroups { .. } => "jail_failed",
            Error::JailBroken { .. } => "jail_broken",
            Error::Start { .. } => "vm_start_failed",
            Error::Unkillable { .. } => "vm_unkillable",
            Error::Log { .. } => "log_unreadable",
        }
    }

    /// What would mend it, for people. May be empty.
    pub fn remedy(&self) -> &'static str {
        match self {
            Error::KernelFetch { .. } | Error::KernelPackage { .. } => {
                "check the package sources and the network (apt-get update), or name an unpacked kernel package's folder"
            }
            Error::ProgramMissing { .. } => "install qemu-system-x86 and e2fsprogs",
            Error::Cgroups { .. } => "mount cgroup v2, or the v1 controllers memory, cpu and pids",
            Error::Jail { .. } | Error::JailBroken { .. } => {
                "run as root on a host with namespaces, cgroups and seccomp"
            }
            Error::Paused { .. } => "start it, and it goes on",
            Error::Sleep { .. } => "is there room on the disk for the machine's memory?",
            Error::TooMany { .. } => "stop a machine, or raise the node's limit",
            _ => "",
        }
    }
}
