//! Comparisons, branches, nesting, refusals.

use std::sync::Arc;

use bytes::Bytes;

use super::{does, get, keys, put, range_of, read};
use crate::limits::{KEY_BYTES_MAX, REQUEST_BYTES_MAX, TXN_OPS_MAX};
use crate::{Compare, CompareOp, Error, Keep, LeaseId, Op, OpAnswer, Range, RangeEnd, Revision, Store, Target, Txn};

const OPERATORS: [CompareOp; 4] = [CompareOp::Equal, CompareOp::Greater, CompareOp::Less, CompareOp::NotEqual];

async fn holds(store: &Arc<dyn Store>, compare: Compare) -> bool {
    store.txn(Txn::when([compare])).await.unwrap().succeeded
}

/// What the four operators say when the left side is less than, equal to, greater than the right one.
fn expected(op: CompareOp) -> [bool; 3] {
    match op {
        CompareOp::Equal => [false, true, false],
        CompareOp::NotEqual => [true, false, true],
        CompareOp::Less => [true, false, false],
        CompareOp::Greater => [false, false, true],
    }
}

pub async fn every_comparison_with_every_operator(store: Arc<dyn Store>) {
    put(&store, "other", "").await;
    let lease = store.lease_grant(600, Some(LeaseId(50))).await.unwrap().id;
    let create = put(&store, "a", "m").await;
    let modified = does(&store, [Op::put_leased("a", "m", lease)]).await.revision;
    let key = || Bytes::from_static(b"a");
    for op in OPERATORS {
        for (nth, expected) in expected(op).into_iter().enumerate() {
            // The key's own side is less than, equal to, greater than these.
            let version = [3, 2, 1][nth];
            let create = Revision(create.0 + 1 - nth as u64);
            let modified = Revision(modified.0 + 1 - nth as u64);
            let value = Bytes::from(["n", "m", "lzz"][nth]);
            let lease = [Some(LeaseId(51)), Some(LeaseId(50)), None][nth];
            for compare in [
                Compare::new(key(), op, Target::Version(version)),
                Compare::new(key(), op, Target::Create(create)),
                Compare::new(key(), op, Target::Mod(modified)),
                Compare::new(key(), op, Target::Value(value)),
                Compare::new(key(), op, Target::Lease(lease)),
            ] {
                assert_eq!(holds(&store, compare.clone()).await, expected, "{compare:?}");
            }
        }
    }
}

pub async fn a_missing_key_compares_as_zero(store: Arc<dyn Store>) {
    put(&store, "gone", "x").await;
    super::delete(&store, "gone").await;
    for key in ["never", "gone"] {
        assert!(holds(&store, Compare::missing(key)).await);
        assert!(!holds(&store, Compare::exists(key)).await);
        assert!(holds(&store, Compare::mod_is(key, Revision::ZERO)).await);
        assert!(holds(&store, Compare::version_is(key, 0)).await);
        assert!(holds(&store, Compare::new(key, CompareOp::Equal, Target::Lease(None))).await);
        for op in OPERATORS {
            let value = Compare::new(key, op, Target::Value(Bytes::new()));
            assert!(!holds(&store, value).await, "nothing is true of a value that is not there");
        }
    }
}

pub async fn one_of_two_branches_is_taken(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let txn = |value: &'static str| {
        Txn::when([Compare::value_is("a", value), Compare::exists("a")])
            .then([Op::put("then", "")])
            .otherwise([Op::put("otherwise", ""), Op::get("a")])
    };
    let failed = store.txn(txn("2")).await.unwrap();
    assert!(!failed.succeeded);
    assert_eq!(failed.answers.len(), 2);
    assert_eq!(keys(&store, Range::all()).await, ["a", "otherwise"]);
    let succeeded = store.txn(txn("1")).await.unwrap();
    assert!(succeeded.succeeded);
    assert_eq!(succeeded.answers.len(), 1);
    assert_eq!(keys(&store, Range::all()).await, ["a", "otherwise", "then"]);
}

pub async fn comparisons_see_the_state_before_the_outermost(store: Arc<dyn Store>) {
    let inner = Txn::when([Compare::exists("a")]).then([Op::put("seen", "")]).otherwise([Op::put("unseen", "")]);
    let answer = does(&store, [Op::put("a", "1"), Op::Txn(inner)]).await;
    let OpAnswer::Txn(inner) = &answer.answers[1] else { panic!("{answer:?}") };
    assert!(!inner.succeeded);
    assert_eq!(keys(&store, Range::all()).await, ["a", "unseen"]);
}

