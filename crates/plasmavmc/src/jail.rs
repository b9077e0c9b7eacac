//! The jail of one machine's process. Every wall is built or the machine does not start.
//!
//! ```text
//!   cgroup      hard memory limit (guest + monitor), no swap, processes counted, CPU by weight   cgroup.rs
//!   root        a tmpfs with read-only system folders, the kernel and four devices               root.rs
//!   namespaces  mount, network (empty; the tap comes as a descriptor), IPC, UTS, process numbers launch.rs
//!   privileges  its own user and group, no capabilities, no new privileges, limits               launch.rs
//!   seccomp     the monitor's own filter, on at start                                            (qemu argv)
//!   proof       all of it read back from /proc before the first guest instruction                verify.rs
//! ```
//!
//! The process is started in a session of its own and outlives the program that started it.

pub mod cgroup;
mod launch;
pub mod root;
mod verify;

pub use launch::{Limits, Plan, Started, start};
pub use verify::{Expected, verify};
