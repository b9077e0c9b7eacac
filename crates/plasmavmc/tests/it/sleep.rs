//! Machines that stand still, sleep, and go on.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use plasmavmc::{EndCode, Engine, ExecRequest, Phase, Service, Spec, Start};

use crate::support::{Bench, Ground, exec, ground, pids, spec, until};

/// Counts in memory and tells the count on request: what it says is in no file.
const COUNTER: &str = "n=0; while true; do n=$((n+1)); echo count $n; sleep 0.2; done";

fn sleeper(ground: &Ground, id: &str, number: u32, in_a_file: bool) -> Spec {
    Spec { sleeps: in_a_file, ..spec(ground, id, number, &["sh", "-c", COUNTER]) }
}

/// The last number that the workload counted to.
async fn counted(bench: &Bench, id: &str) -> u64 {
    let lines = bench.engine.logs(id, plasmavmc::LogQuery::default()).unwrap();
    let lines: Vec<_> = lines.collect().await;
    lines.iter().rev().find_map(|line| line.line.strip_prefix("count ")?.parse().ok()).unwrap_or(0)
}

async fn counts_on(bench: &Bench, id: &str, from: u64) -> u64 {
    for _ in 0..300 {
        let now = counted(bench, id).await;
        if now > from {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{id} does not count on from {from}: {:#?}", bench.engine.observe(id));
}

#[tokio::test]
async fn a_machine_sleeps_without_a_process_and_goes_on_where_it_was() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    // One whose memory is a file, and one whose memory is written out.
    for (number, in_a_file) in [(1, true), (2, false)] {
        let id = format!("vm_{number}");
        let wish = sleeper(ground, &id, number, in_a_file);
        bench.engine.ensure(wish.clone()).await.unwrap();
        let before = bench.until(&id, "ready", plasmavmc::Seen::ready).await;
        let (_, exit) = exec(&bench.engine, &id, &["sh", "-c", "echo kept > /kept"]).await;
        assert!(exit.success());
        let count = counts_on(&bench, &id, 3).await;

        bench.engine.sleep(&id).await.unwrap();
        let seen = bench.engine.observe(&id).unwrap();
        assert_eq!((seen.phase, seen.pid), (Phase::Sleeping, None), "{seen:?}");
        assert_eq!(seen.boot_id, before.boot_id);
        assert!(seen.asleep_since_ms.is_some());
        assert!(pids(&bench.config.instance_tag).is_empty());
        assert_eq!(bench.engine.exec(&id, ExecRequest::default()).await.err().unwrap().code(), "vm_not_running");
        // Again: no effect.
        bench.engine.sleep(&id).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;

        bench.engine.ensure(wish).await.unwrap();
        let after = bench.until(&id, "ready", plasmavmc::Seen::ready).await;
        assert_eq!((after.origin.from, after.origin.why.as_str()), (Start::Sleep, ""));
        assert_eq!((&after.boot_id, after.boots), (&before.boot_id, 1), "it is the same boot");
        let (kept, _) = exec(&bench.engine, &id, &["cat", "/kept"]).await;
        assert_eq!(kept, "kept\n", "its disk");
        let now = counts_on(&bench, &id, count).await;
        assert!(now < count + 100, "it counted to {count} and goes on with {now}");
        // Its clock goes by the host's.
        let (date, _) = exec(&bench.engine, &id, &["busybox", "date", "+%s"]).await;
        let host_s = (world::Clock::real().now_ms() / 1000).cast_signed();
        let guest_s: i64 = date.trim().parse().unwrap();
        assert!((guest_s - host_s).abs() <= 1, "the guest's clock says {guest_s}, the host's {host_s}");
        bench.engine.stop(&id, 0).await.unwrap();
        let left: Vec<_> = std::fs::read_dir(bench.config.state_dir.join(&id)).unwrap().flatten().collect();
        let left: Vec<_> = left.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
        for name in ["state", "memory", "saved.json", "scratch.ext4"] {
            assert!(!left.iter().any(|left| left == name), "{left:?}");
        }
    }
}

#[tokio::test]
async fn a_paused_machine_stands_still_and_goes_on() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    let wish = sleeper(ground, "vm_warm", 1, false);
    bench.engine.ensure(wish.clone()).await.unwrap();
    assert_eq!(bench.engine.pause("vm_none").await.unwrap_err().code(), "vm_unknown");
    bench.until("vm_warm", "ready", plasmavmc::Seen::ready).await;
    counts_on(&bench, "vm_warm", 1).await;
    bench.engine.pause("vm_warm").await.unwrap();
    assert_eq!(bench.engine.observe("vm_warm").unwrap().phase, Phase::Warm);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stood = counted(&bench, "vm_warm").await;
    assert_eq!(bench.engine.exec("vm_warm", ExecRequest::default()).await.err().unwrap().code(), "vm_paused");
    // Another program finds it as it was left.
    let config = bench.config.clone();
    let _ward = bench.close().await;
    let engine = Service::open(config).await.unwrap();
    assert_eq!(engine.observe("vm_warm").unwrap().phase, Phase::Warm);
    tokio::time::sleep(Duration::from_secs(1)).await;
    engine.ensure(wish.clone()).await.unwrap();
    let seen = until(&engine, "vm_warm", "ready", plasmavmc::Seen::ready).await;
    assert_eq!((seen.phase, seen.boots), (Phase::Running, 1));
    let (said, _) = exec(&engine, "vm_warm", &["echo", "on"]).await;
    assert_eq!(said, "on\n");
    assert!(stood > 0);
    engine.pause("vm_warm").await.unwrap();
    engine.resume("vm_warm").await.unwrap();
    engine.resume("vm_warm").await.unwrap();
    assert_eq!(engine.observe("vm_warm").unwrap().phase, Phase::Running);
    let (said, _) = exec(&engine, "vm_warm", &["echo", "on"]).await;
    assert_eq!(said, "on\n");
    // From standing still to sleep, and straight to its end.
    engine.pause("vm_warm").await.unwrap();
    engine.sleep("vm_warm").await.unwrap();
    assert_eq!(engine.observe("vm_warm").unwrap().phase, Phase::Sleeping);
    engine.stop("vm_warm", 5).await.unwrap();
    assert_eq!(engine.observe("vm_warm").unwrap().phase, Phase::Stopped);
    engine.ensure(wish).await.unwrap();
    let seen = until(&engine, "vm_warm", "ready", plasmavmc::Seen::ready).await;
    assert_eq!((seen.origin.from, seen.boots), (Start::Boot, 2), "what was stopped has nothing to wake with");
    engine.pause("vm_warm").await.unwrap();
    engine.stop("vm_warm", 60).await.unwrap();
    assert_eq!(engine.observe("vm_warm").unwrap().end.unwrap().code, EndCode::Stopped);
}

/// One damage for each sleep; the machine boots, and says why.
#[tokio::test]
async fn what_is_not_as_it_was_saved_is_refused_and_the_machine_boots() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    let wish = sleeper(ground, "vm_hurt", 1, true);
    let folder = bench.config.state_dir.join("vm_hurt");
    let flip = |name: &str, at: u64| {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(folder.join(name)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    };
    let cut = |name: &str, bytes: u64| {
        std::fs::OpenOptions::new().write(true).open(folder.join(name)).unwrap().set_len(bytes).unwrap();
    };
    let edit = |from: &str, to: &str| {
        let path = folder.join("saved.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is not in {}", &text[..400]);
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    let gone = |name: &str| std::fs::remove_file(folder.join(name)).unwrap();
    type Damage<'a> = &'a dyn Fn();
    let damages: [(Damage, &str); 7] = [
        (&|| flip("state", 1000), "its state is damaged"),
        (&|| cut("state", 5000), "its state has 5000 bytes"),
        (&|| flip("memory", 17 << 20), "its memory is damaged at 17 MiB"),
        (&|| cut("memory", 100 << 20), "its memory has 104857600 bytes"),
        (&|| gone("saved.json"), "what was saved of it is gone"),
        (&|| edit("\"monitor\":\"", "\"monitor\":\"6.0 "), "saved by QEMU 6.0"),
        (&|| gone("scratch.ext4"), "its disk cannot be opened"),
    ];
    bench.engine.ensure(wish.clone()).await.unwrap();
    let mut boots = 1;
    for (damage, word) in damages {
        bench.until("vm_hurt", "ready", plasmavmc::Seen::ready).await;
        bench.engine.sleep("vm_hurt").await.unwrap();
        damage();
        bench.engine.ensure(wish.clone()).await.unwrap();
        boots += 1;
        let seen = bench.until("vm_hurt", "ready", plasmavmc::Seen::ready).await;
        assert_eq!((seen.origin.from, seen.boots), (Start::Boot, boots), "{word}: {seen:?}");
        assert!(seen.origin.why.contains(word), "{} is not {word}", seen.origin.why);
        let (said, _) = exec(&bench.engine, "vm_hurt", &["echo", "on"]).await;
        assert_eq!(said, "on\n");
    }
    // Another wish is no damage, and boots as well.
    bench.engine.sleep("vm_hurt").await.unwrap();
    let mut other = wish.clone();
    (other.generation, other.guest.hostname) = (2, "other".to_owned());
    bench.engine.ensure(other).await.unwrap();
    let seen = bench.until("vm_hurt", "ready", plasmavmc::Seen::ready).await;
    assert!(seen.origin.why.contains("its specification changed"), "{:?}", seen.origin);
}

/// A disk that is full while a machine is saved: it goes on running, and sleeps when there is room.
#[tokio::test]
async fn a_machine_that_cannot_be_saved_goes_on_running() {
    let Some(ground) = ground().await else { return };
    let mut ward = Bench::closed(ground).await;
    let Some(_mounted) = Small::mount(&ward.config.state_dir) else {
        return println!("skipped: no tmpfs can be mounted");
    };
    ward.config.vms_max = 2;
    let engine = Service::open(ward.config.clone()).await.unwrap();
    // Its memory does not fit on this disk: neither as a file from the start, nor written out.
    let wish = Spec { scratch_bytes: 0, ..sleeper(ground, "vm_tight", 1, true) };
    engine.ensure(wish).await.unwrap();
    until(&engine, "vm_tight", "ready", plasmavmc::Seen::ready).await;
    let error = engine.sleep("vm_tight").await.unwrap_err();
    assert_eq!(error.code(), "vm_sleep_failed", "{error}");
    let seen = engine.observe("vm_tight").unwrap();
    assert_eq!((seen.phase, seen.boots), (Phase::Running, 1));
    let (said, _) = exec(&engine, "vm_tight", &["echo", "still here"]).await;
    assert_eq!(said, "still here\n");
    assert!(!ward.config.state_dir.join("vm_tight/saved.json").exists());
    engine.destroy("vm_tight").await.unwrap();
    engine.close().await;
}

/// A small file system over a folder.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let size = Some(c"size=24m");
        rustix::mount::mount("tmpfs", folder, "tmpfs", rustix::mount::MountFlags::empty(), size).ok()?;
        Some(Self(folder.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// One command to a machine's monitor, as another program would give it.
fn monitor(folder: &Path, command: &str) {
    use std::io::{BufRead, BufReader, Write};
    let handle = std::fs::File::open(folder).unwrap();
    let path = format!("/proc/self/fd/{}/monitor.sock", std::os::fd::AsRawFd::as_raw_fd(&handle));
    let socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    for (number, command) in ["qmp_capabilities", command].iter().enumerate() {
        writeln!(&socket, "{{\"execute\":\"{command}\",\"id\":{number}}}").unwrap();
        let answer = format!("\"id\": {number}");
        assert!(lines.by_ref().map(Result::unwrap).any(|line| line.contains(&answer)), "{command}");
    }
}

/// What the next program finds when this one ends in the middle of an act.
#[tokio::test]
async fn a_program_that_ends_in_the_middle_leaves_a_machine_that_runs_or_one_that_sleeps() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    let wish = sleeper(ground, "vm_cut", 1, true);
    bench.engine.ensure(wish.clone()).await.unwrap();
    bench.until("vm_cut", "ready", plasmavmc::Seen::ready).await;
    let folder = bench.config.state_dir.join("vm_cut");
    let config = bench.config.clone();
    let _ward = bench.close().await;

    // Halted to be saved, and some of the state written: it goes on.
    let of = folder.clone();
    tokio::task::spawn_blocking(move || monitor(&of, "stop")).await.unwrap();
    std::fs::write(folder.join("state"), "half").unwrap();
    let engine = Service::open(config.clone()).await.unwrap();
    let seen = until(&engine, "vm_cut", "ready", plasmavmc::Seen::ready).await;
    assert_eq!((seen.phase, seen.boots), (Phase::Running, 1));
    let (said, _) = exec(&engine, "vm_cut", &["echo", "on"]).await;
    assert_eq!(said, "on\n");
    assert!(!folder.join("state").exists());

    // Recorded as asleep, and its process not ended yet: it sleeps.
    engine.sleep("vm_cut").await.unwrap();
    let asleep = std::fs::read_to_string(folder.join("machine.json")).unwrap();
    engine.ensure(wish.clone()).await.unwrap();
    until(&engine, "vm_cut", "ready", plasmavmc::Seen::ready).await;
    engine.close().await;
    let record = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let mut both = record(&std::fs::read_to_string(folder.join("machine.json")).unwrap());
    both["asleep"] = record(&asleep)["asleep"].clone();
    std::fs::write(folder.join("machine.json"), both.to_string()).unwrap();
    let engine = Service::open(config.clone()).await.unwrap();
    assert_eq!(engine.observe("vm_cut").unwrap().phase, Phase::Sleeping);
    assert!(pids(&config.instance_tag).is_empty(), "it sleeps and runs");
    // What it would have gone on from was used up: it boots and says so.
    engine.ensure(wish.clone()).await.unwrap();
    let seen = until(&engine, "vm_cut", "ready", plasmavmc::Seen::ready).await;
    assert!(seen.origin.why.contains("what was saved of it is gone"), "{:?}", seen.origin);

    // Its process is killed while it stands still: it ended, like any other.
    engine.pause("vm_cut").await.unwrap();
    crate::support::kill(engine.observe("vm_cut").unwrap().pid.unwrap());
    let seen = until(&engine, "vm_cut", "failed", |seen| seen.phase == Phase::Failed).await;
    assert_eq!(seen.end.unwrap().code, EndCode::VmmKilled);
    assert_eq!(engine.sleep("vm_cut").await.unwrap_err().code(), "vm_not_running");
    engine.destroy("vm_cut").await.unwrap();
    engine.close().await;
}

/// Set in the copy of this test program that is to be killed.
const CHILD: &str = "VT_TEST_SLEEP_STATE";
const TAG: &str = "VT_TEST_SLEEP_TAG";
const ROUNDS: u64 = 8;
/// A round's program is killed within this time after it began, in milliseconds: a sleep and a wake take less.
const LIFE_MS: u64 = 2_500;

fn restless(ground: &Ground) -> Spec {
    let counting = "n=0; while true; do n=$((n+1)); echo $n > /run/count; sleep 0.05; done";
    Spec { sleeps: true, ..spec(ground, "vm_restless", 1, &["sh", "-c", counting]) }
}

/// Runs as a program of its own: puts a machine to sleep, wakes it, halts it, lets it go, until it is killed. Without the
/// variables it does nothing.
#[tokio::test]
async fn the_program_that_never_lets_a_machine_rest() {
    let (Some(state), Ok(tag)) = (std::env::var_os(CHILD), std::env::var(TAG)) else { return };
    let ground = ground().await.unwrap();
    let mut config = Bench::config(ground, state.into());
    config.instance_tag = tag;
    let engine = Service::open(config).await.unwrap();
    engine.ensure(restless(ground)).await.unwrap();
    until(&engine, "vm_restless", "ready", plasmavmc::Seen::ready).await;
    println!("it begins");
    loop {
        engine.sleep("vm_restless").await.unwrap();
        engine.ensure(restless(ground)).await.unwrap();
        until(&engine, "vm_restless", "ready", plasmavmc::Seen::ready).await;
        engine.pause("vm_restless").await.unwrap();
        engine.resume("vm_restless").await.unwrap();
        until(&engine, "vm_restless", "ready", plasmavmc::Seen::ready).await;
    }
}

/// The program is killed at times drawn from a seed, `VT_SLEEP_SEED` for another; the machine never loses its memory.
#[tokio::test]
async fn whenever_the_program_is_killed_the_machine_goes_on_where_it_was() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::closed(ground).await;
    let mut seed: u64 = std::env::var("VT_SLEEP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut counted = 0;
    for round in 0..ROUNDS {
        let output = bench.folder().join("output");
        let mut program = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sleep::the_program_that_never_lets_a_machine_rest", "--nocapture"])
            .env(CHILD, &bench.config.state_dir)
            .env(TAG, &bench.config.instance_tag)
            .stdout(std::fs::File::create(&output).unwrap())
            .spawn()
            .unwrap();
        let begun = async {
            while !std::fs::read_to_string(&output).unwrap().contains("it begins") {
                assert!(program.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(&output).unwrap());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::support::PATIENCE, begun).await.unwrap();
        // Source: Steele and others, "Fast splittable pseudorandom number generators", 2014 (splitmix64).
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let life_ms = (mixed ^ (mixed >> 27)) % LIFE_MS;
        tokio::time::sleep(Duration::from_millis(life_ms)).await;
        program.kill().unwrap();
        program.wait().unwrap();

        let engine = Service::open(bench.config.clone()).await.unwrap();
        let found = engine.observe("vm_restless").unwrap();
        let alive = matches!(found.phase, Phase::Running | Phase::Warm | Phase::Sleeping);
        assert!(alive, "round {round}, killed after {life_ms} ms: {found:#?}");
        engine.ensure(restless(ground)).await.unwrap();
        let seen = until(&engine, "vm_restless", "ready", plasmavmc::Seen::ready).await;
        assert_eq!(seen.boots, 1, "round {round}, killed after {life_ms} ms: {:?}", seen.origin);
        let (count, _) = exec(&engine, "vm_restless", &["cat", "/run/count"]).await;
        let count: u64 = count.trim().parse().unwrap_or(counted);
        assert!(
            count >= counted,
            "round {round}, killed after {life_ms} ms: it counted to {counted}, and says {count}"
        );
        counted = count;
        engine.close().await;
    }
    assert!(counted > 0);
}
