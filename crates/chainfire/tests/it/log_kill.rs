//! A process that appends and votes, killed at any moment, many times on one folder.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use chainfire::log::{Log, Options};
use openraft::storage::{RaftLogReader, RaftLogStorage};
use store::conformance::history::numbers;

use crate::log_support::{Entry, append, contents, id, put, vote};

/// Tells the test binary that it is the child, and where to write.
const CHILD: &str = "CHAINFIRE_LOG_KILL_CHILD";
const ROUNDS: usize = 15;
const LIFE_MS_MAX: u64 = 300;

fn options() -> Options {
    Options { segment_bytes: 64 * 1024, tail_bytes: 10_000, ..Options::default() }
}

fn entry(term: u64, index: u64) -> Entry {
    put(term, index, vec![index as u8; (index * 37 % 2000) as usize])
}

/// The body of the child: appends and tells until it is killed. Started as a test of its own it has nothing to do.
#[tokio::test]
async fn child_that_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let mut log = Log::open(dir.as_ref(), options()).unwrap();
    let term = log.read_vote().await.unwrap().map_or(0, |vote| vote.leader_id.term) + 1;
    log.save_vote(&vote(term)).await.unwrap();
    tell(&format!("vote {term}"));
    loop {
        let mut waiting = Vec::new();
        for _ in 0..4 {
            let next = log.facts().next;
            waiting.push((next, append(&log, vec![entry(1, next), entry(1, next + 1)]).await.unwrap()));
        }
        for (next, flushed) in waiting {
            flushed.await.unwrap().unwrap();
            tell(&format!("append {}", next + 1));
        }
        let next = log.facts().next;
        if next.is_multiple_of(56) {
            log.save_committed(Some(id(1, next - 10))).await.unwrap();
            log.purge(id(1, next.saturating_sub(150))).await.unwrap();
        }
    }
}

fn tell(done: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{done} ok").and_then(|()| out.flush()).unwrap();
}

/// A line cut short by the kill is no acknowledgement.
fn told(line: &str, what: &str) -> Option<u64> {
    line.strip_suffix(" ok")?.strip_prefix(what)?.trim().parse().ok()
}

#[test]
fn nothing_durable_is_lost_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut appended, mut term) = (0, 0);
    for life in numbers(u64::from(std::process::id()), ROUNDS) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log_kill::child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (first, started) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let (mut appended, mut term) = (None, None);
            for line in lines.map_while(Result::ok) {
                term = term.max(told(&line, "vote"));
                appended = appended.max(told(&line, "append"));
                if appended.is_some() {
                    let _ = first.send(());
                }
            }
            (appended, term)
        });
        let _ = started.recv_timeout(Duration::from_secs(30));
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(life % LIFE_MS_MAX)).await });
        child.kill().unwrap();
        child.wait().unwrap();
        let (more, voted) = reader.join().unwrap();
        appended = appended.max(more.unwrap_or(0));
        term = term.max(voted.unwrap_or(0));
        runtime.block_on(async {
            // The lock of the dead is no lock.
            let log = Log::open(dir.path(), options()).unwrap();
            let found = contents(&log).await.unwrap();
            assert!(found.vote.unwrap().leader_id.term >= term, "{:?} of {term}", found.vote);
            let last = found.last.unwrap().index;
            assert!(last >= appended, "{last} of {appended}");
            let first = found.purged.map_or(0, |id| id.index + 1);
            assert!(found.entries.iter().eq((first..=last).map(|index| entry(1, index)).collect::<Vec<_>>().iter()));
            log.close().await.unwrap();
        });
    }
    assert!(appended > 200 && term >= ROUNDS as u64 / 2, "{appended} appended in {term} terms");
}
