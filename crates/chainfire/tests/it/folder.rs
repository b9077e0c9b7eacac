//! What may lie where the store should be.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chainfire::{Embedded, Options};
use store::{Error, Op, Range, Store, Txn};

async fn open(dir: &Path) -> Result<Embedded, Error> {
    Embedded::open(dir, Options::default()).await
}

fn refused(opened: Result<Embedded, Error>) -> Error {
    match opened {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn one_store_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    assert!(matches!(refused(open(dir.path()).await), Error::Locked { path } if path == dir.path()));
    store.txn(Txn::of([Op::put("a", "1")])).await.unwrap();
    store.close().await.unwrap();
    let store = open(dir.path()).await.unwrap();
    // Dropping frees the folder too, even while a watcher lives.
    let mut watcher = store.watch(store::WatchRequest::prefix("")).await.unwrap();
    drop(store);
    assert!(watcher.next().await.unwrap().is_none());
    let store = open(dir.path()).await.unwrap();
    assert_eq!(store.range(Range::key("a")).await.unwrap().items[0].value, "1");
}

#[tokio::test]
async fn a_new_folder_is_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/down");
    open(&path).await.unwrap().close().await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for file in std::fs::read_dir(&path).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(refused(open(&file).await), Error::Storage { .. }));
    assert!(matches!(refused(open(&file.join("below")).await), Error::Storage { .. }));
}

#[tokio::test]
async fn an_unfinished_database_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chainfire.redb.new"), "half of one").unwrap();
    let store = open(dir.path()).await.unwrap();
    store.txn(Txn::of([Op::put("a", "1")])).await.unwrap();
    store.close().await.unwrap();
    assert!(!dir.path().join("chainfire.redb.new").exists());
}

#[tokio::test]
async fn what_is_not_a_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chainfire.redb");
    for content in [vec![], vec![b'x'], vec![7; 10_000], vec![0; 2_000_000]] {
        std::fs::write(&path, &content).unwrap();
        let error = refused(open(dir.path()).await);
        assert!(matches!(&error, Error::Corrupt { path: named, .. } if *named == path), "{error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), content, "not touched");
    }
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = redb::Database::create(dir.path().join("chainfire.redb")).unwrap();
    let write = other.begin_write().unwrap();
    write.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).unwrap();
    write.commit().unwrap();
    drop(other);
    assert!(matches!(refused(open(dir.path()).await), Error::Corrupt { .. }));
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.unwrap().close().await.unwrap();
    let database = redb::Database::open(dir.path().join("chainfire.redb")).unwrap();
    let write = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    write.open_table(meta).unwrap().insert("format", 2).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(refused(open(dir.path()).await), Error::FormatUnknown { found: 2, known: 1, .. }));
}
