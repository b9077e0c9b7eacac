//! How much the database reads for what it answers, by its own count: with plans made while the tables were empty.

use std::time::Duration;

use store::{Op, Range, SortBy, SortOrder, Store, Txn, WatchRequest};
use tokio::task::JoinSet;

use crate::server::{self, Server};
use crate::several::server_or_skip;
use crate::workload::{next, open, put};

const KEYS: u64 = 4000;

/// Rows of the table of revisions that were read so far. Sessions tell when they end.
async fn rows_read(server: &Server, schema: &str) -> i64 {
    let admin = server.admin().await;
    let there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    while admin.query_one(there, &[&schema]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables \
                WHERE schemaname = $1 AND relname = 'revisions'";
    admin.query_one(read, &[&schema]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_reads_little_more_than_it_answers() {
    let server = server_or_skip!();
    let schema = server::schema();
    let url = format!("{}&application_name={schema}", server.url(&schema));
    let store = open(&url).await;
    // The first of each kind are planned now.
    store.range(Range::prefix("k/").limit(1)).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..KEYS / 8 / 50 {
                let key = |i: u64| format!("k/{:05}", writer * (KEYS / 8) + n * 50 + i);
                store.txn(Txn::of((0..50).map(|i| Op::put(key(i), "v")).collect::<Vec<_>>())).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    std::sync::Arc::into_inner(store).unwrap().close().await;
    let filled = rows_read(server, &schema).await;
    // The follower may have read each row once.
    assert!(filled <= 2 * KEYS as i64, "{filled} rows were read to write {KEYS} new ones");

    let store = open(&url).await;
    let newest = store.status().await.unwrap().revision;
    for n in 0..100 {
        store.range(Range::key(format!("k/{:05}", n * 37))).await.unwrap();
        store.range(Range::prefix("k/").limit(3).uncounted()).await.unwrap();
        let last = Range::all().limit(1).uncounted().sort(SortBy::Key, SortOrder::Descend);
        store.range(last).await.unwrap();
        store.range(Range::prefix("k/").limit(3).uncounted().at(newest)).await.unwrap();
        store.range(Range::all().uncounted().min_mod(newest)).await.unwrap();
        put(&*store, "hot", "x").await;
        store.txn(Txn::of([Op::delete("hot"), Op::get("k/00001")])).await.unwrap();
    }
    let mut watcher = store.watch(WatchRequest::key("hot").from(newest.next()).previous()).await.unwrap();
    for _ in 0..200 {
        next(&mut watcher).await.unwrap().unwrap();
    }
    drop(watcher);
    std::sync::Arc::into_inner(store).unwrap().close().await;
    let read = rows_read(server, &schema).await - filled;
    // 700 requests, each of a few dozen rows at most: sorting goes on by groups of 32.
    assert!(read < 700 * 100, "{read} rows were read for 700 small requests");
}
