//! How much is let in, and for how long.

use std::time::Duration;

use bytes::Bytes;
use control::Limits;
use futures::StreamExt;
use http::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cloud::{Cloud, PATIENCE};

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |out, byte| format!("{out}{byte:02x}"))
}

#[tokio::test]
async fn blobs_are_streamed_verified_and_kept_by_project() {
    let cloud = Cloud::with(Limits { blob_bytes_max: 100_000, ..Limits::default() }).await;
    let blob: Vec<u8> = (0..90_000_u32).map(|number| number as u8).collect();
    let path = |bytes: &[u8]| format!("/v1/areas/{}/blobs/{}", cloud.one.project.id, digest(bytes));
    let one = &cloud.one.token;
    let head = async |token: &str| cloud.send(cloud.request(token, Method::HEAD, &path(&blob))).await.status.as_u16();
    let put = async |bytes: Vec<u8>, path: &str| cloud.send(cloud.request(one, Method::PUT, path).body(bytes)).await;
    assert_eq!(head(one).await, 404);
    assert_eq!(put(blob.clone(), &path(&blob)).await.ok(201)["digest"], digest(&blob));
    assert_eq!(head(one).await, 200);
    assert_eq!((head(&cloud.two.token).await, head(&cloud.one.read_only).await), (404, 200));
    put(blob.clone(), &path(&blob)).await.ok(200);
    put(b"other".to_vec(), &path(&blob)).await.problem(400, "invalid_argument");
    put(vec![0; 100_001], &path(&blob)).await.problem(413, "too_large");
    for bad in ["sha256:abc", "sha512:00", &digest(b"").to_uppercase()] {
        let path = format!("/v1/areas/{}/blobs/{bad}", cloud.one.project.id);
        put(Vec::new(), &path).await.problem(400, "invalid_argument");
    }
    // Without a length the bytes are counted as they come.
    let pieces = futures::stream::iter((0..200).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![7; 1000]))));
    let request = cloud.request(one, Method::PUT, &path(&blob)).body(reqwest::Body::wrap_stream(pieces));
    cloud.send(request).await.problem(413, "too_large");
}

#[tokio::test]
async fn a_blob_that_stops_coming_is_given_up() {
    let cloud = Cloud::with(Limits { idle_time_max: Duration::from_millis(200), ..Limits::default() }).await;
    let pieces = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"begin"))]);
    let pieces = pieces.chain(futures::stream::pending());
    let path = format!("/v1/areas/{}/blobs/{}", cloud.one.project.id, digest(b"x"));
    let request = cloud.request(&cloud.one.token, Method::PUT, &path).body(reqwest::Body::wrap_stream(pieces));
    cloud.send(request).await.problem(400, "invalid_argument");
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_time() {
    let limits = Limits { json_bytes_max: 2_000, body_time_max: Duration::from_millis(300), ..Limits::default() };
    let cloud = Cloud::with(limits).await;
    let body = json!({"scope": cloud.one.scope, "name": "big", "spec": {"text": "x".repeat(3_000)}});
    cloud.post(&cloud.one.token, "/v1/things", &body).await.problem(413, "too_large");
    let pieces =
        futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]).chain(futures::stream::pending());
    let request =
        cloud.request(&cloud.one.token, Method::POST, "/v1/things").header("Content-Type", "application/json");
    cloud.send(request.body(reqwest::Body::wrap_stream(pieces))).await.problem(408, "invalid_argument");
}

#[tokio::test]
async fn one_token_cannot_hold_every_stream() {
    let cloud = Cloud::with(Limits { streams_per_token_max: 2, streams_max: 3, ..Limits::default() }).await;
    let watch = |token: &str| cloud.request(token, Method::GET, "/v1/things/watch").send();
    let first = watch(&cloud.one.token).await.unwrap();
    let second = watch(&cloud.one.token).await.unwrap();
    let third = cloud.get(&cloud.one.token, "/v1/things/watch").await;
    third.problem(429, "rate_limited");
    assert_eq!(third.headers["retry-after"], "1");
    let other = watch(&cloud.two.token).await.unwrap();
    assert_eq!(other.status(), 200);
    let full = cloud.get(&cloud.admin, "/v1/things/watch").await;
    full.problem(503, "unavailable");
    assert_eq!(full.headers["retry-after"], "1");
    cloud.get(&cloud.one.token, "/v1/whoami").await.ok(200);
    drop((first, second));
    // A place is free again once the other end is noticed.
    let free = async {
        while watch(&cloud.one.token).await.unwrap().status() != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
}

#[tokio::test]
async fn too_many_requests_at_once_are_turned_away() {
    let limits = Limits { requests_max: 1, body_time_max: PATIENCE, ..Limits::default() };
    let cloud = Cloud::with(limits).await;
    // A request whose body is still to come holds the one place.
    let (sender, pieces) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(pieces));
    let request =
        cloud.request(&cloud.one.token, Method::POST, "/v1/things").header("Content-Type", "application/json");
    let slow = tokio::spawn(request.body(body).send());
    let turned_away = async {
        loop {
            let answer = cloud.get(&cloud.two.token, "/v1/whoami").await;
            if answer.status != 200 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, turned_away).await.unwrap();
    assert_eq!(answer.problem(503, "unavailable")["reason"], "overloaded");
    cloud.get("", "/health").await.ok(200);
    drop(sender);
    assert_eq!(slow.await.unwrap().unwrap().status(), 400);
    cloud.get(&cloud.two.token, "/v1/whoami").await.ok(200);
}

async fn raw(cloud: &Cloud) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect(cloud.handle.addr).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(iam::client_config(&cloud.ca).unwrap()));
    tls.connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

#[tokio::test]
async fn headers_are_bounded_in_size_and_time_and_idle_connections_end() {
    let limits = Limits {
        header_time_max: Duration::from_millis(300),
        handshake_time_max: Duration::from_millis(300),
        ..Limits::default()
    };
    let cloud = Cloud::with(limits).await;
    let ended = async |mut stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        let mut text = Vec::new();
        // The other side may leave without a farewell; that is an end too.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("it ends");
        String::from_utf8_lossy(&text).into_owned()
    };
    let silent = tokio::net::TcpStream::connect(cloud.handle.addr).await.unwrap();
    let idle = raw(&cloud).await;
    let mut slow = raw(&cloud).await;
    slow.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut large = raw(&cloud).await;
    let header = format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let _ = large.write_all(header.as_bytes()).await;
    assert!(ended(large).await.starts_with("HTTP/1.1 431"));
    assert!(!ended(slow).await.contains("200"));
    ended(idle).await;
    let mut silent = silent;
    let read = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 8])).await.expect("it ends");
    assert!(matches!(read, Ok(0) | Err(_)));
}
