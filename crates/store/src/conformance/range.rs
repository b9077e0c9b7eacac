//! The options of a range.

use std::sync::Arc;

use bytes::Bytes;

use super::{delete, does, keys, put, read};
use crate::{Error, Op, Range, RangeEnd, Revision, SortBy, SortOrder, Store};

pub async fn limits_say_whether_there_is_more(store: Arc<dyn Store>) {
    for key in ["a", "b", "c", "d"] {
        put(&store, key, key).await;
    }
    let two = store.range(Range::all().limit(2)).await.unwrap();
    assert_eq!((two.items.len(), two.count, two.more), (2, 4, true));
    let four = store.range(Range::all().limit(4)).await.unwrap();
    assert_eq!((four.items.len(), four.count, four.more), (4, 4, false));
    let none = store.range(Range::prefix("x").limit(1)).await.unwrap();
    assert_eq!((none.items.len(), none.count, none.more), (0, 0, false));
    let last = Range::all().limit(1).sort(SortBy::Key, SortOrder::Descend);
    assert_eq!(keys(&store, last).await, ["d"]);
}

pub async fn counts_and_keys_come_without_the_rest(store: Arc<dyn Store>) {
    for key in ["a", "b", "c"] {
        put(&store, key, "value").await;
    }
    let count = store.range(Range::all().count_only().limit(1)).await.unwrap();
    assert_eq!((count.items.len(), count.count, count.more), (0, 3, false));
    let rows = read(&store, Range::all().keys_only().sort(SortBy::Value, SortOrder::Descend)).await;
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.value.is_empty() && row.version == 1));
}

pub async fn every_sort_in_both_orders(store: Arc<dyn Store>) {
    // Created c a b d; modified last d a b c; versions a 3, b 2, c 2, d 1.
    for (key, value) in [("c", "1"), ("a", "1"), ("a", "1"), ("b", "1"), ("d", "3"), ("a", "4"), ("b", "2"), ("c", "1")]
    {
        put(&store, key, value).await;
    }
    for (by, ascending, descending) in [
        (SortBy::Key, "abcd", "dcba"),
        (SortBy::Create, "cabd", "dbac"),
        (SortBy::Mod, "dabc", "cbad"),
        (SortBy::Version, "dbca", "abcd"),
        (SortBy::Value, "cbda", "adbc"),
    ] {
        let up = keys(&store, Range::all().sort(by, SortOrder::Ascend)).await.concat();
        let down = keys(&store, Range::all().sort(by, SortOrder::Descend)).await.concat();
        assert_eq!((&up[..], &down[..]), (ascending, descending), "{by:?}");
        let first = store.range(Range::all().sort(by, SortOrder::Descend).limit(1)).await.unwrap();
        assert_eq!((first.items.len(), first.count, first.more), (1, 4, true));
        assert_eq!(&first.items[0].key[..], &descending.as_bytes()[..1]);
    }
}

pub async fn revision_bounds_choose_rows_and_not_the_count(store: Arc<dyn Store>) {
    let a = put(&store, "a", "").await;
    let b = put(&store, "b", "").await;
    let c = put(&store, "c", "").await;
    let a_again = put(&store, "a", "").await;
    assert_eq!(keys(&store, Range::all().min_create(b)).await, ["b", "c"]);
    assert_eq!(keys(&store, Range::all().max_create(b)).await, ["a", "b"]);
    assert_eq!(keys(&store, Range::all().min_mod(c)).await, ["a", "c"]);
    assert_eq!(keys(&store, Range::all().max_mod(c)).await, ["b", "c"]);
    assert_eq!(keys(&store, Range::all().min_create(a).max_mod(b)).await, ["b"]);
    assert_eq!(keys(&store, Range::key("a").min_mod(a_again)).await, ["a"]);
    assert_eq!(keys(&store, Range::key("a").max_mod(c)).await, Vec::<String>::new());
    let answer = store.range(Range::all().min_create(b).limit(1)).await.unwrap();
    assert_eq!((answer.items.len(), answer.count, answer.more), (1, 3, true));
}

