//! Several stores on one schema, as several processes have it.

use std::sync::Arc;

use store::{Compare, Error, LeaseId, Op, Range, Revision, Store, Txn, WatchRequest};
use tokio::task::JoinSet;

use crate::relay::Relay;
use crate::server;
use crate::workload::{self, Replay, get, next, open, put};

macro_rules! server_or_skip {
    () => {
        match server::shared() {
            Ok(server) => server,
            Err(reason) => {
                println!("skipped: {reason}");
                return;
            }
        }
    };
}
pub(crate) use server_or_skip;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_on_both_see_all_revisions_once_and_in_order() {
    const WRITERS: u64 = 8;
    const EACH: u64 = 40;
    let url = server_or_skip!().url(&server::schema());
    let stores = [open(&url).await, open(&url).await];
    let mut replays = [Replay::new(&*stores[0]).await, Replay::new(&*stores[1]).await];
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = stores[writer as usize % 2].clone();
        writers.spawn(workload::write_through(store, writer, |n| n == EACH, |_| {}));
    }
    let done: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(done.len() as u64, WRITERS * EACH);
    let newest = stores[0].status().await.unwrap().revision;
    assert_eq!(newest, Revision(1 + WRITERS * EACH));
    for replay in &mut replays {
        replay.up_to(newest).await;
    }
    assert_eq!(replays[0].rows, replays[1].rows);
    for store in &stores {
        workload::check(&**store, WRITERS, &done).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_through_both_lose_nothing() {
    const TASKS: u64 = 8;
    const EACH: u64 = 15;
    let url = server_or_skip!().url(&server::schema());
    let stores = [open(&url).await, open(&url).await];
    put(&*stores[0], "counter", "0").await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = stores[task as usize % 2].clone();
        tasks.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let row = store.range(Range::key("counter")).await.unwrap().items.remove(0);
                let value: u64 = std::str::from_utf8(&row.value).unwrap().parse().unwrap();
                let then = [Op::put("counter", (value + 1).to_string())];
                let txn = Txn::when([Compare::mod_is("counter", row.mod_revision)]).then(then);
                done += u64::from(store.txn(txn).await.unwrap().succeeded);
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(get(&*stores[0], "counter").await, Some((TASKS * EACH).to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_answered_the_other_reads_at_once() {
    let url = server_or_skip!().url(&server::schema());
    let (one, other) = (open(&url).await, open(&url).await);
    for n in 0..50 {
        let at = put(&*one, "k", &n.to_string()).await;
        assert_eq!(get(&*other, "k").await, Some(n.to_string()));
        assert_eq!(other.status().await.unwrap().revision, at);
        // A watch that begins now begins after it, however far the feed is.
        let mut watcher = other.watch(WatchRequest::key("k")).await.unwrap();
        let after = put(&*one, "k", "after").await;
        assert_eq!(next(&mut watcher).await.unwrap().unwrap().revision, after);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_by_one_is_one_for_both() {
    let url = server_or_skip!().url(&server::schema());
    let (one, other) = (open(&url).await, open(&url).await);
    let first = put(&*one, "k", "1").await;
    let second = put(&*other, "k", "2").await;
    other.compact(second).await.unwrap();
    let read = one.range(Range::key("k").at(first)).await;
    assert!(matches!(read, Err(Error::Compacted { compacted }) if compacted == second));
    let watch = one.watch(WatchRequest::key("k").from(first)).await;
    assert!(matches!(watch, Err(Error::Compacted { compacted }) if compacted == second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_the_process_that_was_given_it() {
    let url = server_or_skip!().url(&server::schema());
    let (one, other) = (open(&url).await, open(&url).await);
    let lease = one.lease_grant(600, None).await.unwrap().id;
    let short = one.lease_grant(1, Some(LeaseId(77))).await.unwrap().id;
    one.txn(Txn::of([Op::put_leased("long", "", lease), Op::put_leased("short", "", short)])).await.unwrap();
    let mut watcher = other.watch(WatchRequest::key("short")).await.unwrap();
    Arc::into_inner(one).unwrap().close().await;
    let gone = next(&mut watcher).await.unwrap().unwrap();
    assert_eq!(gone.events[0].kind, store::EventKind::Delete);
    assert_eq!(other.lease_keep_alive(lease).await.unwrap().ttl_seconds, 600);
    assert_eq!(other.lease_time_to_live(lease).await.unwrap().keys, ["long"]);
    assert_eq!(other.leases().await.unwrap(), [lease]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_cut_off_catches_up() {
    let url = server_or_skip!().url(&server::schema());
    let relay = Relay::to(&url).await;
    let (near, far) = (open(&url).await, open(&relay.url(&url)).await);
    let mut replay = Replay::new(&*far).await;
    let newest = put(&*near, "k", "before").await;
    replay.up_to(newest).await;
    relay.cut();
    let mut newest = newest;
    for n in 0..30 {
        newest = put(&*near, "k", &n.to_string()).await;
    }
    assert!(matches!(far.txn(Txn::of([Op::put("k", "lost")])).await, Err(Error::NoLeader | Error::Storage { .. })));
    assert!(matches!(far.range(Range::key("k")).await, Err(Error::NoLeader)));
    relay.mend();
    replay.up_to(newest).await;
    assert_eq!(get(&*near, "k").await, Some("29".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_cut_off_while_others_compacted_is_told_so() {
    let url = server_or_skip!().url(&server::schema());
    let relay = Relay::to(&url).await;
    let (near, far) = (open(&url).await, open(&relay.url(&url)).await);
    let mut watcher = far.watch(WatchRequest::prefix("")).await.unwrap();
    put(&*near, "k", "heard").await;
    assert!(next(&mut watcher).await.unwrap().is_some());
    relay.cut();
    for n in 0..20 {
        put(&*near, "k", &n.to_string()).await;
    }
    let newest = put(&*near, "k", "last").await;
    near.compact(newest).await.unwrap();
    relay.mend();
    let told = next(&mut watcher).await;
    assert!(matches!(told, Err(Error::Compacted { compacted }) if compacted == newest), "{told:?}");
    // And from there on it goes on.
    let mut watcher = far.watch(WatchRequest::prefix("").from(newest)).await.unwrap();
    assert_eq!(next(&mut watcher).await.unwrap().unwrap().revision, newest);
    let after = put(&*near, "k", "after").await;
    assert_eq!(next(&mut watcher).await.unwrap().unwrap().revision, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_waiting_when_a_store_is_dropped_is_done() {
    let url = server_or_skip!().url(&server::schema());
    let (one, other) = (open(&url).await, open(&url).await);
    let mut puts = JoinSet::new();
    for n in 0..20 {
        let one = one.clone();
        puts.spawn(async move { one.txn(Txn::of([Op::put(format!("k/{n}"), "")])).await });
    }
    // Each has been sent before it is waited for.
    tokio::task::yield_now().await;
    let mut watcher = one.watch(WatchRequest::key("elsewhere")).await.unwrap();
    let done = puts.join_all().await.into_iter().flatten().count();
    Arc::into_inner(one).unwrap().close().await;
    assert!(next(&mut watcher).await.unwrap().is_none(), "watchers end with the store");
    assert_eq!(other.range(Range::prefix("k/")).await.unwrap().count, done as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_told_to_whoever_listens() {
    let server = server_or_skip!();
    let schema = server::schema();
    let url = server.url(&schema);
    let config: tokio_postgres::Config = server.url_with("sslmode=disable").parse().unwrap();
    let (client, mut connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = futures::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                let _ = tell.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute(&format!("LISTEN \"photon.{schema}\"")).await.unwrap();
    let store = open(&url).await;
    let at = put(&*store, "k", "v").await;
    let heard = tokio::time::timeout(workload::WAIT_MAX, told.recv()).await.unwrap();
    assert_eq!(heard, Some(at.to_string()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_was_told_of_is_found_by_looking() {
    let server = server_or_skip!();
    let schema = server::schema();
    let store = open(&server.url(&schema)).await;
    let mut watcher = store.watch(WatchRequest::key("k")).await.unwrap();
    let quietly = format!(
        "BEGIN; UPDATE {schema}.head SET newest = 2; \
         INSERT INTO {schema}.revisions VALUES (2, 0, 'k', 'quiet', 2, 1, NULL, NULL); COMMIT"
    );
    server.admin().await.batch_execute(&quietly).await.unwrap();
    let batch = next(&mut watcher).await.unwrap().unwrap();
    assert_eq!((batch.revision, &batch.events[0].kv.value[..]), (Revision(2), &b"quiet"[..]));
}

/// Only what nobody can read any more goes, and all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compacted_rows_leave_the_table() {
    const ROUNDS: u64 = 60;
    const KEYS: u64 = 100;
    let server = server_or_skip!();
    let schema = server::schema();
    let store = open(&server.url(&schema)).await;
    for round in 0..ROUNDS {
        let ops: Vec<_> = (0..KEYS).map(|n| Op::put(format!("k/{n:03}"), round.to_string())).collect();
        store.txn(Txn::of(ops)).await.unwrap();
    }
    let newest = store.txn(Txn::of([Op::delete_prefix("k/00")])).await.unwrap().revision;
    let admin = server.admin().await;
    let count = format!("SELECT count(*) FROM {schema}.revisions");
    let rows = async || admin.query_one(&count, &[]).await.unwrap().get::<_, i64>(0);
    for (compacted, left) in [
        // The last round, and ten deletions.
        (newest.before(), KEYS as i64 + 10),
        // The deletions themselves may still be watched.
        (newest, KEYS as i64),
        (newest.next(), KEYS as i64 - 10 + 1),
    ] {
        if compacted > newest {
            put(&*store, "other", "").await;
        }
        store.compact(compacted).await.unwrap();
        while rows().await != left {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let mut watcher = store.watch(WatchRequest::prefix("k/").from(compacted).previous()).await.unwrap();
        if compacted < newest {
            assert_eq!(next(&mut watcher).await.unwrap().unwrap().events.len() as u64, KEYS);
            assert_eq!(store.range(Range::all().at(compacted)).await.unwrap().count, KEYS);
        }
        if compacted <= newest {
            let deleted = next(&mut watcher).await.unwrap().unwrap();
            assert_eq!((deleted.revision, deleted.events.len()), (newest, 10));
        }
        assert_eq!(store.range(Range::prefix("k/")).await.unwrap().count, KEYS - 10);
    }
}
