//! A database that runs out of room.

use std::sync::Arc;

use store::{Error, Op, Range, Store, Txn};

use crate::server::Server;
use crate::workload::{get, open, put};

const VALUE_BYTES: usize = 200 * 1024;

fn value(n: u64) -> Vec<u8> {
    // Nothing that the database could compress.
    store::conformance::history::numbers(n, VALUE_BYTES / 8).into_iter().flat_map(u64::to_le_bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_until_there_is_room_again() {
    let server = match Server::start_with_small_disk() {
        Ok(server) => Arc::new(server),
        Err(reason) => return println!("skipped: {reason}"),
    };
    let admin = server.admin().await;
    let small = server.small_disk();
    admin.batch_execute(&format!("CREATE TABLESPACE small LOCATION '{}'", small.display())).await.unwrap();
    admin.batch_execute("CREATE DATABASE small TABLESPACE small").await.unwrap();
    let url = server.url_as("photon", "", "small", "sslmode=disable");
    let store = open(&url).await;
    put(&*store, "first", "1").await;
    let mut written = 0;
    let error = loop {
        match store.txn(Txn::of([Op::put(format!("k/{written}"), value(written))])).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the disk is small");
    };
    assert!(matches!(error, Error::DiskFull), "{error:?}");
    assert_eq!(store.range(Range::prefix("k/").count_only()).await.unwrap().count, written, "nothing was changed");
    assert_eq!(get(&*store, "first").await, Some("1".into()), "reads go on");
    let acting = server.clone();
    tokio::task::spawn_blocking(move || acting.make_room()).await.unwrap();
    store.txn(Txn::of([Op::put(format!("k/{written}"), value(written))])).await.unwrap();
    let row = store.range(Range::key(format!("k/{written}"))).await.unwrap().items.remove(0);
    assert_eq!(row.value, value(written));
}
