//! Members that die, come back, and lose sight of each other: nothing that was acknowledged is lost, and the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use store::{Error, LeaseId, Op, Range, Store, Txn, WatchRequest};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::member_cluster::{Cluster, get, put, put_soon, until};

/// Writes through one member until it is told to stop, and says which keys were acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: JoinHandle<Vec<String>>,
}

impl Writer {
    fn start(name: &'static str, store: Arc<dyn Store>) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, counting) = (stop.clone(), acknowledged.clone());
        let task = tokio::spawn(async move {
            let mut keys = Vec::new();
            for n in 0.. {
                if stopping.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{name}/{n}");
                match put(&*store, &key, "kept").await {
                    Ok(_) => {
                        keys.push(key);
                        counting.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(Error::Closed) => break,
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
            keys
        });
        Self { stop, acknowledged, task }
    }

    /// Until so many more puts were acknowledged.
    async fn go_on(&self, puts: u64) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + puts;
        let reached = async || (self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(());
        until("writing goes on", reached).await;
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the writer ends")
    }
}

async fn all_there(store: &dyn Store, keys: &[String]) {
    for key in keys {
        assert_eq!(get(store, key).await.as_deref(), Some("kept"), "{key} was acknowledged and is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_takes_nothing_with_it() {
    let mut cluster = Cluster::on_disk(3).await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    let through_leader = Writer::start("leader", cluster.store(leader));
    let through_follower = Writer::start("follower", cluster.store(others[0]));
    through_leader.go_on(50).await;
    cluster.kill(leader);
    through_follower.go_on(50).await;
    cluster.restart(leader).await;
    through_follower.go_on(50).await;
    let mut keys = through_leader.end().await;
    keys.extend(through_follower.end().await);
    for n in 0..3 {
        all_there(&*cluster.store(n), &keys).await;
    }
    assert!(cluster.agree().await >= keys.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_dies_as_a_whole_comes_back_as_it_was() {
    let mut cluster = Cluster::on_disk(3).await;
    let writer = Writer::start("all", cluster.store(0));
    writer.go_on(100).await;
    let keys = writer.end().await;
    for n in 0..3 {
        cluster.kill(n);
    }
    for n in 0..3 {
        cluster.restart(n).await;
    }
    all_there(&*cluster.store(2), &keys).await;
    put_soon(&*cluster.store(1), "more", "1").await;
    assert_eq!(cluster.agree().await, keys.len() as u64 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_serves_nobody_and_the_others_go_on() {
    let cluster = Cluster::on_disk(3).await;
    let old = cluster.leader().await;
    let other = (old + 1) % 3;
    put_soon(&*cluster.store(old), "key", "before").await;
    let mut watcher = cluster.store(old).watch(WatchRequest::prefix("")).await.unwrap();
    cluster.isolate(old);
    // It may not know at once, but what it cannot know it does not answer.
    let read = cluster.store(old).range(Range::key("key")).await;
    assert!(matches!(read, Err(Error::NoLeader | Error::TimedOut)), "{read:?}");
    let written = put(&*cluster.store(old), "lost", "1").await;
    assert!(matches!(written, Err(Error::NoLeader | Error::TimedOut)), "{written:?}");
    put_soon(&*cluster.store(other), "key", "after").await;
    let stale = cluster.store(old).range(Range::key("key").serializable()).await.unwrap();
    assert_eq!(stale.first().unwrap().value, "before", "what it has, it still tells whoever asks for that");
    let refused = put(&*cluster.store(old), "lost", "2").await;
    assert!(matches!(refused, Err(Error::NoLeader)), "by now it knows: {refused:?}");
    cluster.rejoin(old);
    assert_eq!(get(&*cluster.store(old), "key").await.as_deref(), Some("after"));
    let batch = watcher.next().await.unwrap().unwrap();
    assert_eq!(batch.events[0].kv.value, "after", "the watch has missed nothing and has seen nothing that was lost");
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_and_goes_disturbs_nobody() {
    let cluster = Cluster::in_memory(3).await;
    let leader = cluster.leader().await;
    let flapping = (leader + 1) % 3;
    let term = cluster.term(leader).await;
    let writer = Writer::start("steady", cluster.store(leader));
    for _ in 0..3 {
        cluster.isolate(flapping);
        // Long enough to want an election more than once.
        sleep(Duration::from_secs(4)).await;
        cluster.rejoin(flapping);
        writer.go_on(20).await;
    }
    put_soon(&*cluster.store(flapping), "through", "the one that flapped").await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.term(leader).await, term, "nobody had to be elected");
    let keys = writer.end().await;
    all_there(&*cluster.store(flapping), &keys).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_more_than_the_log_has_gets_a_snapshot() {
    let mut cluster = Cluster::with_snapshots(3, 20).await;
    let late = cluster.follower().await;
    let writer = Writer::start("early", cluster.store((late + 1) % 3));
    writer.go_on(50).await;
    cluster.stop(late).await;
    writer.go_on(400).await;
    cluster.restart(late).await;
    // Writing goes on while the snapshot is on its way.
    writer.go_on(100).await;
    let keys = writer.end().await;
    all_there(&*cluster.store(late), &keys).await;
    cluster.agree().await;
    // What came by snapshot is as durable as all else.
    cluster.kill(late);
    cluster.restart(late).await;
    all_there(&*cluster.store(late), &keys).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_never_ends_early_whoever_leads() {
    const TTL: Duration = Duration::from_secs(4);
    let mut cluster = Cluster::on_disk(3).await;
    let leader = cluster.leader().await;
    let store = cluster.store((leader + 1) % 3);
    let lease = store.lease_grant(TTL.as_secs(), Some(LeaseId(7))).await.unwrap();
    store.txn(Txn::of([Op::put_leased("held", "", lease.id)])).await.unwrap();
    let mut watcher = store.watch(WatchRequest::key("held")).await.unwrap();
    sleep(TTL / 2).await;
    let alive = Instant::now();
    store.lease_keep_alive(lease.id).await.unwrap();
    sleep(TTL / 2).await;
    cluster.kill(leader);
    // The new leader answers for the lease, too.
    let kept = until("the lease is kept alive", async || match store.lease_keep_alive(lease.id).await {
        Ok(lease) => Some((Instant::now(), lease)),
        Err(Error::LeaseNotFound { .. }) => panic!("it ended after {:?}", alive.elapsed()),
        Err(_) => None,
    });
    let (kept, lease) = kept.await;
    assert_eq!(lease.ttl_seconds, TTL.as_secs());
    let gone = watcher.next().await.unwrap().unwrap();
    assert_eq!(gone.events[0].kv.key, Bytes::from("held"));
    // It was asked for a little before it was answered.
    assert!(kept.elapsed() + Duration::from_secs(1) >= TTL, "it ended after {:?}", kept.elapsed());
    assert!(matches!(store.lease_keep_alive(lease.id).await, Err(Error::LeaseNotFound { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_everybody_is_told_soon() {
    let mut cluster = Cluster::in_memory(3).await;
    let leader = cluster.leader().await;
    for n in (0..3).filter(|n| *n != leader) {
        cluster.kill(n);
    }
    let last = cluster.store(leader);
    until("it knows that it is alone", async || {
        matches!(put(&*last, "key", "").await, Err(Error::NoLeader)).then_some(())
    })
    .await;
    let asked = Instant::now();
    assert!(matches!(put(&*last, "key", "").await, Err(Error::NoLeader)));
    assert!(matches!(last.range(Range::key("key")).await, Err(Error::NoLeader)));
    assert!(asked.elapsed() < Duration::from_secs(1), "nobody waits for a leader that has been gone for long");
    last.range(Range::key("key").serializable()).await.unwrap();
}
