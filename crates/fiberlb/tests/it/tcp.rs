//! TCP by port.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// Reads to the end, then answers how much it was.
async fn counting() -> Server {
    Server::raw(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let _ = stream.write_all(format!("got {}", all.len()).as_bytes()).await;
    })
    .await
}

async fn echo() -> Server {
    Server::raw(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

#[tokio::test]
async fn an_end_on_one_side_is_passed_on_while_the_other_still_speaks() {
    let (node, backend, port) = (Node::new().await, counting().await, free_port().await);
    node.routes(vec![tcp_route(port.port(), &[backend.addr])]).await;
    let mut client = Raw::open(port).await;
    client.write(vec![1; 1_000_000]).await;
    eventually("the connection in flight", || node.active() == 1).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "got 1000000");
    eventually("none in flight", || node.active() == 0).await;
}

#[tokio::test]
async fn listeners_come_and_go_and_connections_stay() {
    let (node, backend, first, second) = (Node::new().await, echo().await, free_port().await, free_port().await);
    node.routes(vec![tcp_route(first.port(), &[backend.addr])]).await;
    let mut client = Raw::open(first).await;
    client.write("one").await;
    assert_eq!(client.exactly(3).await, "one");
    for _ in 0..5 {
        node.routes(vec![tcp_route(second.port(), &[backend.addr])]).await;
        assert!(TcpStream::connect(first).await.is_err());
        assert!(TcpStream::connect(second).await.is_ok());
        node.routes(vec![tcp_route(first.port(), &[backend.addr])]).await;
        assert!(TcpStream::connect(first).await.is_ok());
        assert!(TcpStream::connect(second).await.is_err());
    }
    client.write("two").await;
    assert_eq!(client.exactly(3).await, "two");
    drop(client);
    eventually("nothing in flight", || node.active() == 0).await;
}

#[tokio::test]
async fn a_connection_to_a_removed_backend_is_cut_at_the_limit() {
    let node = Node::with(|limits| limits.drain_timeout = Duration::from_millis(500)).await;
    let (backend, port) = (echo().await, free_port().await);
    node.routes(vec![tcp_route(port.port(), &[backend.addr])]).await;
    let mut client = Raw::open(port).await;
    client.write("one").await;
    assert_eq!(client.exactly(3).await, "one");
    node.routes(vec![]).await;
    assert!(node.lines()[0].ends_with("1 draining"));
    assert_eq!(client.rest().await, "");
    eventually("an empty list", || node.lines().is_empty()).await;
}

#[tokio::test]
async fn a_backend_that_refuses_is_passed_over() {
    let (node, backend, dead, port) = (Node::new().await, counting().await, free_port().await, free_port().await);
    node.routes(vec![tcp_route(port.port(), &[dead, backend.addr])]).await;
    for _ in 0..4 {
        let mut client = Raw::open(port).await;
        client.write("abc").await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, "got 3");
    }
    assert!(node.lines()[0].ends_with("ill"));
    node.routes(vec![tcp_route(port.port(), &[])]).await;
    assert_eq!(Raw::open(port).await.rest().await, "");
}

#[tokio::test]
async fn a_taken_port_is_the_problem_of_its_route_alone_until_it_is_free() {
    let (node, backend) = (Node::new().await, echo().await);
    let holder = TcpListener::bind(any_port()).await.unwrap();
    let port = holder.local_addr().unwrap();
    node.routes(vec![tcp_route(port.port(), &[backend.addr]), http_route("a.test", &[])]).await;
    let status = node.status();
    let problem = status.routes[0].problem.as_deref().unwrap();
    assert!(problem.contains(&port.to_string()) && problem.contains("ingress.tcp_bind"), "{problem}");
    assert_eq!(status.routes[1].problem, None);
    assert_eq!(get(node.http, "a.test").await.code(), "no_backend");
    drop(holder);
    eventually("the port opened", || node.status().routes[0].problem.is_none()).await;
    let mut client = Raw::open(port).await;
    client.write("one").await;
    assert_eq!(client.exactly(3).await, "one");
}
