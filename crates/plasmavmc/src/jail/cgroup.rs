//! Control groups, version 2 or 1.
//!
//! ```text
//!   v2   ROOT/photon-TAG/ID                      preferred: one tree
//!   v1   MEMORY/photon-TAG/ID, CPU/.., PIDS/..   three trees
//! ```
//!
//! Version 2 is used when its tree has the controllers memory, cpu and pids; on hosts where they are bound to version 1
//! they are used there. Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;

/// Rounds of killing and looking before a group counts as stuck; each 20 ms.
const EMPTY_ROUNDS_MAX: u32 = 250;
/// All machines together against the host's other groups, each of which has 100: without it, a host with machines gives
/// them no more than one busy program.
const OURS_WEIGHT: u64 = 1000;
const EMPTY_ROUND: Duration = Duration::from_millis(20);

/// The host's control groups and the name under which all of ours stand.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    version: Version,
    /// `photon-TAG`
    ours: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    V2 { root: PathBuf },
    V1 { memory: PathBuf, cpu: PathBuf, pids: PathBuf },
}

/// What one group may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// All its memory: the guest's, the monitor's, the page cache it caused.
    pub memory_bytes: u64,
    /// 1 to 10,000; 100 is one share.
    pub cpu_weight: u32,
    /// Processes and threads.
    pub pids: u32,
}

/// One machine's group. It stays when this value is dropped: machines outlive the program.
#[derive(Clone, Debug)]
pub struct Group {
    hierarchy: Hierarchy,
    name: String,
}

impl Hierarchy {
    /// Looks at what is mounted.
    pub fn detect(tag: &str) -> Result<Self, Error> {
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").map_err(|error| Error::Cgroups { why: error.to_string() })?;
        let version = choose(&mounts, |root| fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default());
        let version = version.map_err(|why| Error::Cgroups { why })?;
        let hierarchy = Self { version, ours: format!("photon-{tag}") };
        hierarchy.make_ours().map_err(|error| Error::Cgroups { why: format!("{}: {error}", hierarchy.ours) })?;
        Ok(hierarchy)
    }

    /// `v2` or `v1`.
    pub fn version(&self) -> &'static str {
        match self.version {
            Version::V2 { .. } => "v2",
            Version::V1 { .. } => "v1",
        }
    }

    fn make_ours(&self) -> io::Result<()> {
        if let Version::V2 { root } = &self.version {
            let ours = root.join(&self.ours);
            fs::create_dir_all(&ours)?;
            for folder in [root, &ours] {
                fs::write(folder.join("cgroup.subtree_control"), "+memory +cpu +pids")?;
            }
        }
        self.roots().into_iter().try_for_each(|root| fs::create_dir_all(root.join(&self.ours)))?;
        match &self.version {
            Version::V2 { root } => fs::write(root.join(&self.ours).join("cpu.weight"), OURS_WEIGHT.to_string()),
            Version::V1 { cpu, .. } => {
                fs::write(cpu.join(&self.ours).join("cpu.shares"), (OURS_WEIGHT * 1024 / 100).to_string())
            }
        }
    }

    /// The trees that hold our groups; the one with memory first.
    fn roots(&self) -> Vec<&Path> {
        match &self.version {
            Version::V2 { root } => vec![root],
            Version::V1 { memory, cpu, pids } => vec![memory, cpu, pids],
        }
    }

    /// Makes the group, or takes the one that is there, and sets its bounds. All of them hold when this returns.
    pub fn create(&self, name: &str, bounds: Bounds) -> io::Result<Group> {
        let group = self.group(name);
        for folder in group.folders() {
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        group.set(bounds)?;
        Ok(group)
    }

    /// The group by name; it need not exist.
    pub fn group(&self, name: &str) -> Group {
        Group { hierarchy: self.clone(), name: name.to_owned() }
    }

    /// The names of all our groups.
    pub fn names(&self) -> Vec<String> {
        let mut names = std::collections::BTreeSet::new();
        for root in self.roots() {
            for entry in fs::read_dir(root.join(&self.ours)).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    names.extend(entry.file_name().into_string());
                }
            }
        }
        names.into_iter().collect()
    }

    /// Removes the folder that holds our groups, when none is left.
    pub fn remove_ours(&self) {
        for root in self.roots() {
            let _ = fs::remove_dir(root.join(&self.ours));
        }
    }
}

