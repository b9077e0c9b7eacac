//! A machine's life: boot, work, end.

use std::time::Duration;

use futures::StreamExt;
use model::guest;
use plasmavmc::logs::Stream;
use plasmavmc::{EndCode, Engine, LogQuery, Phase};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Bench, Tap, cgroups, exec, ground, kill, pids, spec};

/// One request over a new connection; `None` when nobody answers.
async fn http(address: &str) -> Option<String> {
    let mut socket =
        tokio::time::timeout(Duration::from_secs(5), tokio::net::TcpStream::connect(address)).await.ok()?.ok()?;
    socket.write_all(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), socket.read_to_string(&mut answer)).await.ok()?.ok()?;
    Some(answer)
}

#[tokio::test]
async fn a_web_server_boots_answers_logs_runs_programs_and_ends_in_peace() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    let tap = Tap::new(7);
    let server = "echo to stdout; echo to stderr >&2; echo $GREETING; trap 'echo goodbye; exit 0' TERM; httpd -f -p 8080 -h /www & wait";
    let mut wish = spec(ground, "vm_web", 1, &["sh", "-c", server]);
    (wish.tap, wish.mac) = (Some(tap.name.clone()), "02:fc:00:00:07:02".to_owned());
    wish.guest.process.env = vec!["GREETING=from the environment".to_owned()];
    wish.guest.network = Some(guest::Network {
        mac: wish.mac.clone(),
        v4: Some(guest::V4 {
            address: format!("{}.2", tap.net).parse().unwrap(),
            prefix: 24,
            gateway: Some(format!("{}.1", tap.net).parse().unwrap()),
        }),
        v6: None,
        dns: Vec::new(),
        mtu: 1420,
    });
    wish.guest.health = serde_json::from_value(serde_json::json!({
        "type": "http", "port": 8080, "path": "/", "interval_seconds": 5, "timeout_seconds": 2,
        "grace_period_seconds": 60, "success_threshold": 1, "failure_threshold": 3,
    }))
    .unwrap();
    wish.guest.secrets = Some(guest::Hidden::new("# VT_SECRETS_V1\nTOKEN=canary-of-the-test\n"));
    bench.engine.ensure(wish.clone()).await.unwrap();
    let seen = bench.until("vm_web", "ready", plasmavmc::Seen::ready).await;
    assert_eq!(seen.why_not_ready(), None);
    let guest = seen.guest.unwrap();
    assert!(guest.connected && guest.configured && guest.state.pid.is_some());

    let answer = http(&format!("{}.2:8080", tap.net)).await.unwrap();
    assert!(answer.contains(" 200 OK") && answer.ends_with("hello from a microVM\n"), "{answer}");

    // The same wish again, and a newer one without a difference, leave it as it is.
    bench.engine.ensure(wish.clone()).await.unwrap();
    wish.generation = 2;
    bench.engine.ensure(wish.clone()).await.unwrap();
    let same = bench.engine.observe("vm_web").unwrap();
    assert_eq!((same.pid, same.boots, same.generation), (seen.pid, 1, 2));
    let mut stale = wish.clone();
    stale.generation = 1;
    assert_eq!(bench.engine.ensure(stale).await.unwrap_err().code(), "vm_generation_stale");

    let (output, exit) =
        exec(&bench.engine, "vm_web", &["sh", "-c", "cat /run/secrets/platform.env; touch /written; exit 7"]).await;
    assert!(output.contains("TOKEN=canary-of-the-test"), "{output}");
    assert_eq!(exit.code, Some(7));
    let refused = plasmavmc::ExecRequest { argv: vec!["/no/such".to_owned()], ..Default::default() };
    assert_eq!(bench.engine.exec("vm_web", refused).await.err().unwrap().code(), "exec_refused");

    // Secrets are in the guest and nowhere on the host's disk or the process's command line.
    for entry in std::fs::read_dir(bench.config.state_dir.join("vm_web")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{}", path.display());
    }
    let line = std::fs::read(format!("/proc/{}/cmdline", seen.pid.unwrap())).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains("canary"));

    let follower = bench.engine.logs("vm_web", LogQuery { follow: true, ..LogQuery::default() }).unwrap();
    bench.engine.stop("vm_web", 10).await.unwrap();
    let seen = bench.engine.observe("vm_web").unwrap();
    assert_eq!((seen.phase, seen.pid, seen.end.as_ref().unwrap().code), (Phase::Stopped, None, EndCode::Stopped));
    assert!(pids(&bench.config.instance_tag).is_empty());
    let lines: Vec<_> = follower.take(4).collect().await;
    assert_eq!(lines[0].seq, 1);
    let said = |stream, text: &str| lines.iter().any(|line| line.stream == stream && line.line == text);
    assert!(said(Stream::Stdout, "to stdout") && said(Stream::Stderr, "to stderr"), "{lines:?}");
    assert!(said(Stream::Stdout, "from the environment"), "{lines:?}");
    assert!(said(Stream::Stdout, "goodbye"), "TERM did not reach the workload: {lines:?}");
    assert!(http(&format!("{}.2:8080", tap.net)).await.is_none());

    // Started again, it has an empty writable layer, and its log goes on.
    bench.engine.ensure(wish).await.unwrap();
    bench.until("vm_web", "ready", plasmavmc::Seen::ready).await;
    let (_, exit) = exec(&bench.engine, "vm_web", &["ls", "/written"]).await;
    assert_ne!(exit.code, Some(0));
    let tail = bench.engine.logs("vm_web", LogQuery::default()).unwrap();
    let numbers: Vec<_> = tail.map(|line| line.seq).collect().await;
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(numbers.len() >= 7, "{numbers:?}");
}

