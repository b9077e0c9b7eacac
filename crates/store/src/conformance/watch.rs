//! Watches: now, from the past, from the future, slow, many.

use std::sync::Arc;
use std::time::Duration;

use super::{WAIT_MAX, delete, does, next, next_error, put, watching};
use crate::limits::{FEED_BYTES_MAX, HISTORY_BATCHES_MAX};
use crate::{Advance, Batch, Error, EventKind, KeyValue, Op, RangeEnd, Revision, Store, WatchRequest, Watcher};

/// `+key=value` and `-key`, in order.
fn shown(batch: &Batch) -> String {
    let events = batch.events.iter().map(|event| match event.kind {
        EventKind::Put => format!("+{}={}", super::text(&event.kv.key), super::text(&event.kv.value)),
        EventKind::Delete => format!("-{}", super::text(&event.kv.key)),
    });
    events.collect::<Vec<_>>().join(" ")
}

pub async fn events_come_from_after_the_call(store: Arc<dyn Store>) {
    put(&store, "a", "before").await;
    let mut watcher = watching(&store, WatchRequest::key("a")).await;
    let at = put(&store, "a", "after").await;
    let batch = next(&mut watcher).await;
    assert_eq!((batch.revision, &shown(&batch)[..]), (at, "+a=after"));
    let row = &batch.events[0].kv;
    assert_eq!((row.mod_revision, row.version), (at, 2));
    assert_eq!(batch.events[0].previous, None);
    let at = delete(&store, "a").await;
    let batch = next(&mut watcher).await;
    assert_eq!(shown(&batch), "-a");
    let gone = KeyValue { key: "a".into(), mod_revision: at, ..KeyValue::default() };
    assert_eq!(batch.events[0].kv, gone);
}

pub async fn the_past_is_delivered_before_the_present(store: Arc<dyn Store>) {
    let first = put(&store, "a", "1").await;
    put(&store, "b", "2").await;
    delete(&store, "a").await;
    let mut watcher = watching(&store, WatchRequest::prefix("").from(first)).await;
    put(&store, "a", "4").await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(shown(&next(&mut watcher).await));
    }
    assert_eq!(seen, ["+a=1", "+b=2", "-a", "+a=4"]);
    let mut later = watching(&store, WatchRequest::prefix("").from(Revision(first.0 + 2))).await;
    assert_eq!(shown(&next(&mut later).await), "-a");
}

pub async fn a_future_revision_is_waited_for(store: Arc<dyn Store>) {
    let now = put(&store, "a", "0").await;
    let mut watcher = watching(&store, WatchRequest::key("a").from(Revision(now.0 + 3))).await;
    for n in 1..=4 {
        put(&store, "a", &n.to_string()).await;
    }
    assert_eq!(shown(&next(&mut watcher).await), "+a=3");
    assert_eq!(shown(&next(&mut watcher).await), "+a=4");
}

pub async fn keys_ranges_and_everything(store: Arc<dyn Store>) {
    let start = store.status().await.unwrap().revision;
    let between = WatchRequest { start: "b".into(), end: RangeEnd::Exclusive("d".into()), ..WatchRequest::default() };
    let open = WatchRequest { start: "c".into(), end: RangeEnd::Unbounded, ..WatchRequest::default() };
    let requests = [WatchRequest::key("b"), between, open, WatchRequest::prefix("")];
    let mut live = Vec::new();
    for request in &requests {
        live.push(watching(&store, request.clone()).await);
    }
    for key in ["a", "b", "c", "d", "e"] {
        put(&store, key, "").await;
    }
    does(&store, [Op::delete_prefix("")]).await;
    let expected = ["+b= -b", "+b= +c= -b -c", "+c= +d= +e= -c -d -e", "+a= +b= +c= +d= +e= -a -b -c -d -e"];
    for ((mut live, request), expected) in live.into_iter().zip(requests).zip(expected) {
        let mut past = watching(&store, request.from(start.next())).await;
        for watcher in [&mut live, &mut past] {
            let mut seen = Vec::new();
            while seen.join(" ").len() < expected.len() {
                seen.push(shown(&next(watcher).await));
            }
            assert_eq!(seen.join(" "), expected);
        }
    }
}

