//! Puts, deletes, reads.

use std::sync::Arc;

use bytes::Bytes;

use super::{delete, does, get, keys, put, read};
use crate::{Compare, Error, Op, OpAnswer, Range, Revision, Store, Txn};

pub async fn an_empty_store_is_at_revision_one(store: Arc<dyn Store>) {
    let status = store.status().await.unwrap();
    assert_eq!((status.revision, status.compacted), (Revision::FIRST, Revision::ZERO));
    let answer = store.range(Range::all()).await.unwrap();
    assert_eq!((answer.revision, answer.count, answer.more), (Revision::FIRST, 0, false));
    assert!(answer.items.is_empty());
    assert_eq!(put(&store, "a", "1").await, Revision(2));
}

pub async fn a_put_is_read_back(store: Arc<dyn Store>) {
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    assert_eq!(second, first.next());
    let row = get(&store, "a").await.unwrap();
    assert_eq!((&row.key[..], &row.value[..]), (&b"a"[..], &b"2"[..]));
    assert_eq!((row.create_revision, row.mod_revision, row.version), (first, second, 2));
    assert_eq!(row.lease, None);
    assert_eq!(get(&store, "b").await, None);
    assert_eq!(store.status().await.unwrap().revision, second);
    let replaced = does(&store, [Op::put("a", "3")]).await;
    assert_eq!(replaced.answers, [OpAnswer::Put { previous: Some(row) }]);
}

pub async fn puts_of_one_transaction_share_a_revision(store: Arc<dyn Store>) {
    let answer = does(&store, [Op::put("a", "1"), Op::put("b", "2"), Op::put("c", "3")]).await;
    let rows = read(&store, Range::all()).await;
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.mod_revision == answer.revision && row.create_revision == answer.revision));
    assert_eq!(store.status().await.unwrap().revision, answer.revision);
}

pub async fn what_changes_nothing_takes_no_revision(store: Arc<dyn Store>) {
    let before = put(&store, "a", "1").await;
    assert_eq!(delete(&store, "missing").await, before);
    assert_eq!(does(&store, [Op::delete_prefix("missing/")]).await.revision, before);
    assert_eq!(does(&store, [Op::get("a")]).await.revision, before);
    assert_eq!(does(&store, []).await.revision, before);
    let failed = Txn::when([Compare::missing("a")]).then([Op::put("b", "")]);
    let failed = store.txn(failed).await.unwrap();
    assert_eq!((failed.succeeded, failed.revision), (false, before));
    assert_eq!(store.status().await.unwrap().revision, before);
    assert_eq!(put(&store, "a", "1").await, before.next(), "the same value again is a change");
}

pub async fn versions_count_and_start_again_after_a_delete(store: Arc<dyn Store>) {
    for version in 1..=3 {
        put(&store, "a", "x").await;
        assert_eq!(get(&store, "a").await.unwrap().version, version);
    }
    delete(&store, "a").await;
    assert_eq!(get(&store, "a").await, None);
    let again = put(&store, "a", "y").await;
    let row = get(&store, "a").await.unwrap();
    assert_eq!((row.version, row.create_revision, row.mod_revision), (1, again, again));
}

pub async fn deletes_answer_what_they_deleted(store: Arc<dyn Store>) {
    for key in ["a", "b/1", "b/2", "b/3", "c"] {
        put(&store, key, key).await;
    }
    let answer = does(&store, [Op::delete_prefix("b/")]).await;
    let [OpAnswer::Delete { deleted, previous }] = &answer.answers[..] else { panic!("{answer:?}") };
    assert_eq!(*deleted, 3);
    let values: Vec<_> = previous.iter().map(|kv| &kv.value[..]).collect();
    assert_eq!(values, [b"b/1", b"b/2", b"b/3"]);
    assert_eq!(keys(&store, Range::all()).await, ["a", "c"]);
    let twice = does(&store, [Op::delete("a"), Op::delete("a")]).await;
    assert!(matches!(&twice.answers[1], OpAnswer::Delete { deleted: 0, previous } if previous.is_empty()));
    let between = Op::Delete { range: Range::between("a", "c") };
    assert!(matches!(does(&store, [between]).await.answers[0], OpAnswer::Delete { deleted: 0, .. }));
    assert_eq!(keys(&store, Range::all()).await, ["c"]);
}

pub async fn any_bytes_are_a_key_and_a_value(store: Arc<dyn Store>) {
    let odd: [&[u8]; 6] = [&[0], &[0, 0], &[0, 1], b"a\0b", &[0xff], &[0xff, 0xff]];
    for key in odd {
        does(&store, [Op::put(Bytes::from_static(key), Bytes::from_static(key))]).await;
    }
    does(&store, [Op::put("empty", "")]).await;
    for key in odd {
        let rows = read(&store, Range::key(Bytes::from_static(key))).await;
        assert_eq!(rows.len(), 1);
        assert_eq!((&rows[0].key[..], &rows[0].value[..]), (key, key));
    }
    assert!(get(&store, "empty").await.unwrap().value.is_empty());
    let rows = read(&store, Range::all()).await;
    assert!(rows.is_sorted_by(|a, b| a.key < b.key), "ordered as unsigned bytes");
    assert_eq!(rows.len(), 7);
}

pub async fn a_past_revision_reads_as_it_was(store: Arc<dyn Store>) {
    let one = put(&store, "a", "1").await;
    let two = put(&store, "b", "2").await;
    let three = put(&store, "a", "3").await;
    let four = delete(&store, "b").await;
    let five = put(&store, "b", "5").await;
    let mut seen = Vec::new();
    for at in [Revision::FIRST, one, two, three, four, five] {
        let answer = store.range(Range::all().at(at)).await.unwrap();
        assert_eq!(answer.revision, five, "the answer names the newest");
        let rows = answer.items.iter().map(|kv| format!("{}={}", super::text(&kv.key), super::text(&kv.value)));
        seen.push(rows.collect::<Vec<_>>().join(" "));
    }
    assert_eq!(seen, ["", "a=1", "a=1 b=2", "a=3 b=2", "a=3", "a=3 b=5"]);
    let row = &read(&store, Range::key("a").at(two)).await[0];
    assert_eq!((row.version, row.mod_revision), (1, one));
    let future = store.range(Range::all().at(five.next())).await.unwrap_err();
    assert!(matches!(future, Error::FutureRevision { asked, newest } if asked == five.next() && newest == five));
}
