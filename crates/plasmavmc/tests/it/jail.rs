//! The walls around a machine's process, as the kernel sees them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use plasmavmc::{Engine, Phase};

use crate::support::{Bench, cgroups, ground, spec};

#[tokio::test]
async fn a_machine_runs_behind_every_wall() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    // What a careless library would leave open to every child.
    let leak = fs::File::open("/etc/hostname").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    bench.engine.ensure(spec(ground, "vm_walls", 1, &["sleep", "1000"])).await.unwrap();
    bench.engine.ensure(spec(ground, "vm_other", 2, &["sleep", "1000"])).await.unwrap();
    let seen = bench.engine.observe("vm_walls").unwrap();
    let other = bench.engine.observe("vm_other").unwrap();
    assert_eq!(seen.phase, Phase::Running);
    let (pid, other) = (seen.pid.unwrap(), other.pid.unwrap());
    assert_ne!(pid, other);

    let status = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |pid: u32, name: &str| {
        let status = status(pid);
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field(pid, "Uid"), "200001 200001 200001 200001");
    assert_eq!(field(pid, "Gid"), "200001 200001 200001 200001");
    assert_eq!(field(other, "Uid"), "200002 200002 200002 200002");
    assert_eq!(field(pid, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!((field(pid, "NoNewPrivs"), field(pid, "Seccomp")), ("1".to_owned(), "2".to_owned()));

    let link = |pid: &str, name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    for namespace in ["ns/mnt", "ns/net", "ns/ipc", "ns/uts", "ns/pid"] {
        assert_ne!(link(&pid.to_string(), namespace), link("self", namespace));
        assert_ne!(link(&pid.to_string(), namespace), link(&other.to_string(), namespace));
    }
    // Its root shows the system read-only, and neither processes nor any tenant.
    let root = format!("/proc/{pid}/root");
    let mut names: Vec<_> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !["usr", "bin", "sbin", "lib", "lib64", "nix"].contains(&name.as_str()));
    names.sort();
    assert_eq!(names, ["dev", "etc", "kernel", "proc"]);
    // Of processes it sees itself, of the kernel's settings none.
    let listed = fs::read_dir(format!("{root}/proc")).unwrap();
    let mut listed: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    listed.sort();
    assert_eq!(listed, ["1", "self", "thread-self"]);
    assert_eq!(fs::read_dir(format!("{root}/etc")).unwrap().count(), 1);
    for place in ["", "/usr", "/kernel", "/dev"] {
        let error = fs::write(format!("{root}{place}/written"), "x").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{place}");
    }
    // Descriptors: its own disks and sockets, no folder and nothing of another machine's.
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        let foreign = ["vm_other", "lock", "hostname"].iter().any(|name| target.contains(name));
        assert!(!foreign, "{target}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(limit("Max core file size").contains(" 0 "), "{limits}");
    assert!(limit("Max open files").contains(" 256 "), "{limits}");

    let groups = cgroups(&format!("photon-{}", bench.config.instance_tag));
    let mut of_this: Vec<_> = groups.iter().filter(|path| path.ends_with("vm_walls")).collect();
    of_this.sort();
    assert!(!of_this.is_empty());
    for folder in &of_this {
        let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap();
        assert_eq!(procs.trim(), pid.to_string(), "{}", folder.display());
    }
    let read = |names: &[&str]| {
        let paths = of_this.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
        let text = paths.map(fs::read_to_string).find_map(Result::ok).unwrap();
        text.trim().to_owned()
    };
    assert_eq!(read(&["memory.max", "memory.limit_in_bytes"]), ((128 + 128 + 1) << 20).to_string());
    assert_eq!(read(&["pids.max"]), "97");

    let folder = fs::metadata(bench.config.state_dir.join("vm_walls")).unwrap();
    assert_eq!((folder.permissions().mode() & 0o777, folder.uid()), (0o700, 0));

    bench.engine.destroy("vm_walls").await.unwrap();
    assert!(!bench.config.state_dir.join("vm_walls").exists());
    assert!(!cgroups(&format!("photon-{}", bench.config.instance_tag)).iter().any(|path| path.ends_with("vm_walls")));
    assert_eq!(bench.engine.observe("vm_walls"), None);
    assert_eq!(bench.engine.list(), ["vm_other"]);
}

/// Users are not shared, and machines are counted.
#[tokio::test]
async fn what_would_weaken_the_walls_is_refused() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    bench.engine.ensure(spec(ground, "vm_one", 1, &["sleep", "1000"])).await.unwrap();
    let error = bench.engine.ensure(spec(ground, "vm_two", 1, &["sleep", "1000"])).await.unwrap_err();
    assert_eq!(error.code(), "vm_spec_invalid");
    assert!(error.to_string().contains("vm_one"), "{error}");
    let mut root = spec(ground, "vm_root", 5, &["sleep", "1000"]);
    root.uid = 0;
    assert_eq!(bench.engine.ensure(root).await.unwrap_err().code(), "vm_spec_invalid");
    // A tap that is not there is not made.
    let mut tapped = spec(ground, "vm_tap", 6, &["sleep", "1000"]);
    (tapped.tap, tapped.mac) = (Some("vt-no-such".to_owned()), "02:fc:00:00:00:01".to_owned());
    let error = bench.engine.ensure(tapped).await.unwrap_err();
    assert_eq!(error.code(), "network_setup_failed");
    assert_eq!(bench.engine.observe("vm_tap").unwrap().end.unwrap().code.as_str(), "vm_start_failed");
    let mut lost = spec(ground, "vm_lost", 7, &["sleep", "1000"]);
    lost.root_image = "/nowhere/root.erofs".into();
    assert_eq!(bench.engine.ensure(lost).await.unwrap_err().code(), "disk_unusable");
}