pub async fn previous_rows_are_from_before_the_revision(store: Arc<dyn Store>) {
    let start = put(&store, "a", "1").await;
    let mut live = watching(&store, WatchRequest::key("a").previous()).await;
    put(&store, "a", "2").await;
    delete(&store, "a").await;
    put(&store, "a", "3").await;
    let mut past = watching(&store, WatchRequest::key("a").from(start.next()).previous()).await;
    for watcher in [&mut live, &mut past] {
        let mut seen = Vec::new();
        for _ in 0..3 {
            let previous = next(watcher).await.events[0].previous.clone();
            seen.push(previous.map(|kv| (super::text(&kv.value), kv.version)));
        }
        assert_eq!(seen, [Some(("1".into(), 1)), Some(("2".into(), 2)), None]);
    }
}

pub async fn revisions_come_whole_and_in_order(store: Arc<dyn Store>) {
    let mut watcher = watching(&store, WatchRequest::prefix("k/")).await;
    put(&store, "k/c", "0").await;
    let at = does(
        &store,
        [Op::put("k/b", "1"), Op::put("other", ""), Op::delete("k/c"), Op::put("k/a", "2"), Op::delete("k/missing")],
    )
    .await
    .revision;
    assert_eq!(shown(&next(&mut watcher).await), "+k/c=0");
    let batch = next(&mut watcher).await;
    assert_eq!((batch.revision, &shown(&batch)[..]), (at, "+k/b=1 -k/c +k/a=2"));
    assert!(batch.events.iter().all(|event| event.kv.mod_revision == at));
}

pub async fn many_watchers_see_the_same(store: Arc<dyn Store>) {
    const WATCHERS: usize = 200;
    const WRITES: u64 = 60;
    let start = store.status().await.unwrap().revision;
    let mut tasks = tokio::task::JoinSet::new();
    for nth in 0..WATCHERS {
        // Some watch everything, some one key, some from the beginning while it is being written.
        let request = match nth % 3 {
            0 => WatchRequest::prefix("k/"),
            1 => WatchRequest::key(format!("k/{}", nth % 5)),
            _ => WatchRequest::prefix("").from(start),
        };
        let one = nth % 3 == 1;
        let mut watcher = watching(&store, request).await;
        tasks.spawn(async move {
            let mut last = start;
            for _ in 0..if one { WRITES / 5 } else { WRITES } {
                let batch = next(&mut watcher).await;
                assert!(batch.revision > last);
                assert!(one || batch.revision == last.next(), "none is skipped");
                last = batch.revision;
            }
            last
        });
    }
    for n in 0..WRITES {
        put(&store, &format!("k/{}", n % 5), &n.to_string()).await;
    }
    let newest = store.status().await.unwrap().revision;
    while let Some(last) = tasks.join_next().await {
        assert!(last.unwrap().0 + 5 > newest.0);
    }
}

pub async fn a_slow_watcher_misses_nothing(store: Arc<dyn Store>) {
    const VALUE_BYTES: usize = 512 * 1024;
    let start = store.status().await.unwrap().revision;
    let mut slow = watching(&store, WatchRequest::prefix("k/")).await;
    let mut elsewhere = watching(&store, WatchRequest::key("elsewhere").previous()).await;
    // More than stays in memory.
    let writes = (2 * FEED_BYTES_MAX / VALUE_BYTES) as u64;
    put(&store, "elsewhere", "first").await;
    for n in 0..writes {
        let mut value = vec![0; VALUE_BYTES];
        value[..8].copy_from_slice(&n.to_le_bytes());
        does(&store, [Op::put(format!("k/{}", n % 3), value)]).await;
    }
    put(&store, "elsewhere", "second").await;
    for n in 0..writes {
        let batch = next(&mut slow).await;
        assert_eq!(batch.revision, Revision(start.0 + 2 + n));
        assert_eq!(batch.events[0].kv.value[..8], n.to_le_bytes());
        assert_eq!(batch.events[0].kv.version, n / 3 + 1);
    }
    assert_eq!(shown(&next(&mut elsewhere).await), "+elsewhere=first");
    let second = next(&mut elsewhere).await;
    assert_eq!(second.events[0].previous.as_ref().unwrap().value, "first");
}