pub async fn reads_see_the_writes_before_them(store: Arc<dyn Store>) {
    let before = put(&store, "k/1", "old").await;
    let answer = does(
        &store,
        [
            Op::Range(Range::prefix("k/")),
            Op::put("k/2", "new"),
            Op::Range(Range::prefix("k/")),
            Op::delete("k/1"),
            Op::Range(Range::prefix("k/")),
            Op::Range(Range::prefix("k/").at(before)),
            Op::Range(Range::prefix("k/").min_create(before.next()).uncounted()),
        ],
    )
    .await;
    assert_eq!(answer.revision, before.next());
    let found = |nth: usize| {
        let answer: &OpAnswer = &answer.answers[nth];
        range_of(answer).items.iter().map(|kv| super::text(&kv.key)).collect::<Vec<_>>()
    };
    assert_eq!(found(0), ["k/1"]);
    assert_eq!(found(2), ["k/1", "k/2"]);
    assert_eq!(found(4), ["k/2"]);
    assert_eq!(found(5), ["k/1"]);
    assert_eq!(found(6), ["k/2"]);
    assert_eq!(range_of(&answer.answers[0]).revision, before);
    assert_eq!(range_of(&answer.answers[2]).revision, before.next());
    let future = Txn::of([Op::put("x", ""), Op::Range(Range::all().at(before.next().next()))]);
    assert!(matches!(store.txn(future).await, Err(Error::FutureRevision { .. })));
    assert_eq!(get(&store, "x").await, None);
}

pub async fn nested_transactions_answer_nested(store: Arc<dyn Store>) {
    put(&store, "a", "1").await;
    let deepest = Txn::when([Compare::missing("a")]).otherwise([Op::get("a"), Op::put("deep", "1")]);
    let middle = Txn::when([Compare::exists("a")]).then([Op::Txn(deepest), Op::put("middle", "1")]);
    let answer = does(&store, [Op::Txn(middle), Op::get("deep"), Op::put("top", "1")]).await;
    let OpAnswer::Txn(middle) = &answer.answers[0] else { panic!("{answer:?}") };
    let OpAnswer::Txn(deepest) = &middle.answers[0] else { panic!("{answer:?}") };
    assert!(middle.succeeded && !deepest.succeeded);
    assert_eq!(range_of(&deepest.answers[0]).items[0].value, "1");
    assert_eq!(range_of(&answer.answers[1]).count, 1);
    let rows = read(&store, Range::all().min_mod(answer.revision)).await;
    assert_eq!(rows.len(), 3, "all in one revision");
}

async fn refusal(store: &Arc<dyn Store>, txn: Txn) -> Error {
    let before = store.status().await.unwrap().revision;
    let error = store.txn(txn).await.expect_err("a refusal");
    assert_eq!(store.status().await.unwrap().revision, before);
    assert!(error.is_refusal());
    error
}

pub async fn a_key_changes_once(store: Arc<dyn Store>) {
    let nested = |ops: Vec<Op>| Op::Txn(Txn::of(ops));
    for ops in [
        vec![Op::put("a", "1"), Op::put("a", "2")],
        vec![Op::put("a", "1"), Op::delete("a")],
        vec![Op::delete("a"), Op::put("a", "1")],
        vec![Op::delete_prefix(""), Op::put("a", "1")],
        vec![Op::put("a", "1"), nested(vec![Op::put("a", "2")])],
        vec![nested(vec![Op::put("a", "1")]), nested(vec![Op::put("a", "2")])],
    ] {
        let error = refusal(&store, Txn::of(ops)).await;
        assert!(matches!(error, Error::DuplicateKey { key } if key == "a"));
    }
    // A branch that is not taken counts too; the two branches of one transaction do not collide.
    let untaken = Txn::when([Compare::exists("x")]).then([Op::put("a", "1"), Op::put("a", "2")]);
    assert!(matches!(refusal(&store, untaken).await, Error::DuplicateKey { .. }));
    let either = Txn::when([Compare::exists("x")]).then([Op::put("a", "1")]).otherwise([Op::put("a", "2")]);
    store.txn(either.clone()).await.unwrap();
    does(&store, [Op::Txn(either)]).await;
    does(&store, [Op::delete("a"), Op::delete_prefix("a")]).await;
}

