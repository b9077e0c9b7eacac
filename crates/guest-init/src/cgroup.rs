//! Two control groups: the workload's, so that it can be counted and ended as a whole, and one for exec sessions.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};

use crate::console;

const ROOT: &str = "/sys/fs/cgroup";

pub struct Group {
    dir: String,
    procs: File,
}

impl Group {
    /// `None` when the kernel has no control groups; then processes stay where they are.
    pub fn create(name: &str) -> Option<Self> {
        let dir = format!("{ROOT}/{name}");
        fs::create_dir_all(&dir).ok()?;
        let procs = OpenOptions::new().write(true).open(format!("{dir}/cgroup.procs")).ok()?;
        Some(Self { dir, procs })
    }

    /// A new process writes `0` here to enter.
    pub fn entrance(&self) -> RawFd {
        self.procs.as_raw_fd()
    }

    /// Ends every process in it. False when the kernel cannot; then the process group has to do.
    pub fn kill(&self) -> bool {
        fs::write(format!("{}/cgroup.kill", self.dir), "1").is_ok()
    }

    fn oom_kills(&self) -> Option<u64> {
        count(&fs::read_to_string(format!("{}/memory.events", self.dir)).ok()?)
    }
}

/// Makes the memory controller count for each group.
pub fn enable() {
    for controller in ["+memory", "+cpu", "+pids"] {
        if let Err(error) = fs::write(format!("{ROOT}/cgroup.subtree_control"), controller) {
            console::info(&format!("control group {controller}: {error}"));
        }
    }
}

/// Processes killed for want of memory so far: of the group, or of the whole machine where groups do not count.
pub fn oom_kills(group: Option<&Group>) -> u64 {
    let of_group = group.and_then(Group::oom_kills);
    of_group.or_else(|| count(&fs::read_to_string("/proc/vmstat").ok()?)).unwrap_or(0)
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_among_its_like() {
        assert_eq!(count("low 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(count("pgfault 1\n"), None);
    }
}
