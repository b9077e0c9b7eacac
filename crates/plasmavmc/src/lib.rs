//! plasmavmc: virtual machines. One trait, [`Engine`]; behind it QEMU.
//!
//! ```text
//!   Service::open(Config) -> Handle: Engine        adopts what runs, sweeps what is nobody's
//!     prepare      kernel.rs   Debian's kernel by package name, our initramfs; probe.rs: does KVM really work
//!     ensure       machine/start.rs -> launch.rs   scratch disk, tap, sockets, cgroup, jail, proof, go
//!                  template.rs                     a saved machine that others begin as clones of, made in the background
//!     pause, sleep machine/sleep.rs -> saved.rs    memory and devices on the disk, checked before they are used again
//!     stop         machine/stop.rs                 the guest is asked, then the monitor, then the kernel
//!     exec, logs   channel/, logs.rs               over the guest channel; nothing else leads into a guest
//! ```
//!
//! Tasks: for each machine that runs one that hears its monitor and takes in its end ([`machine`], `watch.rs`), one
//! that holds the channel to its guest (`guest_link.rs`), one that records its console. They flow into the machine's
//! state, its log on disk, and [`Engine::changes`]. A machine's process is in a session and a jail of its own
//! ([`jail`]) and runs on when this program ends in whatever way; the next [`Service::open`] takes it back.
//!
//! This crate knows no resource kinds and no other engine: disks come as files, networks as the names of taps.

pub mod channel;
mod config;
mod console;
mod context;
mod engine;
mod error;
pub mod jail;
pub mod kernel;
mod launch;
pub mod logs;
mod machine;
mod probe;
mod process;
pub mod qemu;
pub mod qmp;
mod record;
mod rotate;
mod saved;
mod scratch;
mod seen;
mod service;
mod spec;
mod tap;
mod template;

pub use config::{Config, UID_BASE};
pub use engine::{Capabilities, Engine, ExecRequest, Facts};
pub use error::Error;
pub use logs::{LineStream, LogLine, LogQuery};
pub use seen::{End, EndCode, Guest, Origin, Phase, Seen, Start};
pub use service::{Handle, Service};
pub use spec::Spec;
