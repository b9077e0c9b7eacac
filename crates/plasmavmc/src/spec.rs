//! What a machine is to be.

use std::path::PathBuf;

use model::guest;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::kernel::hex;

pub const VCPUS_MAX: u32 = 64;
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;
pub const MEMORY_BYTES_MAX: u64 = 1 << 40;
pub const SCRATCH_BYTES_MIN: u64 = 16 << 20;
pub const SCRATCH_BYTES_MAX: u64 = 16 << 40;
/// As cgroup v2 has it.
pub const CPU_WEIGHT_MAX: u32 = 10_000;

/// The guest's names for its two disks: the root is plugged in first, the scratch disk after it.
pub const ROOT_DEVICE: &str = "/dev/vda";
pub const SCRATCH_DEVICE: &str = "/dev/vdb";

/// One machine, complete. The engine keeps it on disk without its secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Letters, digits, `_` and `-`; 1 to 63 of them. The name of folders and cgroups.
    pub id: String,
    /// Grows with each change of the wish. A smaller one than the last is refused.
    pub generation: u64,
    /// 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// The guest's memory, a multiple of 1 MiB, [`MEMORY_BYTES_MIN`] to [`MEMORY_BYTES_MAX`].
    pub memory_bytes: u64,
    /// 1 to [`CPU_WEIGHT_MAX`]; 100 is one share.
    pub cpu_weight: u32,
    /// A file with the read-only root file system. It must not change while the machine lives.
    pub root_image: PathBuf,
    /// The file system in it, as the guest's kernel names it: `erofs`.
    pub root_fs: String,
    /// The size of the writable layer: a multiple of 1 MiB, [`SCRATCH_BYTES_MIN`] to [`SCRATCH_BYTES_MAX`]. It is made
    /// empty at each start of the machine and takes host space only as it is written. 0 keeps the layer in memory.
    pub scratch_bytes: u64,
    /// A tap device that exists, in this process's network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// Six hex pairs with colons; used with a tap only.
    #[serde(default)]
    pub mac: String,
    /// The user and group that the machine's process runs as; not shared with another machine.
    pub uid: u32,
    /// Whose machine it is. Machines of one owner begin as clones of one template, a machine that was saved when it had
    /// booted, and share what they leave unchanged of its memory; so an owner is a tenant's boundary. Without one, the
    /// machine boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// It is expected to sleep: its memory is a file from the start, so that falling asleep and waking take the same short
    /// time at any size. The space on the disk is taken when the machine starts.
    #[serde(default)]
    pub sleeps: bool,
    /// What the guest is told at boot. The engine fills `protocol`, `entropy`, `clock_unix_ns`, `root` and `scratch`.
    pub guest: guest::Config,
}

impl Spec {
    /// Everything that can be judged without looking at the host.
    pub(crate) fn check(&self, uid_base: u32) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Spec { id: self.id.clone(), why });
        if !is_id(&self.id) {
            return refuse("an id is 1 to 63 letters, digits, _ and -".to_owned());
        }
        if !(1..=VCPUS_MAX).contains(&self.vcpus) {
            return refuse(format!("{} virtual CPUs; 1 to {VCPUS_MAX} are possible", self.vcpus));
        }
        if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&self.memory_bytes)
            || !self.memory_bytes.is_multiple_of(1 << 20)
        {
            return refuse(format!("{} bytes of memory; whole MiB from 64 on are possible", self.memory_bytes));
        }
        if !(1..=CPU_WEIGHT_MAX).contains(&self.cpu_weight) {
            return refuse(format!("CPU weight {}; 1 to {CPU_WEIGHT_MAX} is possible", self.cpu_weight));
        }
        let scratch = self.scratch_bytes;
        if scratch != 0
            && (!(SCRATCH_BYTES_MIN..=SCRATCH_BYTES_MAX).contains(&scratch) || !scratch.is_multiple_of(1 << 20))
        {
            return refuse(format!("{scratch} bytes of scratch disk; none or whole MiB from 16 on are possible"));
        }
        if self.uid < uid_base || self.uid == u32::MAX {
            return refuse(format!("user {} is not one of the machines' own, which begin at {uid_base}", self.uid));
        }
        if self.owner.as_ref().is_some_and(String::is_empty) {
            return refuse("an owner without a name".to_owned());
        }
        if let Some(tap) = &self.tap {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if tap.is_empty() || tap.len() > 15 || tap.starts_with('.') || !tap.chars().all(plain) {
                return refuse(format!("{tap:?} is not a network device's name"));
            }
            if !is_mac(&self.mac) {
                return refuse(format!("{:?} is not a MAC address for one machine", self.mac));
            }
        }
        if self.guest.process.argv.is_empty() {
            return refuse("there is no command to run".to_owned());
        }
        Ok(())
    }

    /// What may be written to disk: everything but secrets and what is fresh at each boot.
    pub(crate) fn without_secrets(&self) -> Self {
        let mut spec = self.clone();
        spec.guest.secrets = None;
        spec.guest.entropy = guest::Hidden::default();
        spec.guest.clock_unix_ns = 0;
        spec
    }

    /// Equal for specifications that need no new boot: the generation, what the engine fills in and how a start is to be
    /// made do not count, the secrets do. `salt` keeps the digest of short secrets from being looked up in a table.
    pub(crate) fn fingerprint(&self, salt: &str) -> String {
        let mut spec = self.clone();
        spec.generation = 0;
        spec.guest.entropy = guest::Hidden::default();
        spec.guest.clock_unix_ns = 0;
        spec.guest.protocol = 0;
        (spec.owner, spec.sleeps) = (None, false);
        let text = serde_json::to_vec(&spec).expect("a specification is always JSON");
        hex(&Sha256::new().chain_update(salt).chain_update([0]).chain_update(text).finalize())
    }

    /// The guest's configuration for one boot.
    pub(crate) fn boot_config(&self, protocol: u32, now_ns: u64) -> guest::Config {
        let mut config = self.guest.clone();
        config.protocol = protocol;
        config.entropy = guest::Hidden::new(world::random::hex(ENTROPY_BYTES));
        config.clock_unix_ns = now_ns;
        config.root = guest::Disk { device: ROOT_DEVICE.to_owned(), fs: self.root_fs.clone() };
        let scratch = guest::Disk { device: SCRATCH_DEVICE.to_owned(), fs: "ext4".to_owned() };
        config.scratch = (self.scratch_bytes > 0).then_some(scratch);
        config
    }
}

