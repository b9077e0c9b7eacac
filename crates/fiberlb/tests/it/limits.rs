//! Clients that take more than their share.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::support::*;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_hours(1);

#[tokio::test]
async fn heads_have_a_limit_in_bytes_and_in_lines() {
    let (node, backend) = (Node::new().await, Server::word("ok").await);
    node.serve(&[backend.addr]).await;
    let long = format!("GET / HTTP/1.1\nhost: a.test\nx: {}\n\n", "a".repeat(40_000));
    assert_eq!(ask(node.http, &long).await.status, 431);
    let many = format!("GET / HTTP/1.1\nhost: a.test\n{}\n", "x: 1\n".repeat(101));
    assert_eq!(ask(node.http, &many).await.status, 431);
    let allowed = format!("GET / HTTP/1.1\nhost: a.test\nx: {}\n{}\n", "a".repeat(30_000), "x: 1\n".repeat(90));
    assert_eq!(ask(node.http, &allowed).await.status, 200);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off() {
    let node = Node::with(|limits| (limits.header_timeout, limits.idle_timeout) = (SHORT, LONG)).await;
    let backend = Server::word("ok").await;
    node.serve(&[backend.addr]).await;
    // On a new connection and on a used one.
    for used in [false, true] {
        let mut client = Raw::open(node.http).await;
        if used {
            assert_eq!(client.ask("GET / HTTP/1.1\nhost: a.test\n\n").await.status, 200);
        }
        within("the end of a slow head", async {
            client.write("GET / HTTP/1.1\r\n").await;
            while client.stream.write_all(b"x: 1\r\n").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    // So is the beginning of an HTTP/2 connection.
    let mut client = Raw::open(node.http).await;
    client.write("PRI * HTTP/2.0\r\n").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_connection_at_rest_is_closed_and_one_at_work_is_not() {
    let node = Node::with(|limits| (limits.header_timeout, limits.idle_timeout) = (SHORT, SHORT)).await;
    let backend = Server::http(|_| async {
        sleep(SHORT * 4).await;
        hyper::Response::new(http_body_util::Full::new("late".into()))
    })
    .await;
    node.serve(&[backend.addr]).await;
    assert_eq!(Raw::open(node.http).await.rest().await, "");
    let mut client = Raw::open(node.http).await;
    assert_eq!(client.ask("GET / HTTP/1.1\nhost: a.test\n\n").await.body, "late");
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let node = Node::with(|limits| limits.body_timeout = SHORT).await;
    let backend = Server::echo().await;
    node.serve(&[backend.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert_eq!(client.answer().await.unwrap().code(), "body_timeout");
    eventually("nothing in flight", || node.active() == 0).await;
    assert!(node.status().routes[0].backends[0].healthy, "the client's fault is not the backend's");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_dropped() {
    let node = Node::with(|limits| limits.write_timeout = SHORT).await;
    let backend =
        Server::http(|_| async { hyper::Response::new(http_body_util::Full::new(vec![0; 64 << 20].into())) }).await;
    node.serve(&[backend.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    eventually("the request in flight", || node.active() == 1).await;
    eventually("the client dropped", || node.active() == 0).await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_but_steadily_is_served() {
    const SIZE: usize = 48 << 20;
    let node = Node::with(|limits| limits.write_timeout = Duration::from_secs(2)).await;
    let backend =
        Server::http(|_| async { hyper::Response::new(http_body_util::Full::new(vec![0; SIZE].into())) }).await;
    node.serve(&[backend.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
    client.until("\r\n\r\n").await.unwrap();
    // Twelve pauses, each well below the limit and all together well above.
    for _ in 0..12 {
        sleep(Duration::from_millis(400)).await;
        client.exactly(SIZE / 12).await;
    }
}

#[tokio::test]
async fn one_connection_too_many_is_refused_cleanly() {
    let node = Node::with(|limits| limits.connections_max = 3).await;
    let backend = Server::word("ok").await;
    let port = free_port().await;
    node.routes(vec![http_route("a.test", &[backend.addr]), tcp_route(port.port(), &[backend.addr])]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::open(node.http).await;
        assert_eq!(client.ask("GET / HTTP/1.1\nhost: a.test\n\n").await.status, 200);
        held.push(client);
    }
    for _ in 0..3 {
        let answer = get(node.http, "a.test").await;
        assert_eq!((answer.status, answer.code()), (503, "too_many_connections".into()));
    }
    held.pop();
    within("a free place", async {
        while get(node.http, "a.test").await.status != 200 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Each listener counts for itself; without a language for it the refusal is a close.
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::open(port).await;
        assert_eq!(client.ask("GET / HTTP/1.1\nhost: a.test\n\n").await.body, "ok");
        held.push(client);
    }
    assert_eq!(Raw::open(port).await.rest().await, "");
}
