//! What every engine must do.

use std::sync::Arc;

use chainfire::{Embedded, Options};
use proptest::prelude::*;
use store::Store;
use store::conformance::{Subject, history};

use crate::disk::Disk;

async fn subject() -> Subject {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Embedded::open(dir.path(), Options::default()).await.expect("a new store");
    Subject::holding(store, dir)
}

store::conformance::suite!(subject);

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_agrees_with_the_model(numbers in proptest::collection::vec(any::<u64>(), 1..300)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let disk = Disk::new();
            let backend = move || disk.attach();
            let store: Arc<dyn Store> = Arc::new(Embedded::open_on(backend, Options::default()).unwrap());
            history::play(&store, &numbers).await;
        });
    }
}
