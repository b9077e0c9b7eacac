//! What a request survives, and what is never sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

const POST: &str = "POST / HTTP/1.1\nhost: a.test\ncontent-length: 4\n\nbody";
const GET: &str = "GET / HTTP/1.1\nhost: a.test\n\n";

#[tokio::test]
async fn a_backend_that_refuses_is_passed_over_and_avoided() {
    let (node, good, dead) = (Node::new().await, Server::word("good").await, free_port().await);
    node.serve(&[dead, good.addr]).await;
    let changes = node.handle.changes();
    for request in [POST, GET, POST, GET] {
        let answer = ask(node.http, request).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "good"));
    }
    let backends = node.status().routes.remove(0).backends;
    assert!(!backends[0].healthy && backends[0].ejected_until_ms.is_some() && backends[1].healthy);
    assert!(changes.has_changed().unwrap());

    // Once it listens it is taken back.
    let listener = tokio::net::TcpListener::bind(dead).await.unwrap();
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nback").await;
        }
    });
    within("the return of the backend", async {
        while get(node.http, "a.test").await.body != "back" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(node.status().routes[0].backends[0].healthy);
    answering.abort();
}

#[tokio::test]
async fn the_last_backend_is_tried_even_after_it_failed() {
    let (node, dead) = (Node::new().await, free_port().await);
    node.serve(&[dead]).await;
    for _ in 0..3 {
        assert_eq!(get(node.http, "a.test").await.code(), "backend_unreachable");
    }
    assert!(!node.status().routes[0].backends[0].healthy);
    let listener = tokio::net::TcpListener::bind(dead).await.unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    });
    assert_eq!(get(node.http, "a.test").await.body, "ok");
    assert!(node.status().routes[0].backends[0].healthy);
    answering.await.unwrap();
}

/// Answers the first request of each connection and closes it when the second has arrived, without an answer.
async fn forgetful(seen: Arc<AtomicUsize>) -> Server {
    Server::raw(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            let mut buffer = [0; 4096];
            if let Ok(1..) = stream.read(&mut buffer).await {
                seen.fetch_add(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                if let Ok(1..) = stream.read(&mut buffer).await {
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_that_dies_costs_a_repeatable_request_nothing() {
    let node = Node::new().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let backend = forgetful(Arc::clone(&seen)).await;
    node.serve(&[backend.addr]).await;
    let mut client = Raw::open(node.http).await;
    for _ in 0..10 {
        assert_eq!(client.ask(GET).await.body, "ok");
        assert_eq!(client.ask("DELETE / HTTP/1.1\nhost: a.test\n\n").await.body, "ok");
        client = Raw::open(node.http).await;
    }
    // It was the connection's fault, not the backend's.
    assert_eq!(node.lines(), [format!("http a.test {} 0", backend.addr.port())]);
    assert!(seen.load(Ordering::SeqCst) > 20, "no kept connection was ever used");
}

#[tokio::test]
async fn a_request_that_must_not_be_repeated_is_sent_once_and_not_on_an_old_connection() {
    let node = Node::new().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let backend = forgetful(Arc::clone(&seen)).await;
    node.serve(&[backend.addr]).await;
    assert_eq!(get(node.http, "a.test").await.body, "ok");
    tokio::time::sleep(Duration::from_millis(700)).await;
    // The connection that waits is too old for this one.
    assert_eq!(ask(node.http, POST).await.body, "ok");
    assert_eq!((seen.load(Ordering::SeqCst), backend.connections()), (2, 2));
}

#[tokio::test]
async fn a_backend_that_breaks_off_gets_a_post_once_and_a_get_goes_elsewhere() {
    let node = Node::new().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let rude = async || {
        let counter = Arc::clone(&seen);
        Server::raw(move |mut stream| {
            let counter = Arc::clone(&counter);
            async move {
                if let Ok(1..) = stream.read(&mut [0; 4096]).await {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .await
    };
    let (rude, other) = (rude().await, rude().await);
    node.serve(&[rude.addr, other.addr]).await;
    assert_eq!(ask(node.http, POST).await.code(), "backend_failed");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    assert_eq!(ask(node.http, "POST / HTTP/1.1\nhost: a.test\ncontent-length: 0\n\n").await.code(), "backend_failed");
    assert_eq!(seen.load(Ordering::SeqCst), 2);

    let good = Server::word("good").await;
    for _ in 0..2 {
        node.serve(&[]).await;
        node.serve(&[rude.addr, good.addr]).await;
        assert_eq!(get(node.http, "a.test").await.body, "good");
    }
}

#[tokio::test]
async fn requests_go_round() {
    let node = Node::new().await;
    let backends = [Server::word("0").await, Server::word("1").await, Server::word("2").await];
    node.serve(&backends.each_ref().map(|one| one.addr)).await;
    let mut counts = [0; 3];
    for _ in 0..30 {
        counts[get(node.http, "a.test").await.body.parse::<usize>().unwrap()] += 1;
    }
    assert_eq!(counts, [10; 3]);
}
