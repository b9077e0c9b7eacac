//! What passes through the HTTP proxy, and what it answers itself.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

#[tokio::test]
async fn a_request_arrives_as_it_was_sent_less_what_is_for_one_hop() {
    let (node, backend) = (Node::new().await, Server::echo().await);
    node.serve(&[backend.addr]).await;
    let answer = ask(
        node.http,
        "PUT /p/%2e?q=1&r HTTP/1.1\nhost: A.Test:8080\ncontent-length: 5\nx-mine: 1\nconnection: x-hop\nx-hop: 1\n\
         x-forwarded-for: 6.6.6.6\nx-real-ip: 6.6.6.6\nte: trailers\n\nhello",
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.body,
        "PUT /p/%2e?q=1&r HTTP/1.1\ncontent-length: 5\nhost: A.Test:8080\nx-forwarded-for: 127.0.0.1\n\
         x-forwarded-host: A.Test:8080\nx-forwarded-proto: http\nx-mine: 1\n\nhello"
    );
}

#[tokio::test]
async fn an_absolute_request_line_wins_over_the_host_header() {
    let (node, backend) = (Node::new().await, Server::echo().await);
    node.serve(&[backend.addr]).await;
    let answer = ask(node.http, "GET http://a.test/x?y HTTP/1.1\nhost: other.test\n\n").await;
    assert!(answer.body.starts_with("GET /x?y HTTP/1.1\nhost: a.test\n"), "{}", answer.body);
    assert_eq!(ask(node.http, "GET http://b.test/ HTTP/1.1\nhost: a.test\n\n").await.code(), "unknown_host");
    let answer = ask(node.http, "OPTIONS * HTTP/1.1\nhost: a.test\n\n").await;
    assert!(answer.body.starts_with("OPTIONS * HTTP/1.1\n"), "{}", answer.body);
}