pub async fn a_compacted_start_is_refused(store: Arc<dyn Store>) {
    let first = put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    let third = put(&store, "a", "3").await;
    put(&store, "a", "4").await;
    store.compact(third).await.unwrap();
    let error = store.watch(WatchRequest::key("a").from(first)).await.unwrap_err();
    assert!(matches!(error, Error::Compacted { compacted } if compacted == third));
    match store.watch(WatchRequest::key("a").from(third)).await {
        Ok(mut watcher) => {
            assert_eq!(shown(&next(&mut watcher).await), "+a=3");
            assert_eq!(shown(&next(&mut watcher).await), "+a=4");
        }
        Err(error) => assert!(matches!(error, Error::Compacted { compacted } if compacted == third)),
    }
    let mut watcher = watching(&store, WatchRequest::key("a").from(third.next())).await;
    assert_eq!(shown(&next(&mut watcher).await), "+a=4");
}

pub async fn a_watcher_that_fell_behind_compaction_is_told(store: Arc<dyn Store>) {
    let mut watcher = watching(&store, WatchRequest::prefix("")).await;
    let mut newest = Revision::ZERO;
    for n in 0..40 {
        newest = does(&store, [Op::put(format!("{n}"), vec![0; 512 * 1024])]).await.revision;
    }
    store.compact(newest).await.unwrap();
    match next_error(&mut watcher).await {
        Error::Compacted { compacted } => assert_eq!(compacted, newest),
        Error::WatchLagged { .. } => {}
        error => panic!("{error}"),
    }
    assert!(watcher.next().await.unwrap().is_none(), "it stays ended");
}

pub async fn a_dropped_watcher_disturbs_nobody(store: Arc<dyn Store>) {
    let mut kept = watching(&store, WatchRequest::key("a")).await;
    for _ in 0..50 {
        let mut dropped = watching(&store, WatchRequest::key("a")).await;
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(1), dropped.next()).await;
        assert!(waiting.is_err());
    }
    for n in 0..3 {
        put(&store, "a", &n.to_string()).await;
        assert_eq!(shown(&next(&mut kept).await), format!("+a={n}"));
    }
}

pub async fn a_watch_that_can_see_nothing_is_refused(store: Arc<dyn Store>) {
    for (start, end) in [("b", "a"), ("a", "a")] {
        let request =
            WatchRequest { start: start.into(), end: RangeEnd::Exclusive(end.into()), ..WatchRequest::default() };
        assert!(matches!(store.watch(request).await, Err(Error::RangeInverted)));
    }
    assert!(matches!(store.watch(WatchRequest::key("")).await, Err(Error::KeyEmpty)));
}

pub async fn a_watcher_tells_how_far_it_has_come(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let mut watcher = watching(&store, WatchRequest::key("a").from(Revision::FIRST)).await;
    let seen = next(&mut watcher).await.revision;
    wait_for(&mut watcher, seen).await;
    let other = put(&store, "b", "1").await;
    wait_for(&mut watcher, other).await;
    let again = put(&store, "a", "2").await;
    assert_eq!(next(&mut watcher).await.revision, again, "progress takes nothing away");
}

/// What waits to be read may all be about other keys: nobody has to wait for the next change to learn that.
pub async fn a_watcher_that_finds_nothing_more_says_so(store: Arc<dyn Store>) {
    let seen = put(&store, "a", "1").await;
    let mut newest = seen;
    for n in 0..2 * HISTORY_BATCHES_MAX {
        newest = put(&store, "b", &n.to_string()).await;
    }
    let nobody = WatchRequest::key("c").from(Revision::FIRST);
    assert_eq!(advance(&mut watching(&store, nobody).await).await, Advance::CaughtUp(newest));
    let mut watcher = watching(&store, WatchRequest::key("a").from(Revision::FIRST)).await;
    assert!(matches!(advance(&mut watcher).await, Advance::Batch(batch) if batch.revision == seen));
    assert_eq!(advance(&mut watcher).await, Advance::CaughtUp(newest));
    let again = put(&store, "a", "2").await;
    assert_eq!(next(&mut watcher).await.revision, again, "nothing is taken away");
}

async fn advance(watcher: &mut Watcher) -> Advance {
    tokio::time::timeout(WAIT_MAX, watcher.advance()).await.expect("it does not wait").expect("no error of the watch")
}

/// Until everything up to `revision` has been delivered, as the watcher says.
async fn wait_for(watcher: &mut Watcher, revision: Revision) {
    let reached = async {
        while watcher.progress().is_none_or(|progress| progress < revision) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, reached).await.expect("the watcher comes up to the newest revision");
    assert_eq!(watcher.progress(), Some(revision));
}
