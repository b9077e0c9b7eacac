//! From a configuration to a running workload: clock, entropy, disks, identity, network, secrets, process.

use model::guest::{Config, Event, FailureCode, Phase, negotiate};

use crate::cgroup::{self, Group};
use crate::failure::Failure;
use crate::init::Init;
use crate::workload::Workload;
use crate::{clock, console, disk, entropy, identity, network, secrets};

/// The kernel's limit of a host name.
const HOSTNAME_MAX: usize = 64;
const ENTROPY_MIN: usize = 16;

/// What can be said without touching the machine. A refused configuration may be followed by a better one.
pub fn check(config: &Config) -> Result<(), Failure> {
    let bad = |detail: String| Err(Failure::new(FailureCode::ConfigParseFailed, detail));
    if negotiate(config.protocol, config.protocol).is_none() {
        let detail = format!("the configuration speaks protocol {}", config.protocol);
        return Err(Failure::new(FailureCode::GuestInitProtocolMismatch, detail));
    }
    if config.process.argv.first().is_none_or(String::is_empty) {
        return bad("process.argv is empty".into());
    }
    if config.hostname.is_empty() || config.hostname.len() > HOSTNAME_MAX {
        return bad(format!("hostname has {} bytes; 1 to {HOSTNAME_MAX} are allowed", config.hostname.len()));
    }
    let workdir = &config.process.workdir;
    if !workdir.is_empty() && !workdir.starts_with('/') {
        return bad(format!("process.workdir {workdir:?} is not absolute"));
    }
    for disk in [Some(&config.root), config.scratch.as_ref()].into_iter().flatten() {
        if !disk.device.starts_with("/dev/") {
            return bad(format!("{:?} is no device", disk.device));
        }
    }
    if entropy::parse_hex(config.entropy.reveal()).is_none_or(|seed| seed.len() < ENTROPY_MIN) {
        return bad(format!("entropy is not hex of {ENTROPY_MIN} bytes or more"));
    }
    if config.machine_id.len() != 32 || entropy::parse_hex(&config.machine_id).is_none() {
        return bad("machine_id is not 32 hex digits".into());
    }
    if let Some(network) = &config.network {
        if network::parse_mac(&network.mac).is_none() {
            return bad(format!("{:?} is no MAC address", network.mac));
        }
        if network.v4.as_ref().is_some_and(|v4| v4.prefix > 32) || network.v6.as_ref().is_some_and(|v6| v6.prefix > 128)
        {
            return bad("a prefix is longer than its address".into());
        }
    }
    if config.health.as_ref().is_some_and(|health| health.port == 0) {
        return bad("health.port is 0".into());
    }
    Ok(())
}

/// Clock and entropy, before anything else draws on them. Errors do not stop a boot: time can be set later, and the
/// kernel has sources of its own.
pub fn freshen(config: &Config) {
    if let Err(error) = clock::set_realtime(config.clock_unix_ns) {
        console::error(&format!("set the clock: {error}"));
    }
    if let Some(seed) = entropy::parse_hex(config.entropy.reveal())
        && let Err(error) = entropy::add(&seed)
    {
        console::error(&format!("add entropy: {error}"));
    }
}

impl Init {
    /// Failures are events; the machine stays, so that the host can look.
    pub fn apply(&mut self, config: &Config) {
        self.journal.phase(Phase::Applying);
        match self.try_apply(config) {
            Ok(()) => {
                self.event(Event::ConfigApplied);
                if let Some(workload) = &mut self.workload {
                    let turn = workload.begin(&mut self.journal);
                    self.follow(turn);
                }
            }
            Err(failure) => {
                console::error(&format!("{}: {}", failure.code.as_str(), failure.detail));
                self.event(Event::Failed { code: failure.code, detail: failure.detail });
            }
        }
    }

    fn try_apply(&mut self, config: &Config) -> Result<(), Failure> {
        let start = clock::monotonic_ms();
        disk::bind(std::mem::take(&mut self.unbound))?;
        self.scratch = Some(disk::enter(config)?);
        cgroup::enable();
        self.exec_group = Group::create("exec");
        identity::write(config)?;
        let disks = clock::monotonic_ms();
        network::configure(config.network.as_ref())?;
        console::info(&format!("disks {} ms, network {} ms", disks - start, clock::monotonic_ms() - disks));
        let workload = Workload::new(config.process.clone())?;
        secrets::write(config, workload.identity())?;
        self.workload = Some(workload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::guest::{Disk, Hidden, Process, Restart};

    fn config() -> Config {
        Config {
            protocol: 1,
            instance_id: "vm_1".into(),
            hostname: "web".into(),
            machine_id: "0".repeat(32),
            entropy: Hidden::new("00".repeat(32)),
            clock_unix_ns: 1,
            root: Disk { device: "/dev/vda".into(), fs: "erofs".into() },
            scratch: None,
            network: None,
            process: Process {
                argv: vec!["/app".into()],
                env: Vec::new(),
                workdir: String::new(),
                user: String::new(),
                prestart: Vec::new(),
                prestart_timeout_seconds: 30,
                restart: Restart::default(),
                grace_seconds: 10,
            },
            health: None,
            secrets: None,
            secrets_required: false,
        }
    }

    #[test]
    fn bad_configurations_are_refused_by_name() {
        assert_eq!(check(&config()), Ok(()));
        type Spoil = fn(&mut Config);
        let table: [(Spoil, &str); 8] = [
            (|c| c.process.argv.clear(), "argv"),
            (|c| c.hostname = "x".repeat(65), "hostname"),
            (|c| c.process.workdir = "app".into(), "workdir"),
            (|c| c.root.device = "vda".into(), "device"),
            (|c| c.entropy = Hidden::new("00"), "entropy"),
            (|c| c.entropy = Hidden::new("zz".repeat(32)), "entropy"),
            (|c| c.machine_id = "1".into(), "machine_id"),
            (|c| c.scratch = Some(Disk { device: "../x".into(), fs: "ext4".into() }), "device"),
        ];
        for (spoil, word) in table {
            let mut config = config();
            spoil(&mut config);
            let failure = check(&config).unwrap_err();
            assert_eq!(failure.code, FailureCode::ConfigParseFailed);
            assert!(failure.detail.contains(word), "{failure:?}");
        }
        let newer = Config { protocol: 99, ..config() };
        assert_eq!(check(&newer).unwrap_err().code, FailureCode::GuestInitProtocolMismatch);
    }
}
