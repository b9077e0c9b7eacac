//! PID 1 of a machine: a small static binary that is `/init` in the initramfs and stays until the power goes.
//!
//! ```text
//!            port (virtio-serial)
//!                 |
//!  link  <-> messages --> apply: disk, identity, network, secrets
//!                 |          |
//!                 |       workload --(exit)--> restart (pure) --> workload
//!                 |          |  \
//!              exec       journal  health (one thread, probes)
//!                 \__________|_______/
//!                          init (the loop, one thread)
//! ```
//!
//! - It never exits. A panic is told on the console and stops only the thread that had it.
//! - A crash of the workload is no crash of the machine: sessions and the channel go on.
//! - While no host listens the workload runs on, and what it prints waits in a bounded ring.
//! - No shell, no external program, no name service, no DHCP.

mod apply;
mod cgroup;
mod clock;
mod console;
mod disk;
mod early;
mod entropy;
mod exec;
mod failure;
mod health;
mod identity;
mod init;
mod journal;
mod link;
mod messages;
mod netlink;
mod network;
mod power;
mod pressure;
mod program;
mod restart;
mod secrets;
mod signals;
mod stats;
mod user;
mod workload;

fn main() {
    if !rustix::process::getpid().is_init() {
        eprintln!("guest-init is the first process of a machine and nothing else");
        std::process::exit(64);
    }
    console::survive_panics();
    early::mounts();
    console::open();
    early::defaults();
    early::hurry();
    early::modules();
    let link = link::Link::new(link::wait_for_port());
    let started = signals::watch().and_then(|signals| init::Init::new(signals, link));
    match started {
        Ok(init) => init.run(),
        Err(error) => {
            console::error(&format!("start the loop: {error}"));
            power::off(None);
        }
    }
}