#[tokio::test]
async fn a_killed_monitor_is_noticed_named_and_mended() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    let wish = spec(ground, "vm_killed", 1, &["sleep", "1000"]);
    bench.engine.ensure(wish.clone()).await.unwrap();
    let first = bench.engine.observe("vm_killed").unwrap();
    assert_eq!(pids(&bench.config.instance_tag), [first.pid.unwrap()]);
    kill(first.pid.unwrap());
    let seen = bench.until("vm_killed", "failed", |seen| seen.phase == Phase::Failed).await;
    let end = seen.end.unwrap();
    assert_eq!(end.code, EndCode::VmmKilled);
    assert!(end.detail.contains("signal 9"), "{}", end.detail);
    assert_eq!((seen.pid, seen.boots), (None, 1));
    bench.engine.ensure(wish).await.unwrap();
    let second = bench.engine.observe("vm_killed").unwrap();
    assert_eq!((second.phase, second.boots), (Phase::Running, 2));
    assert_ne!((first.pid, first.boot_id), (second.pid, second.boot_id));
    bench.engine.stop("vm_killed", 0).await.unwrap();
    let stopped = bench.engine.observe("vm_killed").unwrap();
    assert_eq!((stopped.phase, stopped.end.unwrap().code), (Phase::Stopped, EndCode::Stopped));
    assert!(pids(&bench.config.instance_tag).is_empty());
}

#[tokio::test]
async fn a_workload_that_fails_or_takes_too_much_memory_does_not_end_its_machine() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    bench.engine.ensure(spec(ground, "vm_crash", 1, &["sh", "-c", "exit 3"])).await.unwrap();
    // Reads a line without an end into memory until there is none left.
    bench
        .engine
        .ensure(spec(ground, "vm_greedy", 2, &["sh", "-c", "x=$(cat /dev/zero | busybox tr '\\0' a); echo $x"]))
        .await
        .unwrap();
    let over = |seen: &plasmavmc::Seen| {
        let guest = seen.guest.as_ref();
        guest.is_some_and(|guest| matches!(guest.state.phase, guest::Phase::Failed | guest::Phase::Completed))
    };
    let crashed = bench.until("vm_crash", "over", over).await;
    assert_eq!(crashed.phase, Phase::Running);
    assert_eq!(crashed.guest.as_ref().unwrap().state.last_exit.unwrap().code, Some(3));
    assert_eq!(crashed.why_not_ready().unwrap().0, "workload_crashed");
    let (output, _) = exec(&bench.engine, "vm_crash", &["echo", "still here"]).await;
    assert_eq!(output, "still here\n");
    assert!(!crashed.oom_killed);
    let greedy = bench.until("vm_greedy", "over", over).await;
    assert_eq!(greedy.phase, Phase::Running);
    assert!(greedy.oom_killed, "{greedy:?}");
    assert_eq!(greedy.why_not_ready().unwrap().0, "oom_killed");
}

