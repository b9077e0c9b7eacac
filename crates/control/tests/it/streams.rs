//! A kind's own streams: lines of JSON, and a WebSocket.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use http::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::cloud::{self, Cloud, PATIENCE};

type Socket = tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

async fn connect(cloud: &Cloud, token: &str, path: &str) -> Result<Socket, tungstenite::Error> {
    let stream = tokio::net::TcpStream::connect(cloud.handle.addr).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(iam::client_config(&cloud.ca).unwrap()));
    let stream = tls.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let request = http::Request::get(format!("wss://localhost:{}{path}", cloud.handle.addr.port()))
        .header("Authorization", format!("Bearer {token}"))
        .header("Host", "localhost")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", tungstenite::handshake::client::generate_key())
        .body(())
        .unwrap();
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, _)| socket)
}

async fn next(socket: &mut Socket) -> Message {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a message in time").unwrap().unwrap();
        if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
            return message;
        }
    }
}

async fn closed(socket: &mut Socket) -> u16 {
    match next(socket).await {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("{other:?}"),
    }
}

fn talk(cloud: &Cloud) -> String {
    format!("/v1/things/{}/talk", cloud.one.thing.id)
}

#[tokio::test]
async fn lines_are_objects_and_end() {
    let cloud = Cloud::open().await;
    let path = format!("/v1/things/{}/lines", cloud.one.thing.id);
    let answer = cloud.get(&cloud.one.token, &format!("{path}?count=200")).await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> = answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 200);
    assert_eq!(lines[199], json!({"row": cloud.one.thing.id, "number": 199}));
}

#[tokio::test]
async fn lines_that_go_on_end_with_their_token() {
    let cloud = Cloud::open().await;
    let (token, id) = cloud::token(&cloud.door, &cloud.one.scope, "short", json!({})).await;
    let path = format!("/v1/things/{}/lines?count=1&follow=true", cloud.one.thing.id);
    let response = cloud.request(&token, Method::GET, &path).send().await.unwrap();
    let mut pieces = response.bytes_stream();
    assert!(pieces.next().await.unwrap().is_ok());
    assert!(tokio::time::timeout(std::time::Duration::from_millis(1500), pieces.next()).await.is_err(), "it goes on");
    cloud.delete(&cloud.admin, &format!("/v1/tokens/{id}")).await.ok(202);
    let end = tokio::time::timeout(PATIENCE, pieces.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
async fn a_websocket_carries_frames_both_ways() {
    let cloud = Cloud::open().await;
    let mut socket = connect(&cloud, &cloud.one.token, &talk(&cloud)).await.unwrap();
    socket.send(Message::text(json!({"hello": "you"}).to_string())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary(&b"\"you\""[..]));
    // More than fits between the two sides, sent before anything is read.
    let (mut sink, mut source) = socket.split();
    let sending = async {
        for number in 0..1000_u32 {
            sink.send(Message::binary(number.to_be_bytes().to_vec())).await.unwrap();
        }
        sink.send(Message::binary(&b"end"[..])).await.unwrap();
    };
    let receiving = async {
        let mut seen = 0_u32;
        loop {
            match source.next().await.unwrap().unwrap() {
                Message::Binary(frame) => {
                    let expected = [&b"echo "[..], &seen.to_be_bytes()].concat();
                    assert_eq!(frame, expected);
                    seen += 1;
                }
                Message::Close(frame) => return (seen, u16::from(frame.unwrap().code)),
                _ => {}
            }
        }
    };
    let both = async { tokio::join!(sending, receiving) };
    let ((), (seen, code)) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!((seen, code), (1000, 1000));
}

#[tokio::test]
async fn a_websocket_that_cannot_be_says_why() {
    let cloud = Cloud::open().await;
    let path = talk(&cloud);
    let status = |error: tungstenite::Error| match error {
        tungstenite::Error::Http(response) => response.status().as_u16(),
        other => panic!("{other}"),
    };
    assert_eq!(status(connect(&cloud, &cloud.two.token, &path).await.unwrap_err()), 404);
    assert_eq!(status(connect(&cloud, &cloud.one.read_only, &path).await.unwrap_err()), 403);
    assert_eq!(status(connect(&cloud, "", &path).await.unwrap_err()), 401);
    cloud.get(&cloud.one.token, &path).await.problem(426, "invalid_argument");

    for (first, code) in [
        (Message::text("{"), 4400),
        (Message::binary(&b"x"[..]), 4400),
        (Message::text(json!({"refuse": true}).to_string()), 4409),
    ] {
        let mut socket = connect(&cloud, &cloud.one.token, &path).await.unwrap();
        socket.send(first).await.unwrap();
        let Message::Text(problem) = next(&mut socket).await else { panic!("a problem comes first") };
        let problem: Value = serde_json::from_str(&problem).unwrap();
        assert_eq!(problem["status"].as_u64().unwrap() + 4000, code);
        assert_eq!(u64::from(closed(&mut socket).await), code);
    }
    let mut socket = connect(&cloud, &cloud.one.token, &path).await.unwrap();
    socket.send(Message::text("{}")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary(&b"null"[..]));
    socket.send(Message::text("a text after the first")).await.unwrap();
    assert_eq!(closed(&mut socket).await, 1003);
}

#[tokio::test]
async fn a_websocket_ends_with_its_token_and_with_the_service() {
    let cloud = Cloud::open().await;
    let (token, id) = cloud::token(&cloud.door, &cloud.one.scope, "short", json!({})).await;
    let mut sockets = Vec::new();
    for token in [&token, &cloud.one.token] {
        let mut socket = connect(&cloud, token, &talk(&cloud)).await.unwrap();
        socket.send(Message::text("{}")).await.unwrap();
        next(&mut socket).await;
        sockets.push(socket);
    }
    cloud.delete(&cloud.admin, &format!("/v1/tokens/{id}")).await.ok(202);
    assert_eq!(closed(&mut sockets[0]).await, 1001);
    let Cloud { handle, .. } = cloud;
    let stopping = tokio::spawn(handle.shutdown());
    assert_eq!(closed(&mut sockets[1]).await, 1001);
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
}