/// `controllers` gives the content of a v2 root's `cgroup.controllers`.
fn choose(mountinfo: &str, controllers: impl Fn(&Path) -> String) -> Result<Version, String> {
    // Source: proc(5): id, parent, device, root, mount point, options, [fields], "-", type, source, super options
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, _, options) = (after.next()?, after.next()?, after.next()?);
        Some((PathBuf::from(before.split(' ').nth(4)?.replace("\\040", " ")), kind, options))
    });
    let mounts: Vec<_> = mounts.collect();
    let wanted = ["memory", "cpu", "pids"];
    for (root, _, _) in mounts.iter().filter(|(_, kind, _)| *kind == "cgroup2") {
        let have = controllers(root);
        if wanted.iter().all(|&one| have.split_whitespace().any(|word| word == one)) {
            return Ok(Version::V2 { root: root.clone() });
        }
    }
    let v1 = |controller: &str| {
        let mut found = mounts
            .iter()
            .filter(|(_, kind, options)| *kind == "cgroup" && options.split(',').any(|one| one == controller));
        found
            .next()
            .map(|(root, _, _)| root.clone())
            .ok_or_else(|| format!("the controller {controller} is in no cgroup tree"))
    };
    Ok(Version::V1 { memory: v1("memory")?, cpu: v1("cpu")?, pids: v1("pids")? })
}

impl Group {
    fn folders(&self) -> Vec<PathBuf> {
        let below = |root: &Path| root.join(&self.hierarchy.ours).join(&self.name);
        self.hierarchy.roots().into_iter().map(below).collect()
    }