#[tokio::test]
async fn a_machine_beyond_its_memory_is_killed_whole_and_the_reason_is_named() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    let wish = spec(ground, "vm_fat", 1, &["sleep", "1000"]);
    bench.engine.ensure(wish).await.unwrap();
    bench.until("vm_fat", "ready", plasmavmc::Seen::ready).await;
    // The guest alone cannot exceed the bound; so the bound is pulled down to where it stands, and the guest grows.
    let ours = format!("photon-{}", bench.config.instance_tag);
    let files = [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")];
    for folder in cgroups(&ours).into_iter().filter(|path| path.ends_with("vm_fat")) {
        for (limit, used) in files {
            if folder.join(limit).is_file() {
                let used: u64 = std::fs::read_to_string(folder.join(used)).unwrap().trim().parse().unwrap();
                std::fs::write(folder.join(limit), (used + (4 << 20)).to_string()).unwrap();
            }
        }
    }
    let fill = ["sh", "-c", "cat /dev/zero | busybox tr '\\0' a | head -c 60000000 > /run/filled; sleep 1000"];
    let argv = fill.iter().map(|&one| one.to_owned()).collect();
    let _session = bench.engine.exec("vm_fat", plasmavmc::ExecRequest { argv, ..Default::default() }).await.unwrap();
    let seen = bench.until("vm_fat", "killed", |seen| seen.phase == Phase::Failed).await;
    assert_eq!(seen.end.as_ref().unwrap().code, EndCode::OomKilled, "{seen:?}");
    assert!(seen.oom_killed);
    assert_eq!(seen.why_not_ready().unwrap().0, "oom_killed");
}

#[tokio::test]
async fn a_guest_that_powers_off_or_panics_is_told_apart() {
    let Some(ground) = ground().await else { return };
    let bench = Bench::open(ground).await;
    let off = ["sh", "-c", "sleep 1; poweroff -f"];
    bench.engine.ensure(spec(ground, "vm_off", 1, &off)).await.unwrap();
    bench.engine.ensure(spec(ground, "vm_panic", 2, &["sleep", "1000"])).await.unwrap();
    let off = bench.until("vm_off", "off", |seen| seen.phase == Phase::Failed).await;
    assert_eq!(off.end.unwrap().code, EndCode::GuestPoweredOff);
    bench.until("vm_panic", "ready", plasmavmc::Seen::ready).await;
    let argv = ["sh", "-c", "busybox mount -t proc proc /tmp; echo c > /tmp/sysrq-trigger"].map(str::to_owned).to_vec();
    let _session = bench.engine.exec("vm_panic", plasmavmc::ExecRequest { argv, ..Default::default() }).await;
    let panicked = bench.until("vm_panic", "panicked", |seen| seen.phase == Phase::Failed).await;
    let end = panicked.end.unwrap();
    assert_eq!(end.code, EndCode::GuestPanicked, "{end:?}");
    assert!(end.detail.contains("sysrq") || end.detail.contains("panic"), "{}", end.detail);
}

/// Whatever this host's answer is, it is a reasoned one, and it is not asked twice.
#[tokio::test]
async fn the_accelerator_is_chosen_by_a_real_boot() {
    let Some(ground) = ground().await else { return };
    let mut ward = Bench::closed(ground).await;
    ward.config.accelerator = None;
    let engine = plasmavmc::Service::open(ward.config.clone()).await.unwrap();
    assert_eq!(engine.facts().accelerator, "unknown");
    let facts = engine.prepare(&|step| println!("{step}")).await.unwrap();
    println!("{facts:#?}");
    assert!(facts.accelerator_why.contains(if facts.accelerator == "kvm" { "reached its PID 1" } else { "/dev/kvm" }));
    assert!(!facts.kernel_version.is_empty() && facts.engine_version.starts_with(|c: char| c.is_ascii_digit()));
    assert!(pids(&ward.config.instance_tag).is_empty(), "the probe is gone");
    drop(engine);
    let engine = plasmavmc::Service::open(ward.config.clone()).await.unwrap();
    let probes = std::sync::atomic::AtomicUsize::new(0);
    let count = |step| {
        if matches!(step, plasmavmc::kernel::Step::Probe { .. }) {
            probes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    assert_eq!(engine.prepare(&count).await.unwrap(), facts);
    assert_eq!(probes.into_inner(), 0, "the answer was kept");
}
