//! The proof that the walls stand, read from the kernel and not from our own memory of building them.

use std::fs;

use super::cgroup::Group;

/// What the process must look like.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub uid: u32,
    pub group: &'a Group,
    pub memory_bytes: u64,
}

/// Looks at every thread of the process. The error names the wall that is missing.
pub fn verify(pid: u32, expected: &Expected) -> Result<(), String> {
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| format!("process {pid}: {error}"))?;
    let mut count = 0;
    for task in tasks.flatten() {
        // A thread that ended between the two reads has nothing left to prove.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
        status_holds(&status, expected.uid, field(&own, "CapBnd").is_some())?;
        count += 1;
    }
    if count == 0 {
        return Err(format!("process {pid} has no threads"));
    }
    for namespace in ["mnt", "net", "ipc", "uts", "pid"] {
        let link = |who: &str| fs::read_link(format!("/proc/{who}/ns/{namespace}")).ok();
        if link(&pid.to_string()).is_none_or(|theirs| Some(theirs) == link("self")) {
            return Err(format!("it shares the host's {namespace} namespace"));
        }
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    if !root_is_ours(&mounts) {
        return Err("its root is not the jail's".to_owned());
    }
    if !expected.group.holds(pid) {
        return Err("it is not in its cgroup".to_owned());
    }
    match expected.group.memory_limit() {
        Some(limit) if limit == expected.memory_bytes => Ok(()),
        limit => Err(format!("its memory limit is {limit:?}, not {}", expected.memory_bytes)),
    }
}

fn status_holds(status: &str, uid: u32, bounded: bool) -> Result<(), String> {
    let four = [uid.to_string(), uid.to_string(), uid.to_string(), uid.to_string()].join(" ");
    let zero = "0000000000000000";
    let mut wanted =
        vec![("Uid", four.as_str()), ("Gid", &four), ("Groups", ""), ("NoNewPrivs", "1"), ("Seccomp", "2")];
    wanted.extend(["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| (name, zero)));
    if bounded {
        wanted.push(("CapBnd", zero));
    }
    for (name, value) in wanted {
        let found = field(status, name);
        if found.as_deref() != Some(value) {
            return Err(format!("{name} is {:?}, not {value:?}", found.unwrap_or_default()));
        }
    }
    Ok(())
}

/// A field of `/proc/PID/status`, its words parted by one space.
fn field(status: &str, name: &str) -> Option<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The topmost mount on `/` is a read-only tmpfs.
fn root_is_ours(mountinfo: &str) -> bool {
    let mut roots = mountinfo.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    roots.next_back().is_some_and(|line| {
        let read_only = line.split(' ').nth(5).is_some_and(|options| options.split(',').any(|one| one == "ro"));
        let tmpfs = line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("tmpfs "));
        read_only && tmpfs
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Name:\tqemu\nUid:\t200000\t200000\t200000\t200000\nGid:\t200000\t200000\t200000\t200000\nGroups:\t \n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn each_wall_is_missed_by_its_name() {
        status_holds(GOOD, 200_000, true).unwrap();
        for (wall, from, to) in [
            ("Uid", "Uid:\t200000", "Uid:\t0"),
            ("Gid", "Gid:\t200000\t200000", "Gid:\t200000\t0"),
            ("Groups", "Groups:\t ", "Groups:\t0 27 "),
            ("CapEff", "CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff"),
            ("CapBnd", "CapBnd:\t0000000000000000", "CapBnd:\t000001ffffffffff"),
            ("NoNewPrivs", "NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp", "Seccomp:\t2", "Seccomp:\t0"),
            ("Seccomp", "Seccomp:\t2", "Other:\t2"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = status_holds(&GOOD.replace(from, to), 200_000, true).unwrap_err();
            assert!(error.starts_with(wall), "{error}");
        }
        assert!(status_holds(GOOD, 200_001, true).is_err());
    }

    #[test]
    fn the_hosts_root_is_not_the_jails() {
        assert!(root_is_ours(
            "1 0 0:5 / / ro,nosuid - tmpfs tmpfs ro,size=1024k\n2 1 0:6 / /usr ro - ext4 /dev/vda rw\n"
        ));
        assert!(!root_is_ours("1 0 0:5 / / rw,nosuid - tmpfs tmpfs rw\n"));
        assert!(!root_is_ours("1 0 0:5 / / ro - ext4 /dev/vda ro\n"));
        assert!(!root_is_ours(""));
    }
}
