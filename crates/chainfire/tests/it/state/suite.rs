//! What every engine must do, on disk and in memory.

use std::sync::Arc;

use chainfire::state::{Image, Options, Place};
use proptest::prelude::*;
use store::Store;
use store::conformance::{Subject, history};

use super::driver::{Driver, tiny};

mod on_disk {
    use super::*;

    async fn subject() -> Subject {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Driver::open(&Place::Folder(dir.path().to_path_buf()), tiny());
        Subject::holding(store, dir)
    }

    store::conformance::suite!(subject);
}

mod in_memory {
    use super::*;

    async fn subject() -> Subject {
        Subject::new(Driver::open(&Place::Memory(Image::default()), Options::default()))
    }

    store::conformance::suite!(subject);
}

fn play(numbers: &[u64], place: &Place) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(Driver::open(place, tiny()));
        history::play(&store, numbers).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_agrees_with_the_model_in_memory(numbers in proptest::collection::vec(any::<u64>(), 1..400)) {
        play(&numbers, &Place::Memory(Image::default()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_agrees_with_the_model_on_disk(numbers in proptest::collection::vec(any::<u64>(), 1..400)) {
        let dir = tempfile::tempdir().unwrap();
        play(&numbers, &Place::Folder(dir.path().to_path_buf()));
    }
}
