//! WebSocket and other tunnels behind an HTTP upgrade.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::support::*;

async fn echo() -> Server {
    Server::raw(|stream| async move {
        let Ok(mut socket) = accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn connect(node: &Node) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(node.http).await.unwrap();
    within("a handshake", client_async("ws://a.test/chat?x=1", stream)).await.unwrap().0
}

async fn round(socket: &mut WebSocketStream<TcpStream>, message: Message) {
    socket.send(message.clone()).await.unwrap();
    assert_eq!(within("an echo", socket.next()).await.unwrap().unwrap(), message);
}

#[tokio::test]
async fn messages_go_both_ways_and_the_tunnel_is_in_flight() {
    let (node, backend) = (Node::with(|limits| limits.idle_timeout = Duration::from_millis(200)).await, echo().await);
    node.serve(&[backend.addr]).await;
    let mut first = connect(&node).await;
    let mut second = connect(&node).await;
    assert_eq!(node.active(), 2);
    round(&mut first, Message::text("hello")).await;
    round(&mut second, Message::binary(vec![7; 300_000])).await;
    // Silence is allowed in a tunnel, for longer than between requests.
    tokio::time::sleep(Duration::from_millis(600)).await;
    round(&mut first, Message::text("still here")).await;
    first.close(None).await.unwrap();
    while first.next().await.is_some() {}
    drop(first);
    eventually("one in flight", || node.active() == 1).await;
    drop(second);
    eventually("none in flight", || node.active() == 0).await;
}

#[tokio::test]
async fn a_tunnel_to_a_removed_backend_goes_on_until_the_limit() {
    let node = Node::with(|limits| limits.drain_timeout = Duration::from_secs(2)).await;
    let backend = echo().await;
    node.serve(&[backend.addr]).await;
    let mut socket = connect(&node).await;
    node.serve(&[]).await;
    let line = format!("http a.test {} 1 draining", backend.addr.port());
    assert_eq!(node.lines(), [line]);
    round(&mut socket, Message::text("still here")).await;
    let mut changes = node.handle.changes();
    within("the cut", changes.changed()).await.unwrap();
    assert!(node.lines().is_empty());
    within("the end of the tunnel", async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

#[tokio::test]
async fn a_backend_that_declines_answers_as_usual() {
    let (node, backend) = (Node::new().await, Server::echo().await);
    node.serve(&[backend.addr]).await;
    let answer = ask(node.http, "GET /x HTTP/1.1\nhost: a.test\nconnection: upgrade\nupgrade: websocket\n\n").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("\nupgrade: websocket\n") && answer.body.contains("\nconnection: upgrade\n"));
    let answer = ask(node.http, "GET /x HTTP/1.1\nhost: a.test\nconnection: upgrade\nupgrade: h2c\n\n").await;
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("upgrade"), "{}", answer.body);
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for_is_not_passed_on() {
    let node = Node::new().await;
    let backend = Server::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        let _ = stream.write_all(answer).await;
        let _ = stream.read(&mut [0; 1]).await;
    })
    .await;
    node.serve(&[backend.addr]).await;
    assert_eq!(get(node.http, "a.test").await.code(), "backend_failed");
    eventually("none in flight", || node.active() == 0).await;
}