    fn set(&self, bounds: Bounds) -> io::Result<()> {
        let folders = self.folders();
        let weight = u64::from(bounds.cpu_weight);
        let write = |folder: &Path, file: &str, value: u64| {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"));
            fs::write(folder.join(file), value.to_string()).map_err(named)
        };
        // Swap accounting may be compiled out; then there is no file, and nothing of this group is accounted as swap.
        let optional = |folder: &Path, file: &str, value: u64| {
            if folder.join(file).exists() { write(folder, file, value) } else { Ok(()) }
        };
        match &folders[..] {
            [memory, cpu, pids] => {
                optional(memory, "memory.swappiness", 0)?;
                // Memory plus swap may never be below memory alone: open it, set both, in the order that allows it.
                optional_text(memory, "memory.memsw.limit_in_bytes", "-1")?;
                write(memory, "memory.limit_in_bytes", bounds.memory_bytes)?;
                optional(memory, "memory.memsw.limit_in_bytes", bounds.memory_bytes)?;
                // 100 is one share in v2, 1,024 in v1.
                write(cpu, "cpu.shares", (weight * 1024 / 100).max(2))?;
                write(pids, "pids.max", u64::from(bounds.pids))
            }
            [folder] => {
                write(folder, "memory.max", bounds.memory_bytes)?;
                optional(folder, "memory.swap.max", 0)?;
                // One process of the group killed for memory means all are: half a monitor is no machine.
                optional(folder, "memory.oom.group", 1)?;
                write(folder, "cpu.weight", weight)?;
                write(folder, "pids.max", u64::from(bounds.pids))
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Files into which a process writes `0` to join, one for each tree.
    pub fn doors(&self) -> io::Result<Vec<File>> {
        let open = |folder: PathBuf| OpenOptions::new().write(true).open(folder.join("cgroup.procs"));
        self.folders().into_iter().map(open).collect()
    }

    /// True when the process is in this group in each tree.
    pub fn holds(&self, pid: u32) -> bool {
        let listed = |folder: &PathBuf| read_pids(folder).contains(&pid);
        self.folders().iter().all(listed)
    }

    /// The hard limit on memory as the kernel has it, in bytes.
    pub fn memory_limit(&self) -> Option<u64> {
        let file = self.memory_file("memory.max", "memory.limit_in_bytes");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Memory in use now, in bytes.
    pub fn memory_used(&self) -> Option<u64> {
        let file = self.memory_file("memory.current", "memory.usage_in_bytes");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// How often the kernel killed a process of this group for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let text = fs::read_to_string(self.memory_file("memory.events", "memory.oom_control")).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    fn memory_file(&self, v2: &str, v1: &str) -> PathBuf {
        let file = if matches!(self.hierarchy.version, Version::V2 { .. }) { v2 } else { v1 };
        self.folders().swap_remove(0).join(file)
    }

    /// The processes in it, in any tree.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<u32> = self.folders().iter().flat_map(|folder| read_pids(folder)).collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills all that is in it and removes it.
    ///
    /// # Errors
    /// `TimedOut` when a process does not go: it hangs in the kernel.
    pub async fn remove(&self) -> io::Result<()> {
        for _ in 0..EMPTY_ROUNDS_MAX {
            for pid in self.pids() {
                if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let left = self.folders().into_iter().map(fs::remove_dir).find_map(|done| match done {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Some(error),
                _ => None,
            });
            if left.is_none() {
                return Ok(());
            }
            tokio::time::sleep(EMPTY_ROUND).await;
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

fn optional_text(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    if path.exists() { fs::write(path, value) } else { Ok(()) }
}

fn read_pids(folder: &Path) -> Vec<u32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).filter(|&pid| pid != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        30 25 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw\n\
        31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        32 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        33 25 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

    #[test]
    fn v2_is_taken_where_it_has_the_controllers_and_v1_where_not() {
        let all = |_: &Path| "cpuset cpu io memory pids\n".to_owned();
        assert_eq!(choose(HYBRID, all), Ok(Version::V2 { root: "/sys/fs/cgroup/unified".into() }));
        let none = |_: &Path| "hugetlb\n".to_owned();
        let Ok(Version::V1 { memory, cpu, pids }) = choose(HYBRID, none) else { panic!("not v1") };
        assert_eq!(memory, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(cpu, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(pids, Path::new("/sys/fs/cgroup/pids"));
        let lines = HYBRID.split_inclusive('\n').take(2).collect::<String>();
        assert!(choose(&lines, none).unwrap_err().contains("controller cpu"));
    }

    /// The files of v2, in a folder that stands for its tree.
    #[test]
    fn bounds_are_written_where_v2_has_them() {
        let root = tempfile::tempdir().unwrap();
        let hierarchy =
            Hierarchy { version: Version::V2 { root: root.path().to_owned() }, ours: "photon-t".to_owned() };
        hierarchy.make_ours().unwrap();
        let folder = root.path().join("photon-t/vm_1");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("memory.swap.max"), "max").unwrap();
        let group = hierarchy.create("vm_1", Bounds { memory_bytes: 1 << 28, cpu_weight: 250, pids: 99 }).unwrap();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!([read("memory.max"), read("memory.swap.max")], ["268435456", "0"]);
        assert_eq!([read("cpu.weight"), read("pids.max")], ["250", "99"]);
        assert_eq!(group.memory_limit(), Some(1 << 28));
        fs::write(folder.join("memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 1\n").unwrap();
        assert_eq!(group.oom_kills(), 2);
        assert_eq!(hierarchy.names(), ["vm_1"]);
        fs::write(folder.join("cgroup.procs"), "0\n12\n").unwrap();
        assert!(group.holds(12) && !group.holds(13));
    }

    #[tokio::test]
    async fn a_real_group_bounds_holds_and_goes() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: not root");
        }
        let tag = format!("t{}", world::random::hex(3));
        let hierarchy = match Hierarchy::detect(&tag) {
            Ok(hierarchy) => hierarchy,
            Err(error) => return println!("skipped: {error}"),
        };
        let group = hierarchy.create("one", Bounds { memory_bytes: 64 << 20, cpu_weight: 100, pids: 8 }).unwrap();
        assert_eq!(group.memory_limit(), Some(64 << 20));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!group.holds(child.id()));
        for folder in group.folders() {
            fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        assert!(group.holds(child.id()));
        let reaper = std::thread::spawn(move || child.wait());
        group.remove().await.unwrap();
        assert!(!reaper.join().unwrap().unwrap().success());
        assert!(hierarchy.names().is_empty());
        hierarchy.remove_ours();
    }
}
