//! A process that writes, killed at any moment, many times on one schema, while another one watches.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use store::Revision;
use store::conformance::history::numbers;
use tokio::task::JoinHandle;

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
        let tell = |done: Done| {
            let mut out = std::io::stdout().lock();
            let Done { writer, n, revision } = done;
            writeln!(out, "\ndone {writer} {n} {revision} .").and_then(|()| out.flush()).unwrap();
        };
        writers.spawn(workload::write_through(store, writer, |_| false, tell));
    }
    writers.join_all().await;
}

/// A line cut short by the kill is no acknowledgement.
fn acknowledged(line: &str) -> Option<Done> {
    let mut words = line.strip_prefix("done ")?.strip_suffix(" .")?.split(' ').map(|word| word.parse().ok());
    Some(Done { writer: words.next()??, n: words.next()??, revision: Revision(words.next()??) })
}

/// A child that writes.
struct Writing {
    child: Child,
    reader: JoinHandle<Vec<Done>>,
}

impl Writing {
    /// Returns when the first transaction has been acknowledged.
    async fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, url)
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
        Self { child, reader }
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Answers what it acknowledged.
    async fn kill(mut self) -> Vec<Done> {
        self.child.kill().unwrap();
        tokio::task::spawn_blocking(move || self.child.wait()).await.unwrap().unwrap();
        self.reader.await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let url = server_or_skip!().url(&server::schema());
    let store = open(&url).await;
    let mut replay = Replay::new(&*store).await;
    let mut all = Vec::new();
    for life in numbers(u64::from(std::process::id()), ROUNDS) {
        let child = Writing::start(&url).await;
        tokio::time::sleep(Duration::from_millis(life % LIFE_MS_MAX)).await;
        let done = child.kill().await;
        // The dead one's last transaction ends, one way or the other, before this one's.
        let newest = workload::put(&*store, "round", &life.to_string()).await;
        replay.up_to(newest).await;
        workload::check(&*store, WRITERS, &done).await;
        all.extend(done);
    }
    workload::check(&*store, WRITERS, &all).await;
    assert!(all.len() > ROUNDS * 5, "only {} acknowledged", all.len());
}

/// Stopped, and so silent, while it has the right to write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stops_in_the_middle_loses_the_right_to_write() {
    let server = server_or_skip!();
    let schema = server::schema();
    let url = server.url(&schema);
    let store = open(&url).await;
    let mut replay = Replay::new(&*store).await;
    let child = Writing::start(&format!("{url}&application_name={schema}")).await;
    let admin = server.admin().await;
    let inside = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state = 'idle in transaction'";
    loop {
        child.signal(Signal::STOP);
        // What it had sent before is worked off first.
        tokio::time::sleep(Duration::from_millis(30)).await;
        if admin.query_one(inside, &[&schema]).await.unwrap().get::<_, i64>(0) > 0 {
            break;
        }
        child.signal(Signal::CONT);
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    // Waits for the lock, and gets it when the server ends the session of the one that is silent.
    let newest = workload::put(&*store, "meanwhile", "").await;
    replay.up_to(newest).await;
    child.signal(Signal::CONT);
    // And it goes on.
    let before = workload::resume(&*store, 0).await.unwrap();
    while workload::resume(&*store, 0).await.unwrap() <= before + 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let done = child.kill().await;
    let newest = workload::put(&*store, "after", "").await;
    replay.up_to(newest).await;
    workload::check(&*store, WRITERS, &done).await;
}