pub async fn an_uncounted_read_finds_the_same_rows(store: Arc<dyn Store>) {
    for n in 0..30 {
        put(&store, &format!("log/{:02}", (n * 7) % 30), "x").await;
        put(&store, "row", &n.to_string()).await;
    }
    delete(&store, "log/03").await;
    for since in (0..64).map(Revision) {
        for range in [
            Range::prefix("log/").min_create(since),
            Range::prefix("log/").min_create(since).limit(5),
            Range::all().min_mod(since).sort(SortBy::Key, SortOrder::Descend).limit(3),
            Range::prefix("log/").min_create(since).sort(SortBy::Create, SortOrder::Ascend).limit(4),
        ] {
            let counted = store.range(range.clone()).await.unwrap();
            let quick = store.range(range.uncounted()).await.unwrap();
            assert_eq!((counted.items, counted.more), (quick.items, quick.more), "since {since}");
        }
    }
}

pub async fn prefixes_end_where_they_should(store: Arc<dyn Store>) {
    let all: [&[u8]; 7] = [b"a", b"a/", b"a/1", b"a/\xff", b"a0", b"\xff", b"\xff\xff"];
    for key in all {
        does(&store, [Op::put(Bytes::from_static(key), "")]).await;
    }
    let found = |range: Range| {
        let store = store.clone();
        async move { read(&store, range).await.into_iter().map(|kv| kv.key).collect::<Vec<_>>() }
    };
    assert_eq!(found(Range::prefix("a/")).await, [&b"a/"[..], b"a/1", b"a/\xff"]);
    assert_eq!(found(Range::prefix(&b"\xff"[..])).await, [&b"\xff"[..], b"\xff\xff"]);
    assert_eq!(found(Range::prefix("")).await.len(), 7);
    assert_eq!(found(Range::from("a0")).await, [&b"a0"[..], b"\xff", b"\xff\xff"]);
    assert_eq!(found(Range::between("a", "a/1")).await, [&b"a"[..], b"a/"]);
    assert_eq!(found(Range::between("", "a/")).await, [&b"a"[..]]);
    assert_eq!(found(Range::between("a", "a")).await, Vec::<Bytes>::new());
}

pub async fn pages_of_a_past_revision_fit_together(store: Arc<dyn Store>) {
    for n in 0..25 {
        put(&store, &format!("k/{n:02}"), "old").await;
    }
    let at = store.status().await.unwrap().revision;
    let mut start = Bytes::from_static(b"k/");
    let mut seen = Vec::new();
    loop {
        let RangeEnd::Exclusive(end) = Range::prefix("k/").end else { unreachable!("the prefix has an end") };
        let page = store.range(Range::between(start, end).at(at).limit(4)).await.unwrap();
        let Some(last) = page.items.last() else { break };
        start = [&last.key[..], b"\0"].concat().into();
        assert!(page.items.iter().all(|kv| kv.value == "old"));
        seen.extend(page.items.iter().map(|kv| super::text(&kv.key)));
        // Changes behind, before and after the cursor.
        let n = seen.len();
        put(&store, &format!("k/{n:02}"), "new").await;
        put(&store, &format!("k/{n:02}/inserted"), "new").await;
        delete(&store, &format!("k/{:02}", (n + 5) % 25)).await;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, (0..25).map(|n| format!("k/{n:02}")).collect::<Vec<_>>());
    let down = Range::prefix("k/").at(at).sort(SortBy::Key, SortOrder::Descend);
    seen.reverse();
    assert_eq!(keys(&store, down).await, seen);
}

pub async fn an_end_before_the_start_is_refused(store: Arc<dyn Store>) {
    assert!(matches!(store.range(Range::between("b", "a")).await, Err(Error::RangeInverted)));
    let delete = Op::Delete { range: Range::between("b", "a") };
    assert!(matches!(store.txn(crate::Txn::of([delete])).await, Err(Error::RangeInverted)));
}
