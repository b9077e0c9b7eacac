//! A process that writes, killed at any moment, many times on one schema, while another one watches.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use store::Revision;
use store::conformance::history::numbers;

use crate::server;
use crate::several::server_or_skip;
use crate::workload::{self, Done, Replay, open};

/// Tells the test binary that it is the child, and where to write.
const CHILD: &str = "PGSTORE_TEST_KILL_CHILD";
const ROUNDS: usize = 12;
const WRITERS: u64 = 6;
const LIFE_MS_MAX: u64 = 400;

/// The body of the child: writes and tells until it is killed. Started as a test of its own it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let store = open(&url).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            let mut n = workload::resume(&*store, writer).await.unwrap();
            loop {
                let Done { revision, .. } = workload::step(&*store, writer, n).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "\ndone {writer} {n} {revision} .").and_then(|()| out.flush()).unwrap();
                n += 1;
            }
        });
    }
    writers.join_all().await;
}

/// A line cut short by the kill is no acknowledgement.
fn acknowledged(line: &str) -> Option<Done> {
    let mut words = line.strip_prefix("done ")?.strip_suffix(" .")?.split(' ').map(|word| word.parse().ok());
    Some(Done { writer: words.next()??, n: words.next()??, revision: Revision(words.next()??) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let url = server_or_skip!().url(&server::schema());
    let store = open(&url).await;
    let mut replay = Replay::new(&*store).await;
    let mut all = Vec::new();
    for life in numbers(u64::from(std::process::id()), ROUNDS) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, &url)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (begun, started) = tokio::sync::oneshot::channel();
        let reader = tokio::task::spawn_blocking(move || {
            let mut begun = Some(begun);
            let mut done = Vec::new();
            for line in lines.map_while(Result::ok) {
                if let Some(step) = acknowledged(&line) {
                    begun.take().map(|begun| begun.send(()));
                    done.push(step);
                }
            }
            done
        });
        tokio::time::timeout(workload::WAIT_MAX, started).await.expect("the child begins").unwrap();
        tokio::time::sleep(Duration::from_millis(life % LIFE_MS_MAX)).await;
        child.kill().unwrap();
        tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        all.extend(reader.await.unwrap());
        // The dead one's last transaction ends, one way or the other, before this one's.
        let newest = workload::put(&*store, "round", &life.to_string()).await;
        replay.up_to(newest).await;
        workload::check(&*store, WRITERS, &all).await;
    }
    assert!(all.len() > ROUNDS * 5, "only {} acknowledged", all.len());
}
