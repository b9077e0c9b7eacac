//! Sessions that end, servers that stop, in the middle of everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use store::{Error, Op, Range, Store, Txn, WatchRequest};
use tokio::task::JoinSet;

use crate::server::{self, Server};
use crate::several::server_or_skip;
use crate::workload::{self, Done, Replay, get, next, open, put};

const WRITERS: u64 = 6;

/// Ends all sessions of an application.
const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";

/// Writers on both stores.
struct Writing {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: JoinSet<Vec<Done>>,
}

impl Writing {
    fn start(stores: &[Arc<pgstore::Postgres>; 2]) -> Self {
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (store, stop, acknowledged) = (stores[writer as usize % 2].clone(), stop.clone(), acknowledged.clone());
            let enough = move |_| stop.load(Ordering::Relaxed);
            let tell = move |_| {
                acknowledged.fetch_add(1, Ordering::Relaxed);
            };
            writers.spawn(workload::write_through(store, writer, enough, tell));
        }
        Self { stop, acknowledged, writers }
    }

    /// Until so many more have been acknowledged.
    async fn progress(&self, more: u64) {
        let enough = self.acknowledged.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.acknowledged.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(workload::WAIT_MAX, reached).await.expect("writers go on");
    }

    async fn stop(self) -> Vec<Done> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.join_all().await.into_iter().flatten().collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_ended_lose_nothing_that_was_acknowledged() {
    const ROUNDS: u64 = 25;
    let server = server_or_skip!();
    let schema = server::schema();
    let url = format!("{}&application_name={schema}", server.url(&schema));
    let stores = [open(&url).await, open(&url).await];
    let mut replays = [Replay::new(&*stores[0]).await, Replay::new(&*stores[1]).await];
    let writing = Writing::start(&stores);
    let admin = server.admin().await;
    let mut ended = 0;
    for round in 0..ROUNDS {
        writing.progress(1 + round).await;
        ended += admin.query_one(END, &[&schema]).await.unwrap().get::<_, i64>(0);
    }
    let done = writing.stop().await;
    assert!(ended > ROUNDS as i64, "{ended} sessions were ended");
    let newest = stores[0].status().await.unwrap().revision;
    for replay in &mut replays {
        replay.up_to(newest).await;
    }
    workload::check(&*stores[1], WRITERS, &done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_does_not_notice_that_its_session_was_ended() {
    const ROUNDS: u64 = 30;
    let server = server_or_skip!();
    let schema = server::schema();
    let store = open(&format!("{}&application_name={schema}", server.url(&schema))).await;
    put(&*store, "k", "v").await;
    let admin = server.admin().await;
    for _ in 0..ROUNDS {
        // So that there is one to lose.
        get(&*store, "k").await;
        admin.query(END, &[&schema]).await.unwrap();
        assert_eq!(get(&*store, "k").await, Some("v".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_again_finds_writers_and_watchers_waiting() {
    // Its own default is to answer before the log is on the disk, which a crash then lacks.
    let server = match Server::start("synchronous_commit = off\nwal_writer_delay = 10s") {
        Ok(server) => Arc::new(server),
        Err(reason) => return println!("skipped: {reason}"),
    };
    let url = server.url("cloud");
    let stores = [open(&url).await, open(&url).await];
    let mut replays = [Replay::new(&*stores[0]).await, Replay::new(&*stores[1]).await];
    let mut quiet = stores[0].watch(WatchRequest::key("quiet")).await.unwrap();
    let writing = Writing::start(&stores);
    for crash in [false, true, false, true] {
        writing.progress(50).await;
        let acting = server.clone();
        tokio::task::spawn_blocking(move || if crash { acting.crash() } else { acting.stop() }).await.unwrap();
        assert!(matches!(stores[0].range(Range::key("a")).await, Err(Error::NoLeader)));
        assert!(matches!(stores[0].txn(Txn::of([Op::put("never", "")])).await, Err(Error::NoLeader)));
        assert!(matches!(stores[1].lease_grant(60, None).await, Err(Error::NoLeader)));
        assert!(matches!(stores[1].watch(WatchRequest::key("a")).await, Err(Error::NoLeader)));
        let acting = server.clone();
        tokio::task::spawn_blocking(move || acting.run()).await.unwrap();
    }
    // It came back for good: so do the writers.
    writing.progress(50).await;
    let done = writing.stop().await;
    let newest = put(&*stores[0], "quiet", "").await;
    for replay in &mut replays {
        replay.up_to(newest).await;
    }
    assert_eq!(next(&mut quiet).await.unwrap().unwrap().revision, newest);
    workload::check(&*stores[1], WRITERS, &done).await;
    assert_eq!(get(&*stores[1], "never").await, None, "what was refused was not done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_at_the_lock_delays_and_harms_nothing() {
    let server = server_or_skip!();
    let schema = server::schema();
    let store = open(&server.url(&schema)).await;
    put(&*store, "k", "1").await;
    let stranger = server.admin().await;
    stranger.batch_execute(&format!("BEGIN; SELECT FROM {schema}.head FOR UPDATE")).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.txn(Txn::of([Op::put("k", "2")])).await }
    });
    assert_eq!(get(&*store, "k").await, Some("1".into()), "reads do not wait");
    // The server gives up before the store does.
    assert!(matches!(waiting.await.unwrap(), Err(Error::NoLeader)));
    stranger.batch_execute("ROLLBACK").await.unwrap();
    put(&*store, "k", "3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_may_wait_are_refused_and_not_done() {
    let server = server_or_skip!();
    let schema = server::schema();
    let store = open(&server.url(&schema)).await;
    let stranger = server.admin().await;
    stranger.batch_execute(&format!("BEGIN; SELECT FROM {schema}.head FOR UPDATE")).await.unwrap();
    let mut puts = JoinSet::new();
    for n in 0..5000 {
        let store = store.clone();
        puts.spawn(async move { store.txn(Txn::of([Op::put(format!("k/{n:04}"), "")])).await });
    }
    let refused = loop {
        match puts.join_next().await.unwrap().unwrap() {
            Err(Error::Overloaded) => break 1,
            other => assert!(other.is_ok(), "{other:?}"),
        }
    };
    stranger.batch_execute("ROLLBACK").await.unwrap();
    let (mut done, mut refused) = (0, refused);
    for outcome in puts.join_all().await {
        match outcome {
            Ok(_) => done += 1,
            Err(Error::Overloaded) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(done + refused, 5000);
    assert_eq!(store.range(Range::prefix("k/").count_only()).await.unwrap().count, done);
    let newest = store.status().await.unwrap().revision;
    assert_eq!(newest.0, 1 + done, "each has a revision of its own");
}

/// The rest is as it was: a transaction that the database cannot do harms none of those it would share a commit with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_that_the_database_refuses_fails_alone() {
    let server = server_or_skip!();
    let schema = server::schema();
    let store = open(&server.url(&schema)).await;
    let admin = server.admin().await;
    admin.batch_execute(&format!("ALTER TABLE {schema}.revisions ADD CHECK (key <> 'poison')")).await.unwrap();
    let stranger = server.admin().await;
    stranger.batch_execute(&format!("BEGIN; SELECT FROM {schema}.head FOR UPDATE")).await.unwrap();
    let mut puts = JoinSet::new();
    for n in 0..20 {
        let key = if n == 7 { "poison".to_owned() } else { format!("k/{n}") };
        let store = store.clone();
        puts.spawn(async move { (n, store.txn(Txn::of([Op::put(key, "")])).await) });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    stranger.batch_execute("ROLLBACK").await.unwrap();
    for (n, outcome) in puts.join_all().await {
        match outcome {
            Ok(_) => assert_ne!(n, 7),
            Err(error) => assert!(n == 7 && matches!(error, Error::Storage { .. }), "{n}: {error}"),
        }
    }
    assert_eq!(store.status().await.unwrap().revision.0, 20);
}