#[tokio::test]
async fn the_ingress_explains_what_it_cannot_serve() {
    let node = Node::with(|limits| limits.response_timeout = Duration::from_millis(300)).await;
    let silent = Server::raw(|stream| async move {
        let _keep = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let rude = Server::raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let dead = free_port().await;
    node.routes(vec![
        http_route("empty.test", &[]),
        http_route("silent.test", &[silent.addr]),
        http_route("rude.test", &[rude.addr]),
        http_route("dead.test", &[dead]),
    ])
    .await;
    for (host, status, code) in [
        ("nobody.test", 404, "unknown_host"),
        ("127.0.0.1", 404, "unknown_host"),
        ("empty.test", 503, "no_backend"),
        ("silent.test", 504, "backend_timeout"),
        ("rude.test", 502, "backend_failed"),
        ("dead.test", 502, "backend_unreachable"),
        ("a b", 400, "bad_host"),
    ] {
        let answer = get(node.http, host).await;
        assert_eq!((answer.status, answer.code()), (status, code.into()), "{host}");
        assert_eq!(answer.header("retry-after").is_some(), matches!(code, "no_backend" | "backend_unreachable"));
    }
    assert_eq!(ask(node.http, "GET / HTTP/1.1\n\n").await.code(), "bad_host");
    assert_eq!(ask(node.http, "GET / HTTP/1.0\n\n").await.code(), "bad_host");
    assert_eq!(ask(node.http, "CONNECT a.test:80 HTTP/1.1\nhost: a.test:80\n\n").await.code(), "connect_not_allowed");
    // A body that nobody reads does not stop the answer.
    let answer = ask(node.http, "POST / HTTP/1.1\nhost: nobody.test\ncontent-length: 3\n\nabc").await;
    assert_eq!(answer.code(), "unknown_host");
    assert_eq!(node.active(), 0);
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let (node, backend) = (Node::new().await, Server::echo().await);
    node.serve(&[backend.addr]).await;
    let mut client = Raw::open(node.http).await;
    for _ in 0..20 {
        assert_eq!(client.ask("GET / HTTP/1.1\nhost: a.test\n\n").await.status, 200);
    }
    // Several clients one after the other share it as well.
    for _ in 0..5 {
        assert_eq!(get(node.http, "a.test").await.status, 200);
    }
    assert!(backend.connections() <= 2, "{}", backend.connections());
    // Two requests in one segment are answered in order.
    client.write("GET /1 HTTP/1.1\r\nhost: a.test\r\n\r\nGET /2 HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    assert!(client.answer().await.unwrap().body.starts_with("GET /1 "));
    assert!(client.answer().await.unwrap().body.starts_with("GET /2 "));
    // A client of HTTP/1.0 gets its connection closed.
    let mut old = Raw::open(node.http).await;
    old.write("GET / HTTP/1.0\r\nhost: a.test\r\n\r\n").await;
    assert!(old.rest().await.contains("GET / HTTP/1.1\n"));
}

#[tokio::test]
async fn bodies_stream_both_ways_without_being_collected() {
    let node = Node::new().await;
    // Reads the head, then returns every chunk of the body as soon as it comes, framing and all.
    let backend = Server::raw(|mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(String::from_utf8_lossy(&head).contains("transfer-encoding: chunked"));
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    node.serve(&[backend.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.write("5\r\nfirst\r\n").await;
    assert!(client.until("\r\n\r\n").await.unwrap().starts_with("HTTP/1.1 200 OK"));
    assert_eq!(client.until("first\r\n").await.unwrap(), "5\r\nfirst\r\n");
    assert_eq!(node.active(), 1);
    client.write("6\r\nsecond\r\n").await;
    assert_eq!(client.until("second\r\n").await.unwrap(), "6\r\nsecond\r\n");
    client.write("0\r\n\r\n").await;
    assert_eq!(client.until("0\r\n\r\n").await.unwrap(), "0\r\n\r\n");
    eventually("nothing in flight", || node.active() == 0).await;
}

#[tokio::test]
async fn a_large_body_comes_through_whole() {
    let node = Node::new().await;
    let backend = Server::http(|request| async move {
        let mut sum = 0_u64;
        let mut count = 0;
        let mut body = request.into_body();
        while let Some(Ok(frame)) = http_body_util::BodyExt::frame(&mut body).await {
            for byte in frame.into_data().unwrap_or_default() {
                sum = sum.wrapping_mul(31).wrapping_add(u64::from(byte));
                count += 1;
            }
        }
        Response::new(Full::new(Bytes::from(format!("{count} {sum}"))))
    })
    .await;
    node.serve(&[backend.addr]).await;
    let body: Vec<u8> = (0..8_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let sum = body.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut client = Raw::open(node.http).await;
    client.write(format!("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: {}\r\n\r\n", body.len())).await;
    client.write(&body).await;
    assert_eq!(client.answer().await.unwrap().body, format!("{} {sum}", body.len()));
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_once_the_backend_wants_the_body() {
    let (node, backend) = (Node::new().await, Server::echo().await);
    node.serve(&[backend.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.until("\r\n\r\n").await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.write("body").await;
    assert!(client.answer().await.unwrap().body.ends_with("\n\nbody"));
    // Without a backend the client is spared the body.
    node.serve(&[]).await;
    let mut client = Raw::open(node.http).await;
    client.write("POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().code(), "no_backend");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_headers() {
    let node = Node::new().await;
    let backend = Server::raw(|mut stream| async move {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            let answer: &[u8] = match &buffer[..count] {
                [b'H', ..] => b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nkeep-alive: timeout=9\r\nx-a: 1\r\n\r\n",
                _ => b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\nconnection: x-b\r\nx-b: 1\r\n\r\n",
            };
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    node.serve(&[backend.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write("HEAD / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await.unwrap();
    assert!(head.contains("content-length: 1234") && head.contains("x-a: 1") && !head.contains("keep-alive"), "{head}");
    client.write("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    let head = client.until("\r\n\r\n").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 304") && head.contains("etag: \"x\"") && !head.contains("x-b"), "{head}");
    assert_eq!(backend.connections(), 1);
}
