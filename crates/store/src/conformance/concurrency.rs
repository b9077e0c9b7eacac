//! Many writers at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{get, next, put, read, watching};
use crate::{Compare, Op, Range, Revision, Store, Txn, WatchRequest};

const TASKS: u64 = 16;

fn number(value: &Bytes) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

pub async fn increments_by_comparison_lose_nothing(store: Arc<dyn Store>) {
    const EACH: u64 = 12;
    put(&store, "counter", "0").await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let row = get(&store, "counter").await.unwrap();
                let value = (number(&row.value) + 1).to_string();
                let txn = Txn::when([Compare::mod_is("counter", row.mod_revision)]).then([Op::put("counter", value)]);
                done += u64::from(store.txn(txn).await.unwrap().succeeded);
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let row = get(&store, "counter").await.unwrap();
    assert_eq!(number(&row.value), TASKS * EACH);
    assert_eq!(row.version, TASKS * EACH + 1, "one put for each increment");
}

pub async fn revisions_have_no_gaps_and_watchers_see_each_once(store: Arc<dyn Store>) {
    const EACH: u64 = 20;
    let start = store.status().await.unwrap().revision;
    let mut live = watching(&store, WatchRequest::prefix("")).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut answered = Vec::new();
            for n in 0..EACH {
                let key = format!("{task}/{n}");
                let revision = put(&store, &key, "x").await;
                // What was answered can be read at once.
                assert_eq!(get(&store, &key).await.unwrap().mod_revision, revision);
                answered.push((revision, key));
            }
            assert!(answered.is_sorted(), "one caller's writes are in its order");
            answered
        });
    }
    let mut answered = BTreeMap::new();
    while let Some(task) = tasks.join_next().await {
        answered.extend(task.unwrap());
    }
    assert_eq!(answered.len() as u64, TASKS * EACH, "each has a revision of its own");
    let mut past = watching(&store, WatchRequest::prefix("").from(start.next())).await;
    for watcher in [&mut live, &mut past] {
        for (nth, (revision, key)) in answered.iter().enumerate() {
            assert_eq!(*revision, Revision(start.0 + 1 + nth as u64));
            let batch = next(watcher).await;
            assert_eq!((batch.revision, super::text(&batch.events[0].kv.key)), (*revision, key.clone()));
        }
    }
}

/// Tokens move between places; at every revision there are as many as in the beginning.
pub async fn moved_tokens_are_neither_lost_nor_doubled(store: Arc<dyn Store>) {
    const PLACES: u64 = 5;
    const EACH: u64 = 10;
    let start = store.txn(Txn::of((0..PLACES).map(|n| Op::put(format!("p/{n}"), "10")).collect::<Vec<_>>())).await;
    let start = start.unwrap().revision;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0..EACH {
                let (from, to) = (format!("p/{}", (task + n) % PLACES), format!("p/{}", (task + n + 1) % PLACES));
                let (Some(left), Some(right)) = (get(&store, &from).await, get(&store, &to).await) else { continue };
                let (less, more) = (number(&left.value).saturating_sub(1), number(&right.value) + 1);
                if number(&left.value) == 0 {
                    continue;
                }
                let when =
                    [Compare::mod_is(from.clone(), left.mod_revision), Compare::mod_is(to.clone(), right.mod_revision)];
                let then = [Op::put(from, less.to_string()), Op::put(to, more.to_string())];
                store.txn(Txn::when(when).then(then)).await.unwrap();
            }
        });
    }
    // Readers in between see whole transactions only.
    for _ in 0..50 {
        let rows = read(&store, Range::prefix("p/")).await;
        assert_eq!(rows.iter().map(|kv| number(&kv.value)).sum::<u64>(), PLACES * 10);
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    let newest = store.status().await.unwrap().revision;
    for at in start.0..=newest.0 {
        let rows = read(&store, Range::prefix("p/").at(Revision(at))).await;
        assert_eq!(rows.iter().map(|kv| number(&kv.value)).sum::<u64>(), PLACES * 10, "at {at}");
    }
}
