//! Removing a backend: nothing new, and what runs may finish.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::support::*;

/// Answers `word` in two halves; the second when the gate lets it.
async fn gated(gate: Arc<Semaphore>) -> Server {
    Server::raw(move |mut stream| {
        let gate = Arc::clone(&gate);
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nfirst").await.unwrap();
            gate.acquire().await.unwrap().forget();
            let _ = stream.write_all(b"end").await;
            let _ = stream.read(&mut [0; 1]).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_request_in_flight_finishes_and_its_end_is_announced() {
    let node = Node::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let (old, new) = (gated(Arc::clone(&gate)).await, Server::word("new").await);
    node.serve(&[old.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    client.until("first").await.unwrap();

    node.serve(&[new.addr]).await;
    let (old_port, new_port) = (old.addr.port(), new.addr.port());
    assert_eq!(node.lines(), [format!("http a.test {new_port} 0"), format!("http a.test {old_port} 1 draining")]);
    for _ in 0..5 {
        assert_eq!(get(node.http, "a.test").await.body, "new");
    }
    // A removed route is listed as long as something of it drains.
    node.routes(vec![]).await;
    let status = node.status();
    assert!(status.routes.len() == 1 && status.routes[0].removed, "{status:?}");

    let mut changes = node.handle.changes();
    gate.add_permits(1);
    assert_eq!(client.exactly(3).await, "end");
    within("the announcement", changes.changed()).await.unwrap();
    assert_eq!(node.status().routes, []);
}

#[tokio::test]
async fn unused_connections_to_a_removed_backend_are_closed_at_once() {
    let node = Node::new().await;
    let (closed, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let backend = Server::raw(move |mut stream| {
        let closed = closed.clone();
        async move {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if buffer[..count].starts_with(b"GET /hold") {
                    std::future::pending::<()>().await;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
            let _ = closed.send(());
        }
    })
    .await;
    node.serve(&[backend.addr]).await;
    let mut held = Raw::open(node.http).await;
    held.write("GET /hold HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    eventually("the held request", || backend.connections() == 1).await;
    assert_eq!(get(node.http, "a.test").await.status, 200);
    assert!(ends.try_recv().is_err());
    node.serve(&[]).await;
    within("the close", ends.recv()).await.unwrap();
    assert_eq!(node.active(), 1, "the other request goes on");
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_at_the_limit() {
    let node = Node::with(|limits| limits.drain_timeout = Duration::from_millis(500)).await;
    let gate = Arc::new(Semaphore::new(0));
    let old = gated(Arc::clone(&gate)).await;
    node.serve(&[old.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    client.until("first").await.unwrap();
    node.serve(&[]).await;
    assert_eq!(client.rest().await, "");
    eventually("an empty list", || node.lines().is_empty()).await;
}

#[tokio::test]
async fn a_repeatable_request_that_waits_at_the_limit_is_answered_by_another() {
    let node = Node::with(|limits| limits.drain_timeout = Duration::from_millis(500)).await;
    let silent = Server::raw(|stream| async move {
        let _keep = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let new = Server::word("new").await;
    node.serve(&[silent.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    eventually("the request in flight", || node.active() == 1).await;
    node.serve(&[new.addr]).await;
    assert_eq!(client.answer().await.unwrap().body, "new");
}

#[tokio::test]
async fn a_backend_known_to_be_dead_is_cut_at_once() {
    let node = Node::with(|limits| limits.drain_timeout = Duration::from_hours(1)).await;
    let silent = Server::raw(|stream| async move {
        let _keep = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let new = Server::word("new").await;
    node.serve(&[silent.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    eventually("the request in flight", || node.active() == 1).await;
    let id = format!("vm_{}", silent.addr.port());
    assert!(!node.handle.cut("http a.test", &id), "it is not draining");
    node.serve(&[new.addr]).await;
    assert!(node.handle.cut("http a.test", &id));
    assert_eq!(client.answer().await.unwrap().body, "new");
    assert!(!node.handle.cut("http a.test", &id));
}

#[tokio::test]
async fn closing_lets_what_runs_finish() {
    let node = Node::with(|limits| limits.drain_timeout = Duration::from_hours(1)).await;
    let gate = Arc::new(Semaphore::new(0));
    let old = gated(Arc::clone(&gate)).await;
    // A connection to this one waits unused; it must not be waited for.
    let other = Server::word("other").await;
    node.routes(vec![http_route("a.test", &[old.addr]), http_route("b.test", &[other.addr])]).await;
    assert_eq!(get(node.http, "b.test").await.body, "other");
    let mut client = Raw::open(node.http).await;
    client.write("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    client.until("first").await.unwrap();
    let idle = Raw::open(node.http).await;
    let handle = node.handle.clone();
    let closing = tokio::spawn(async move { handle.close().await });
    within("a closed listener", async {
        while tokio::net::TcpStream::connect(node.http).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!closing.is_finished());
    gate.add_permits(1);
    assert_eq!(client.exactly(3).await, "end");
    within("the close", closing).await.unwrap();
    drop(idle);
    let error = node.handle.apply(fiberlb::Desired { generation: 99, routes: vec![] }).await.unwrap_err();
    assert_eq!(error.code(), "ingress_closed");
}