pub async fn a_nested_put_may_be_deleted_by_a_later_sibling(store: Arc<dyn Store>) {
    let nested = |op: Op| Op::Txn(Txn::of([op]));
    let before = put(&store, "a", "old").await;
    let mut watcher = super::watching(&store, crate::WatchRequest::key("a").from(before.next()).previous()).await;
    let at = does(&store, [nested(Op::put("a", "new")), nested(Op::delete("a"))]).await.revision;
    put(&store, "z", "").await;
    assert_eq!(get(&store, "a").await, None);
    assert!(read(&store, Range::prefix("a").at(at)).await.is_empty());
    assert_eq!(read(&store, Range::prefix("a").at(before)).await[0].value, "old");
    for mut watcher in [watcher, super::watching(&store, crate::WatchRequest::prefix("a").from(at).previous()).await] {
        let batch = super::next(&mut watcher).await;
        assert_eq!(batch.events.len(), 2);
        assert_eq!(batch.events[0].kv.value, "new");
        assert!(batch.events.iter().all(|event| event.previous.as_ref().unwrap().value == "old"));
    }
    watcher = super::watching(&store, crate::WatchRequest::key("a")).await;
    put(&store, "a", "again").await;
    assert_eq!(super::next(&mut watcher).await.events[0].kv.version, 1);
}

pub async fn requests_beyond_a_limit_are_refused(store: Arc<dyn Store>) {
    let long = Bytes::from(vec![b'k'; KEY_BYTES_MAX]);
    does(&store, [Op::put(long.clone(), "")]).await;
    assert_eq!(read(&store, Range::key(long)).await.len(), 1);
    let longer = Bytes::from(vec![b'k'; KEY_BYTES_MAX + 1]);
    let error = refusal(&store, Txn::of([Op::put(longer.clone(), "")])).await;
    assert!(matches!(error, Error::KeyTooLarge { bytes, max: KEY_BYTES_MAX } if bytes == KEY_BYTES_MAX + 1));
    assert!(matches!(store.range(Range::key(longer.clone())).await, Err(Error::KeyTooLarge { .. })));
    let error = refusal(&store, Txn::when([Compare::missing(longer)])).await;
    assert!(matches!(error, Error::KeyTooLarge { .. }));
    assert!(matches!(refusal(&store, Txn::of([Op::put("", "x")])).await, Error::KeyEmpty));
    assert!(matches!(store.range(Range::key("")).await, Err(Error::KeyEmpty)));
    let value = Bytes::from(vec![0; REQUEST_BYTES_MAX]);
    let error = refusal(&store, Txn::of([Op::put("a", value.clone())])).await;
    assert!(matches!(error, Error::RequestTooLarge { bytes, max: REQUEST_BYTES_MAX } if bytes > REQUEST_BYTES_MAX));
    does(&store, [Op::put("a", value.slice(1..))]).await;
    assert_eq!(get(&store, "a").await.unwrap().value.len(), REQUEST_BYTES_MAX - 1);
    let many: Vec<_> = (0..=TXN_OPS_MAX).map(|n| Op::get(format!("k{n}"))).collect();
    assert!(matches!(refusal(&store, Txn::of(many)).await, Error::TooManyOps { max: TXN_OPS_MAX }));
    let many: Vec<_> = (0..=TXN_OPS_MAX).map(|n| Compare::missing(format!("k{n}"))).collect();
    assert!(matches!(refusal(&store, Txn::when(many)).await, Error::TooManyOps { .. }));
    let limited = Op::Delete { range: Range::prefix("a").limit(1) };
    assert!(matches!(refusal(&store, Txn::of([limited])).await, Error::DeleteOptions));
}

pub async fn a_refused_transaction_changes_nothing(store: Arc<dyn Store>) {
    let newest = put(&store, "a", "1").await;
    let late = Txn::of([
        Op::put("b", "1"),
        Op::delete("a"),
        Op::Txn(Txn::of([Op::put("c", "1"), Op::put_leased("d", "1", LeaseId(99))])),
    ]);
    assert!(matches!(refusal(&store, late).await, Error::LeaseNotFound { id: LeaseId(99) }));
    assert_eq!(keys(&store, Range::all()).await, ["a"]);
    assert_eq!(put(&store, "e", "").await, newest.next());
}

/// As etcd orders them: reasons that puts have in the order of the puts, then reasons that ranges have.
pub async fn the_first_reason_to_refuse_is_told(store: Arc<dyn Store>) {
    let newest = put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    store.compact(newest.next()).await.unwrap();
    let leased = || Op::put_leased("b", "1", LeaseId(99));
    let kept = |lease| {
        let keep = Keep { value: true, lease: false };
        Op::Put { key: Bytes::from_static(b"c"), value: Bytes::new(), lease, keep }
    };
    let past = || Op::Range(Range::key("a").at(newest));
    let future = || Op::Range(Range::key("a").at(Revision(newest.0 + 9)));
    let nested = |op| Op::Txn(Txn::of([op]));
    let told = async |ops: Vec<Op>| refusal(&store, Txn::of(ops)).await;
    assert!(matches!(told(vec![past(), leased()]).await, Error::LeaseNotFound { .. }));
    assert!(matches!(told(vec![past(), nested(leased())]).await, Error::LeaseNotFound { .. }));
    assert!(matches!(told(vec![leased(), kept(None)]).await, Error::LeaseNotFound { .. }));
    assert!(matches!(told(vec![nested(kept(None)), leased()]).await, Error::KeyNotFound { .. }));
    assert!(matches!(told(vec![kept(Some(LeaseId(99)))]).await, Error::KeyNotFound { .. }));
    assert!(matches!(told(vec![nested(past()), future()]).await, Error::Compacted { .. }));
    assert!(matches!(told(vec![future(), past()]).await, Error::FutureRevision { .. }));
}

