//! What every engine must do.

use std::sync::Arc;

use pgstore::{Address, Postgres};
use proptest::prelude::*;
use store::conformance::{Subject, history};
use store::{Key, Op, Range, SortBy, SortOrder, Store, Txn};

use crate::server;

async fn subject() -> Result<Subject, String> {
    let server = server::shared()?;
    let address = Address::parse(&server.url(&server::schema())).unwrap();
    Ok(Subject::new(Postgres::open(address).await.unwrap()))
}

store::conformance::suite!(subject);

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_agrees_with_the_model(numbers in proptest::collection::vec(any::<u64>(), 1..300)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            match subject().await {
                Ok(subject) => {
                    let store: Arc<dyn Store> = subject.store.clone();
                    history::play(&store, &numbers).await;
                }
                Err(reason) => println!("skipped: {reason}"),
            }
        });
    }
}

/// Longer than what an index holds of a key, and alike up to there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_keys_that_differ_at_their_end_are_kept_apart_and_in_order() {
    let subject = match subject().await {
        Ok(subject) => subject,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let store = &subject.store;
    let stem: Vec<u8> = history::numbers(7, 500).into_iter().flat_map(u64::to_le_bytes).collect();
    let key = |n: u8| Key::from([&stem[..], &[n; 50]].concat());
    for n in [5, 1, 3, 2, 4] {
        store.txn(Txn::of([Op::put(key(n), "old")])).await.unwrap();
        store.txn(Txn::of([Op::put(key(n), n.to_string())])).await.unwrap();
    }
    let gone = store.txn(Txn::of([Op::delete(key(2))])).await.unwrap().revision;
    let values = async |range: Range| -> Vec<String> {
        store
            .range(range)
            .await
            .unwrap()
            .items
            .into_iter()
            .map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
            .collect()
    };
    let stem = Key::from(stem.clone());
    assert_eq!(values(Range::prefix(stem.clone())).await, ["1", "3", "4", "5"]);
    assert_eq!(values(Range::prefix(stem.clone()).limit(2)).await, ["1", "3"]);
    let down = Range::prefix(stem.clone()).sort(SortBy::Key, SortOrder::Descend).limit(2);
    assert_eq!(values(down).await, ["5", "4"]);
    assert_eq!(values(Range::between(key(2), key(4))).await, ["3"]);
    assert_eq!(values(Range::key(key(4))).await, ["4"]);
    assert_eq!(values(Range::prefix(stem).at(gone.before()).limit(2)).await, ["1", "2"]);
    assert_eq!(values(Range::key(key(2))).await, Vec::<String>::new());
}
