//! A process that writes, killed at any moment, many times on one folder.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chainfire::{Embedded, Options};
use store::conformance::history::numbers;
use store::{Revision, Store};

use crate::workload::{self, Done};

/// Tells the test binary that it is the child, and where to write.
const CHILD: &str = "CHAINFIRE_KILL_CHILD";
const ROUNDS: usize = 15;
const WRITERS: u64 = 8;
const LIFE_MS_MAX: u64 = 400;

/// The body of the child: writes and tells until it is killed. Started as a test of its own it has nothing to do.
#[test]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Embedded::open(dir, Options::default()).await.unwrap());
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writers.spawn(async move {
                let mut n = workload::resume(&*store, writer).await.unwrap();
                loop {
                    let done = workload::step(&*store, writer, n).await.unwrap();
                    tell(done);
                    n += 1;
                    if n.is_multiple_of(50) && writer == 0 {
                        let newest = store.status().await.unwrap().revision;
                        store.compact(Revision(newest.0 - 20)).await.unwrap();
                    }
                }
            });
        }
        writers.join_all().await;
    });
}

fn tell(done: Done) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\ndone {} {} {}", done.writer, done.n, done.revision).and_then(|()| out.flush()).unwrap();
}

/// A line cut short by the kill is no acknowledgement.
fn acknowledged(line: &str) -> Option<Done> {
    let mut words = line.strip_prefix("done ")?.split(' ').map(|word| word.parse().ok());
    Some(Done { writer: words.next()??, n: words.next()??, revision: Revision(words.next()??) })
}

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut all = Vec::new();
    for life in numbers(u64::from(std::process::id()), ROUNDS) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (first, started) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut done = Vec::new();
            for line in lines.map_while(Result::ok) {
                if let Some(step) = acknowledged(&line) {
                    let _ = first.send(());
                    done.push((line, step));
                }
            }
            // The very last line may be cut in the middle of a number.
            done.pop();
            done.into_iter().map(|(_, step)| step).collect::<Vec<_>>()
        });
        let _ = started.recv_timeout(Duration::from_secs(30));
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(life % LIFE_MS_MAX)).await });
        child.kill().unwrap();
        child.wait().unwrap();
        all.extend(reader.join().unwrap());
        runtime.block_on(async {
            // The lock of the dead is no lock.
            let store = Embedded::open(dir.path(), Options::default()).await.unwrap();
            if let Err(wrong) = workload::check(&store, WRITERS, &all).await {
                panic!("after a life of {} ms and {} acknowledged: {wrong}", life % LIFE_MS_MAX, all.len());
            }
            store.close().await.unwrap();
        });
    }
    assert!(all.len() > ROUNDS * 10, "only {} acknowledged", all.len());
}