pub async fn a_transaction_as_large_as_allowed_is_one_revision(store: Arc<dyn Store>) {
    let ops: Vec<_> = (0..TXN_OPS_MAX).map(|n| Op::put(format!("k{n:03}"), format!("{n}"))).collect();
    let when: Vec<_> = (0..TXN_OPS_MAX).map(|n| Compare::missing(format!("k{n:03}"))).collect();
    let answer = store.txn(Txn::when(when).then(ops)).await.unwrap();
    assert_eq!(answer.answers.len(), TXN_OPS_MAX);
    let rows = read(&store, Range::prefix("k")).await;
    assert_eq!(rows.len(), TXN_OPS_MAX);
    assert!(rows.iter().all(|kv| kv.mod_revision == answer.revision));
}

pub async fn a_comparison_of_a_stretch_is_about_every_key_in_it(store: Arc<dyn Store>) {
    does(&store, [Op::put("s/a", "1"), Op::put("s/b", "1"), Op::put("t", "2")]).await;
    let stretch = Range::prefix("s/");
    let every = |op, target| Compare::new("s/", op, target).to(stretch.end.clone());
    let value = |text: &'static str| Target::Value(Bytes::from_static(text.as_bytes()));
    assert!(holds(&store, every(CompareOp::Equal, value("1"))).await);
    assert!(!holds(&store, every(CompareOp::Equal, value("2"))).await);
    does(&store, [Op::put("s/b", "2")]).await;
    assert!(!holds(&store, every(CompareOp::Equal, value("1"))).await, "one differs");
    assert!(holds(&store, every(CompareOp::Greater, Target::Version(0))).await);
    assert!(!holds(&store, every(CompareOp::Greater, Target::Version(1))).await);
    let nobody = |op, target| Compare::new("u/", op, target).to(Range::prefix("u/").end);
    assert!(
        holds(&store, nobody(CompareOp::Equal, Target::Create(Revision::ZERO))).await,
        "no keys are one missing key"
    );
    assert!(!holds(&store, nobody(CompareOp::NotEqual, value("1"))).await, "nothing is true of no value");
    assert!(holds(&store, Compare::new("s/b", CompareOp::Greater, Target::Version(0)).to(RangeEnd::Unbounded)).await);
}

pub async fn a_put_may_keep_the_value_or_the_lease(store: Arc<dyn Store>) {
    let keeping = |value: bool, lease: bool, given: &'static str, to: Option<LeaseId>| Op::Put {
        key: "k".into(),
        value: Bytes::from_static(given.as_bytes()),
        lease: to,
        keep: Keep { value, lease },
    };
    let missing = store.txn(Txn::of([keeping(true, false, "", None)])).await;
    assert!(matches!(missing, Err(Error::KeyNotFound { .. })), "{missing:?}");
    let lease = store.lease_grant(600, None).await.unwrap().id;
    does(&store, [Op::put_leased("k", "v", lease)]).await;
    does(&store, [keeping(true, true, "", None)]).await;
    let kept = get(&store, "k").await.unwrap();
    assert_eq!((&kept.value[..], kept.lease, kept.version), (&b"v"[..], Some(lease), 2));
    does(&store, [keeping(false, true, "w", None)]).await;
    assert_eq!(get(&store, "k").await.unwrap().lease, Some(lease));
    does(&store, [keeping(true, false, "", None)]).await;
    let freed = get(&store, "k").await.unwrap();
    assert_eq!((&freed.value[..], freed.lease), (&b"w"[..], None));
    for both in [keeping(true, false, "x", None), keeping(false, true, "", Some(lease))] {
        assert!(matches!(store.txn(Txn::of([both])).await, Err(Error::KeptAndGiven { .. })));
    }
    let half = store
        .txn(Txn::of([
            Op::put("other", ""),
            Op::Put { key: "none".into(), value: Bytes::new(), lease: None, keep: Keep { value: true, lease: false } },
        ]))
        .await;
    assert!(matches!(half, Err(Error::KeyNotFound { .. })));
    assert!(get(&store, "other").await.is_none(), "a refusal changes nothing");
}
