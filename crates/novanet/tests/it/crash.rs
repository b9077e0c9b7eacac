//! `kill -9` in the middle of an apply, again and again.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use novanet::Desired;

use crate::lab::{Space, config, missing, network, open};

const FOLDER: &str = "NOVANET_CRASH_FOLDER";

/// The generations of a node on which networks come and go.
fn desired(generation: u64) -> Desired {
    let networks = (0..4_u16).map(|at| network(at + (generation % 7) as u16, &[2, 3])).collect();
    Desired { generation, networks }
}

/// The process that is killed: this test, started by the one below with a folder to work in. Says each generation that
/// was acknowledged.
#[test]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let handle = novanet::Service::open(config(folder.as_ref())).await.unwrap();
        let first = handle.opened().generation.unwrap_or(0) + 1;
        for generation in first..first + 1000 {
            handle.apply(desired(generation)).await.unwrap();
            println!("acknowledged {generation}");
        }
    });
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    if missing().is_some() {
        return;
    }
    let (space, folder) = (Space::new(), tempfile::tempdir().unwrap());
    let mut acknowledged = 0_u64;
    for round in 0..6_u32 {
        let path = folder.path().to_owned();
        // Started from the space's thread, it lives in the space.
        let mut child = space.run(move || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "crash::the_process_that_is_killed", "--nocapture"]).env(FOLDER, path);
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let said = lines
                .by_ref()
                .map_while(Result::ok)
                .find_map(|line| line.split_once("acknowledged ").map(|(_, number)| number.parse::<u64>().unwrap()));
            acknowledged = said.expect("the process got that far");
        }
        // Somewhere in the next apply, elsewhere each time.
        tokio::time::sleep(std::time::Duration::from_millis(u64::from(round) * 17)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some((_, number)) = line.split_once("acknowledged ") {
                acknowledged = number.parse().unwrap();
            }
        }

        let handle = open(&space, config(folder.path())).expect("it opens after a kill");
        let kept = handle.opened().generation.unwrap();
        assert!(kept == acknowledged || kept == acknowledged + 1, "kept {kept}, acknowledged {acknowledged}");
        assert!(handle.opened().warnings.is_empty(), "{:?}", handle.opened());
        let checks = handle.verify().await.unwrap();
        assert!(checks.iter().all(|check| check.ok), "{checks:#?}");
        let seen = handle.observe().await.unwrap();
        assert_eq!((seen.bridges.len(), seen.taps.len()), (4, 8), "no more and no less than the kept state");
        handle.close().await;
    }
}