/// Twice what the kernel's generator takes.
const ENTROPY_BYTES: usize = 64;

/// An id becomes the name of a folder, a socket and a cgroup.
pub(crate) fn is_id(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// A unicast address in six pairs of hex digits.
fn is_mac(text: &str) -> bool {
    let pairs: Vec<_> = text.split(':').map(|pair| (pair.len(), u8::from_str_radix(pair, 16))).collect();
    pairs.len() == 6
        && pairs.iter().all(|(length, value)| *length == 2 && value.is_ok())
        && pairs[0].1.as_ref().is_ok_and(|first| first & 1 == 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine that runs `argv` from a root that need not exist.
    pub(crate) fn sample(id: &str) -> Spec {
        let guest = serde_json::json!({
            "protocol": 1, "instance_id": id, "hostname": id, "machine_id": "0".repeat(32), "entropy": "",
            "clock_unix_ns": 0, "root": { "device": ROOT_DEVICE, "fs": "erofs" }, "process": { "argv": ["/bin/true"] },
        });
        Spec {
            id: id.to_owned(),
            generation: 1,
            vcpus: 1,
            memory_bytes: 128 << 20,
            cpu_weight: 100,
            root_image: "/nowhere/root.erofs".into(),
            root_fs: "erofs".to_owned(),
            scratch_bytes: 0,
            tap: None,
            mac: String::new(),
            uid: 200_000,
            owner: None,
            sleeps: false,
            guest: serde_json::from_value(guest).unwrap(),
        }
    }

    #[test]
    fn each_bound_is_held() {
        sample("vm_1").check(200_000).unwrap();
        let bad: [fn(&mut Spec); 15] = [
            |spec| spec.id = "../x".to_owned(),
            |spec| spec.id = String::new(),
            |spec| spec.vcpus = 0,
            |spec| spec.vcpus = 65,
            |spec| spec.memory_bytes = 63 << 20,
            |spec| spec.memory_bytes += 1,
            |spec| spec.cpu_weight = 0,
            |spec| spec.scratch_bytes = 1,
            |spec| spec.uid = 0,
            |spec| spec.uid = 199_999,
            |spec| spec.tap = Some("a/b".to_owned()),
            |spec| spec.tap = Some("tap0".to_owned()),
            |spec| (spec.tap, spec.mac) = (Some("tap0".to_owned()), "03:00:00:00:00:01".to_owned()),
            |spec| spec.owner = Some(String::new()),
            |spec| spec.guest.process.argv.clear(),
        ];
        for (number, change) in bad.into_iter().enumerate() {
            let mut spec = sample("vm_1");
            change(&mut spec);
            assert!(matches!(spec.check(200_000), Err(Error::Spec { .. })), "case {number}");
        }
        let mut spec = sample("vm_1");
        (spec.tap, spec.mac) = (Some("vt-1.a".to_owned()), "02:fc:00:00:00:01".to_owned());
        spec.check(200_000).unwrap();
    }

    #[test]
    fn secrets_change_the_fingerprint_and_never_reach_the_disk() {
        let mut one = sample("vm_1");
        one.guest.secrets = Some(guest::Hidden::new("# VT_SECRETS_V1\nKEY=canary-1\n"));
        let mut two = one.clone();
        two.generation = 9;
        two.guest.entropy = guest::Hidden::new("ab");
        assert_eq!(one.fingerprint("s"), two.fingerprint("s"));
        two.guest.secrets = Some(guest::Hidden::new("# VT_SECRETS_V1\nKEY=canary-2\n"));
        assert_ne!(one.fingerprint("s"), two.fingerprint("s"));
        assert_ne!(one.fingerprint("s"), one.fingerprint("t"));
        let written = serde_json::to_string(&one.without_secrets()).unwrap();
        assert!(!written.contains("canary"), "{written}");
        assert!(!format!("{one:?}").contains("canary"));
    }

    #[test]
    fn each_boot_gets_its_own_entropy_and_clock() {
        let spec = sample("vm_1");
        let (one, two) = (spec.boot_config(1, 5), spec.boot_config(1, 6));
        assert_ne!(one.entropy, two.entropy);
        assert_eq!((one.entropy.reveal().len(), one.clock_unix_ns), (128, 5));
        assert_eq!(one.scratch, None);
    }
}
