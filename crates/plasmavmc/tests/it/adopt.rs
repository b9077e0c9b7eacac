//! Machines that outlive the engine's program.

use std::process::{Command, Stdio};

use futures::StreamExt;
use plasmavmc::{EndCode, Engine, LogQuery, Phase, Service};

use crate::support::{Bench, cgroups, exec, ground, kill, pids, spec, until};

/// Set in the copy of this test program that is to be killed.
const CHILD: &str = "VT_TEST_ADOPT_STATE";
const TAG: &str = "VT_TEST_ADOPT_TAG";

/// Runs as a program of its own: starts two machines and waits to be killed. Without the variables it does nothing.
#[tokio::test]
async fn the_program_that_will_be_killed() {
    let (Some(state), Ok(tag)) = (std::env::var_os(CHILD), std::env::var(TAG)) else { return };
    let ground = ground().await.unwrap();
    let mut config = Bench::config(ground, state.into());
    config.instance_tag = tag;
    let engine = Service::open(config).await.unwrap();
    let ticking = "n=0; while true; do n=$((n+1)); echo tick $n; sleep 1; done";
    let mut wish = spec(ground, "vm_lasting", 1, &["sh", "-c", ticking]);
    wish.guest.secrets = Some(model::guest::Hidden::new("# VT_SECRETS_V1\nKEY=kept\n"));
    engine.ensure(wish).await.unwrap();
    engine.ensure(spec(ground, "vm_dying", 2, &["sleep", "1000"])).await.unwrap();
    for id in ["vm_lasting", "vm_dying"] {
        until(&engine, id, "ready", plasmavmc::Seen::ready).await;
    }
    println!("both are ready");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn running_machines_are_taken_back_and_strays_removed() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::closed(ground).await;
    let program = std::env::current_exe().unwrap();
    let output = bench.folder().join("output");
    let mut first = Command::new(program)
        .args(["--exact", "adopt::the_program_that_will_be_killed", "--nocapture"])
        .env(CHILD, &bench.config.state_dir)
        .env(TAG, &bench.config.instance_tag)
        .stdout(std::fs::File::create(&output).unwrap())
        .spawn()
        .unwrap();
    let waiting = async {
        while !std::fs::read_to_string(&output).unwrap().contains("both are ready") {
            assert!(first.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(&output).unwrap());
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, waiting).await.unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    let before = pids(&bench.config.instance_tag);
    assert_eq!(before.len(), 2, "the machines died with their program");

    // One is killed while nobody watches, and a stray sits in a cgroup of ours.
    let dying = before
        .iter()
        .copied()
        .find(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("vm_dying"));
    kill(dying.unwrap());
    let ours = format!("photon-{}", bench.config.instance_tag);
    let mut stray = Command::new("sleep").arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for top in cgroups(&ours).iter().filter(|path| path.ends_with(&ours)) {
        std::fs::create_dir(top.join("vm_stray")).unwrap();
        std::fs::write(top.join("vm_stray/cgroup.procs"), stray.id().to_string()).unwrap();
    }
    let reaper = std::thread::spawn(move || stray.wait().unwrap());

    let engine = Service::open(bench.config.clone()).await.unwrap();
    assert!(!reaper.join().unwrap().success());
    assert!(!cgroups(&ours).iter().any(|path| path.ends_with("vm_stray") || path.ends_with("vm_dying")));
    assert_eq!(engine.list(), ["vm_dying", "vm_lasting"]);
    let dead = engine.observe("vm_dying").unwrap();
    assert_eq!((dead.phase, dead.end.unwrap().code), (Phase::Failed, EndCode::Vanished));
    let lasting = until(&engine, "vm_lasting", "ready again", plasmavmc::Seen::ready).await;
    assert!(before.contains(&lasting.pid.unwrap()));
    assert_eq!(lasting.boots, 1);

    // The log has no gap: what the guest printed while nobody listened came too.
    let lines = engine.logs("vm_lasting", LogQuery { follow: true, ..LogQuery::default() }).unwrap();
    let lines: Vec<_> = lines.take(8).map(|line| (line.seq, line.line)).collect().await;
    let wanted: Vec<_> = (1..=8).map(|n| (n, format!("tick {n}"))).collect();
    assert_eq!(lines, wanted);
    let (output, _) = exec(&engine, "vm_lasting", &["cat", "/run/secrets/platform.env"]).await;
    assert!(output.contains("KEY=kept"), "{output}");

    // The caller says its wish again: nothing happens. Then a second engine is refused, and the end is as ever.
    let ticking = "n=0; while true; do n=$((n+1)); echo tick $n; sleep 1; done";
    let mut wish = spec(ground, "vm_lasting", 1, &["sh", "-c", ticking]);
    wish.guest.secrets = Some(model::guest::Hidden::new("# VT_SECRETS_V1\nKEY=kept\n"));
    engine.ensure(wish.clone()).await.unwrap();
    assert_eq!(engine.observe("vm_lasting").unwrap().pid, lasting.pid);
    assert_eq!(Service::open(bench.config.clone()).await.unwrap_err().code(), "vm_state_taken");
    // Other secrets are another boot.
    wish.generation = 2;
    wish.guest.secrets = Some(model::guest::Hidden::new("# VT_SECRETS_V1\nKEY=changed\n"));
    engine.ensure(wish).await.unwrap();
    let changed = until(&engine, "vm_lasting", "ready with new secrets", plasmavmc::Seen::ready).await;
    assert_eq!((changed.boots, changed.generation), (2, 2));
    let (output, _) = exec(&engine, "vm_lasting", &["cat", "/run/secrets/platform.env"]).await;
    assert!(output.contains("KEY=changed"), "{output}");
    engine.stop("vm_lasting", 5).await.unwrap();
    assert!(pids(&bench.config.instance_tag).is_empty());
}

/// A process number is soon another's: what is found there must be the machine's own in every respect.
#[tokio::test]
async fn another_program_under_the_old_number_is_left_alone() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    bench.engine.ensure(spec(ground, "vm_gone", 1, &["sleep", "1000"])).await.unwrap();
    let pid = bench.engine.observe("vm_gone").unwrap().pid.unwrap();
    let path = bench.config.state_dir.join("vm_gone/machine.json");
    let kept = std::fs::read_to_string(&path).unwrap();
    bench.engine.stop("vm_gone", 0).await.unwrap();
    // An engine that is closed lets its machines run and its folder go.
    bench.engine.ensure(spec(ground, "vm_on", 2, &["sleep", "1000"])).await.unwrap();
    let on = bench.until("vm_on", "ready", plasmavmc::Seen::ready).await;
    let config = bench.config.clone();
    let _ward = bench.close().await;
    let engine = Service::open(config.clone()).await.unwrap();
    let again = until(&engine, "vm_on", "ready", plasmavmc::Seen::ready).await;
    assert_eq!((again.pid, again.boots, again.uptime_ms >= on.uptime_ms), (on.pid, 1, true));
    engine.destroy("vm_on").await.unwrap();
    engine.close().await;

    let stranger = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        Stranger(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    // One that started when the record says but is not marked, and one that is marked but did not start then.
    let unmarked = stranger("sleep", &["1000"]);
    let marked = stranger("sh", &["-c", "while sleep 1; do :; done", record_mark(&kept).as_str()]);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", unmarked.0.id())).unwrap();
    let ticks: u64 = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(record["run"]["pid"], pid);
    for (mut stranger, ticks) in [(unmarked, ticks), (marked, 1)] {
        record["run"]["pid"] = stranger.0.id().into();
        record["run"]["started_ticks"] = ticks.into();
        std::fs::write(&path, record.to_string()).unwrap();
        let engine = Service::open(config.clone()).await.unwrap();
        let seen = engine.observe("vm_gone").unwrap();
        assert_eq!((seen.phase, seen.end.unwrap().code), (Phase::Failed, EndCode::Vanished));
        assert!(stranger.0.try_wait().unwrap().is_none(), "a stranger was killed");
        engine.close().await;
    }
    record["run"]["host_boot_id"] = "another".into();
    std::fs::write(&path, record.to_string()).unwrap();
    let engine = Service::open(config).await.unwrap();
    assert_eq!(engine.observe("vm_gone").unwrap().end.unwrap().code, EndCode::HostRestarted);
}

/// A process that does not outlive its test.
struct Stranger(std::process::Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn record_mark(record: &str) -> String {
    let record: serde_json::Value = serde_json::from_str(record).unwrap();
    record["run"]["mark"].as_str().unwrap().to_owned()
}
