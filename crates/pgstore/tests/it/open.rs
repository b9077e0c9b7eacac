//! What is refused at the door, and what makes a store end.

use futures::future::join_all;
use pgstore::{Address, FORMAT, OpenError, Postgres};
use store::{Error, Range, Revision, Store, WatchRequest};

use crate::server::{self, Server};
use crate::several::server_or_skip;
use crate::workload::{get, next, open, put};

async fn refused(url: &str) -> OpenError {
    match Postgres::open(Address::parse(url).unwrap()).await {
        Ok(_) => panic!("opened {url}"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_is_told_why() {
    let server = server_or_skip!();
    server.guarded().await;
    let schema = server::schema();
    let options = format!("schema={schema}&sslmode=disable");
    let guarded = server.url_as(server::GUARDED, server::PASSWORD, "postgres", &options);
    put(&*open(&guarded).await, "k", "v").await;
    let error = refused(&server.url_as(server::GUARDED, "wrong", "postgres", "sslmode=disable")).await;
    assert!(matches!(&error, OpenError::Denied { reason } if reason.contains("password")), "{error}");
    let error = refused(&server.url_as("photon", "", "nowhere", "sslmode=disable")).await;
    assert!(matches!(&error, OpenError::Denied { reason } if reason.contains("\"nowhere\"")), "{error}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = refused(&format!("postgres://me:secret@127.0.0.1:{free}/db")).await;
    assert!(matches!(&error, OpenError::Connect { reason } if reason.contains("refused")), "{error}");
    assert!(!format!("{error:?}").contains("secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_somebody_else_is_left_alone() {
    let server = server_or_skip!();
    let admin = server.admin().await;
    let schema = server::schema();
    admin.batch_execute(&format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.head (newest int)")).await.unwrap();
    let error = refused(&server.url(&schema)).await;
    assert!(matches!(error, OpenError::Foreign { schema: named } if named == schema));
    let tables = format!("SELECT count(*) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace");
    assert_eq!(admin.query_one(&tables, &[]).await.unwrap().get::<_, i64>(0), 1, "nothing was added");
    // An empty one, made by whoever runs the database, is for the store.
    let empty = server::schema();
    admin.batch_execute(&format!("CREATE SCHEMA {empty}")).await.unwrap();
    put(&*open(&server.url(&empty)).await, "k", "v").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_format_is_refused_at_the_door_and_in_the_middle() {
    let server = server_or_skip!();
    let schema = server::schema();
    let store = open(&server.url(&schema)).await;
    let at = put(&*store, "k", "v").await;
    let admin = server.admin().await;
    admin.batch_execute(&format!("UPDATE {schema}.head SET format = {}", FORMAT + 1)).await.unwrap();
    let error = refused(&server.url(&schema)).await;
    assert!(matches!(error, OpenError::Format { found, known: FORMAT, .. } if found == FORMAT + 1));
    let error = store.txn(store::Txn::of([store::Op::put("k", "w")])).await.unwrap_err();
    assert!(matches!(error, Error::Storage { .. }), "{error}");
    admin.batch_execute(&format!("UPDATE {schema}.head SET format = {FORMAT}")).await.unwrap();
    assert_eq!(put(&*store, "k", "x").await, at.next(), "nothing was written meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_open_at_once_open_the_same_store() {
    let server = server_or_skip!();
    let url = server.url(&server::schema());
    let stores = join_all((0..8).map(|_| open(&url))).await;
    for (n, store) in stores.iter().enumerate() {
        assert_eq!(put(&**store, "k", &n.to_string()).await, Revision(n as u64 + 2));
    }
    let again = open(&url).await;
    assert_eq!(get(&*again, "k").await, Some("7".into()), "it is all there the next time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_went_back_ends_the_store() {
    let server = server_or_skip!();
    let schema = server::schema();
    let store = open(&server.url(&schema)).await;
    let mut watcher = store.watch(WatchRequest::key("k")).await.unwrap();
    put(&*store, "k", "1").await;
    let second = put(&*store, "k", "2").await;
    while next(&mut watcher).await.unwrap().unwrap().revision < second {}
    let admin = server.admin().await;
    // As a backup leaves it that was made before the last commit.
    admin.batch_execute(&format!("UPDATE {schema}.head SET newest = newest - 1")).await.unwrap();
    let error = store.range(Range::key("k")).await.unwrap_err();
    assert!(!error.is_refusal() && matches!(error, Error::Storage { .. }), "{error}");
    assert!(store.txn(store::Txn::of([store::Op::put("k", "3")])).await.is_err());
    assert!(next(&mut watcher).await.unwrap().is_none(), "watchers end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_store_in_its_place_is_not_taken_for_it() {
    let server = server_or_skip!();
    let schema = server::schema();
    let url = server.url(&schema);
    let store = open(&url).await;
    put(&*store, "k", "1").await;
    let admin = server.admin().await;
    admin.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
    let other = open(&url).await;
    for n in 0..5 {
        put(&*other, "k", &n.to_string()).await;
    }
    assert!(store.txn(store::Txn::of([store::Op::put("k", "lost")])).await.is_err());
    assert_eq!(get(&*other, "k").await, Some("4".into()));
    assert_eq!(other.status().await.unwrap().revision, Revision(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_is_refused() {
    let server = match Server::start("") {
        Ok(server) => server,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let admin = server.admin().await;
    admin.batch_execute("ALTER DATABASE postgres SET default_transaction_read_only = on").await.unwrap();
    assert!(matches!(refused(&server.url("cloud")).await, OpenError::ReadOnly));
    admin.batch_execute("SET default_transaction_read_only = off; ALTER DATABASE postgres RESET ALL").await.unwrap();
    drop(admin);
    drop(open(&server.url("cloud")).await);
    server.stop();
    std::fs::write(server.dir().join("data/standby.signal"), "").unwrap();
    server.run();
    let error = refused(&server.url("cloud")).await;
    assert!(matches!(error, OpenError::Standby), "{error}");
}
