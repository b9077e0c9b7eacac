//! Machines that begin as clones.

use std::collections::BTreeSet;
use std::time::Duration;

use plasmavmc::{Engine, Phase, Seen, Service, Spec, Start};

use crate::support::{Bench, Ground, PATIENCE, exec, ground, pids, spec, until};

fn owned(ground: &Ground, id: &str, number: u32, owner: &str) -> Spec {
    Spec { owner: Some(owner.to_owned()), ..spec(ground, id, number, &["sleep", "1000"]) }
}

/// Waits until the owner's template is on the disk and its process is gone.
async fn made(bench: &Bench, count: usize) {
    let folder = bench.config.state_dir.join(".templates");
    let machines = || {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("machine-")).count()
    };
    let wait = async {
        while machines() < count {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // The entry in memory follows the folder.
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("no template was made");
}

async fn start(bench: &Bench, wish: Spec) -> Seen {
    let id = wish.id.clone();
    bench.engine.ensure(wish).await.unwrap();
    bench.until(&id, "ready", Seen::ready).await
}

#[tokio::test]
async fn machines_of_one_owner_begin_as_clones_and_share_nothing_they_should_not() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    let first = start(&bench, owned(ground, "vm_first", 1, "prj_a")).await;
    assert_eq!(first.origin.from, Start::Boot);
    assert!(first.origin.why.contains("one is being made"), "{:?}", first.origin);
    made(&bench, 1).await;

    let mut told = BTreeSet::new();
    for number in 2..=5 {
        let id = format!("vm_{number}");
        let mut wish = owned(ground, &id, number, "prj_a");
        wish.guest.secrets = Some(model::guest::Hidden::new(format!("# VT_SECRETS_V1\nKEY=of-{number}\n")));
        // With disks of other sizes, and kept memory or not.
        wish.scratch_bytes = u64::from(number) * (64 << 20);
        wish.sleeps = number == 5;
        let seen = start(&bench, wish).await;
        assert_eq!((seen.origin.from, seen.origin.why.as_str()), (Start::Template, ""), "{id}");
        let ask = "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id /etc/machine-id /etc/hostname; \
            head -c 16 /dev/urandom | busybox od -An -tx1; cat /run/secrets/platform.env | busybox tail -1";
        let (said, exit) = exec(&bench.engine, &id, &["sh", "-c", ask]).await;
        assert!(exit.success(), "{said}");
        for line in said.lines() {
            assert!(told.insert(line.to_owned()), "{id} says {line} as another does");
        }
        assert!(said.contains(&format!("KEY=of-{number}")) && said.contains(&format!("vm-{number}\n")), "{said}");
        let (disk, _) = exec(&bench.engine, &id, &["cat", "/sys/block/vdb/size"]).await;
        assert_eq!(disk.trim().parse::<u64>().unwrap() * 512, u64::from(number) * (64 << 20));
        // What one clone writes, on its disk and in its memory, is in no other.
        let alone =
            "test ! -e /written && test ! -e /run/written && touch /written /run/written && cat /www/index.html";
        let (said, exit) = exec(&bench.engine, &id, &["sh", "-c", alone]).await;
        assert!(exit.success(), "{id}: {said}");
    }

    // Another owner's machine never begins with this one's, nor does another shape's.
    let other = start(&bench, owned(ground, "vm_other", 7, "prj_b")).await;
    assert_eq!(other.origin.from, Start::Boot);
    let wide = Spec { vcpus: 2, ..owned(ground, "vm_wide", 8, "prj_a") };
    assert_eq!(start(&bench, wide).await.origin.from, Start::Boot);

    // A clone sleeps and wakes like any machine.
    for (id, number) in [("vm_4", 4), ("vm_5", 5)] {
        exec(&bench.engine, id, &["sh", "-c", "echo slept > /run/slept"]).await;
        bench.engine.sleep(id).await.unwrap();
        let mut wish = owned(ground, id, number, "prj_a");
        wish.guest.secrets = Some(model::guest::Hidden::new(format!("# VT_SECRETS_V1\nKEY=of-{number}\n")));
        (wish.scratch_bytes, wish.sleeps) = (u64::from(number) * (64 << 20), number == 5);
        let seen = start(&bench, wish).await;
        assert_eq!((seen.origin.from, seen.phase), (Start::Sleep, Phase::Running), "{seen:?}");
        let (said, _) = exec(&bench.engine, id, &["cat", "/run/slept"]).await;
        assert_eq!(said, "slept\n");
    }
}

/// A process in a machine's jail has the template's memory open for writing, because the monitor opens it so.
#[tokio::test]
async fn a_template_is_not_written_to_by_its_clones() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    start(&bench, owned(ground, "vm_first", 1, "prj_a")).await;
    made(&bench, 1).await;
    let clone = start(&bench, owned(ground, "vm_clone", 2, "prj_a")).await;
    assert_eq!(clone.origin.from, Start::Template);
    let folder = format!("/proc/{}/fd", clone.pid.unwrap());
    let descriptors = std::fs::read_dir(folder).unwrap().flatten();
    let memory: Vec<_> = descriptors
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("vt-template")))
        .collect();
    assert!(!memory.is_empty());
    for entry in memory {
        // As root, which is more than the process itself can do.
        let file = std::fs::OpenOptions::new().read(true).write(true).open(entry.path()).unwrap();
        let written = std::os::unix::fs::FileExt::write_at(&file, b"x", 0);
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        assert!(file.set_len(0).is_err());
        let length = file.metadata().unwrap().len() as usize;
        // SAFETY: a new mapping that nothing else uses; it is refused, as the test says.
        let mapped = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                &file,
                0,
            )
        };
        assert!(mapped.is_err(), "a clone could map it for writing");
    }
}

#[tokio::test]
async fn a_damaged_template_is_given_up_and_made_again() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    start(&bench, owned(ground, "vm_first", 1, "prj_a")).await;
    made(&bench, 1).await;
    bench.engine.destroy("vm_first").await.unwrap();
    let config = bench.config.clone();
    let _ward = bench.close().await;
    let folder = std::fs::read_dir(config.state_dir.join(".templates")).unwrap().flatten();
    let folder = folder.map(|entry| entry.path()).find(|path| path.join("saved.json").is_file()).unwrap();

    // The next program takes it from the disk.
    let engine = Service::open(config.clone()).await.unwrap();
    engine.ensure(owned(ground, "vm_second", 2, "prj_a")).await.unwrap();
    let seen = until(&engine, "vm_second", "ready", Seen::ready).await;
    assert_eq!(seen.origin.from, Start::Template);
    engine.destroy("vm_second").await.unwrap();
    engine.close().await;

    let file = std::fs::OpenOptions::new().read(true).write(true).open(folder.join("memory")).unwrap();
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 20 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[byte[0] ^ 1], 20 << 20).unwrap();
    let engine = Service::open(config.clone()).await.unwrap();
    engine.ensure(owned(ground, "vm_third", 3, "prj_a")).await.unwrap();
    let seen = until(&engine, "vm_third", "ready", Seen::ready).await;
    assert_eq!(seen.origin.from, Start::Boot, "{:?}", seen.origin);
    assert!(seen.origin.why.contains("one is being made"), "{:?}", seen.origin);
    engine.destroy("vm_third").await.unwrap();
    engine.close().await;
    // What was being made goes with its engine.
    let gone = async {
        while !pids(&config.instance_tag).is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("a machine is left");
}
