//! Giving up history.

use std::sync::Arc;

use super::{delete, does, get, keys, next, put, read, watching};
use crate::{Error, Op, Range, Revision, Store, Txn, WatchRequest};

pub async fn reads_below_are_refused_and_the_rest_stays(store: Arc<dyn Store>) {
    let one = put(&store, "a", "1").await;
    let two = put(&store, "b", "2").await;
    let three = put(&store, "a", "3").await;
    let four = put(&store, "a", "4").await;
    store.compact(three).await.unwrap();
    assert_eq!(store.status().await.unwrap().compacted, three);
    for at in [one, two] {
        let error = store.range(Range::all().at(at)).await.unwrap_err();
        assert!(matches!(error, Error::Compacted { compacted } if compacted == three));
        let inside = Txn::of([Op::put("x", ""), Op::Range(Range::all().at(at))]);
        assert!(matches!(store.txn(inside).await, Err(Error::Compacted { .. })));
    }
    assert_eq!(read(&store, Range::key("a").at(three)).await[0].value, "3");
    assert_eq!(read(&store, Range::key("b").at(three)).await[0].value, "2");
    assert_eq!(read(&store, Range::key("a").at(four)).await[0].value, "4");
    let row = get(&store, "a").await.unwrap();
    assert_eq!((row.version, row.create_revision), (3, one), "what a key counts is not history");
    assert_eq!(keys(&store, Range::all()).await, ["a", "b"]);
}

pub async fn only_forward_and_not_into_the_future(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let newest = put(&store, "a", "2").await;
    let error = store.compact(newest.next()).await.unwrap_err();
    assert!(matches!(error, Error::FutureRevision { asked, newest: at } if asked == newest.next() && at == newest));
    store.compact(newest).await.unwrap();
    for again in [Revision::ZERO, Revision::FIRST, newest] {
        let error = store.compact(again).await.unwrap_err();
        assert!(matches!(error, Error::Compacted { compacted } if compacted == newest));
    }
    assert_eq!(store.status().await.unwrap().revision, newest, "compaction is not a change");
    assert_eq!(put(&store, "a", "3").await, newest.next());
}

pub async fn deleted_keys_leave_nothing_that_matters(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    put(&store, "kept", "").await;
    let gone = delete(&store, "a").await;
    let after = put(&store, "other", "").await;
    store.compact(after).await.unwrap();
    assert!(read(&store, Range::prefix("a").at(after)).await.is_empty());
    let again = put(&store, "a", "3").await;
    let row = get(&store, "a").await.unwrap();
    assert_eq!((row.version, row.create_revision), (1, again));
    let last = put(&store, "a", "4").await;
    store.compact(last).await.unwrap();
    assert_eq!(keys(&store, Range::all().at(last)).await, ["a", "kept", "other"]);
    assert!(gone < after);
}

/// Thousands of revisions, compacted while they are read and written.
pub async fn a_large_history_shrinks_while_reads_go_on(store: Arc<dyn Store>) {
    const KEYS: usize = 100;
    const ROUNDS: usize = 30;
    for round in 0..ROUNDS {
        let ops = |half: usize| -> Vec<Op> {
            let keys = (half * KEYS / 2)..((half + 1) * KEYS / 2);
            keys.map(|n| match (n + round) % 7 {
                0 => Op::delete(format!("k/{n:03}")),
                _ => Op::put(format!("k/{n:03}"), format!("{round}")),
            })
            .collect()
        };
        does(&store, ops(0)).await;
        does(&store, ops(1)).await;
    }
    let newest = store.status().await.unwrap().revision;
    let at = Revision(newest.0 - 10);
    let expected = read(&store, Range::prefix("k/").at(at)).await;
    let expected_now = read(&store, Range::prefix("k/")).await;
    for revision in [Revision(newest.0 / 3), Revision(newest.0 / 2), at] {
        store.compact(revision).await.unwrap();
        assert_eq!(read(&store, Range::prefix("k/").at(at)).await, expected);
        put(&store, "other", "").await;
    }
    for _ in 0..20 {
        put(&store, "other", "").await;
        assert_eq!(read(&store, Range::prefix("k/").at(at)).await, expected);
        assert_eq!(read(&store, Range::prefix("k/")).await, expected_now);
    }
    let mut watcher = watching(&store, WatchRequest::prefix("k/").from(at.next()).previous()).await;
    for revision in (at.0 + 1)..=newest.0 {
        assert_eq!(next(&mut watcher).await.revision, Revision(revision));
    }
}
