//! HTTP/2 from clients that know beforehand; behind the ingress it is HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::*;

type Sender = http2::SendRequest<Full<Bytes>>;

async fn connect(node: &Node) -> (Sender, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(node.http).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    (sender, task)
}

async fn ask(mut sender: Sender, request: http::request::Builder, body: Vec<u8>) -> (u16, String) {
    let response =
        within("an answer", sender.send_request(request.body(Full::new(body.into())).unwrap())).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let status = response.status().as_u16();
    let body = within("a body", response.into_body().collect()).await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_request_becomes_one_of_http_1_1() {
    let (node, backend) = (Node::new().await, Server::echo().await);
    node.serve(&[backend.addr]).await;
    let (sender, _task) = connect(&node).await;
    let request =
        Request::post("http://A.test/p?q").header("cookie", "a=1").header("cookie", "b=2").header("te", "trailers");
    let (status, body) = ask(sender.clone(), request, b"hello".to_vec()).await;
    assert_eq!(status, 200);
    assert_eq!(
        body,
        "POST /p?q HTTP/1.1\ncontent-length: 5\ncookie: a=1; b=2\nhost: A.test\nx-forwarded-for: 127.0.0.1\n\
         x-forwarded-host: A.test\nx-forwarded-proto: http\n\nhello"
    );
    let (status, body) = ask(sender.clone(), Request::get("http://b.test/"), vec![]).await;
    assert!(status == 404 && body.contains("unknown_host"), "{status} {body}");
    let mut many = Request::get("http://a.test/");
    for _ in 0..101 {
        many = many.header("x", "1");
    }
    assert_eq!(ask(sender, many, vec![]).await.0, 431);
}

#[tokio::test]
async fn many_requests_share_one_connection_and_large_bodies_pass() {
    let (node, backend) = (Node::with(|limits| limits.connections_max = 1).await, Server::echo().await);
    node.serve(&[backend.addr]).await;
    let (sender, task) = connect(&node).await;
    let asked = (0..60).map(|number| {
        let request = Request::put(format!("http://a.test/{number}"));
        ask(sender.clone(), request, vec![b'a' + number % 26; 200_000])
    });
    for (number, (status, body)) in futures::future::join_all(asked).await.into_iter().enumerate() {
        assert_eq!(status, 200);
        let expected = String::from_utf8(vec![b'a' + number as u8 % 26; 200_000]).unwrap();
        assert!(body.starts_with(&format!("PUT /{number} ")) && body.ends_with(&format!("\n\n{expected}")));
    }
    assert_eq!(node.active(), 0);
    drop(sender);
    within("the end of the connection", task).await.unwrap();
}

#[tokio::test]
async fn an_early_answer_does_not_stop_the_request() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = Node::new().await;
    let (count, mut counted) = tokio::sync::mpsc::unbounded_channel();
    let backend = Server::raw(move |mut stream| {
        let count = count.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await.unwrap();
            let mut body = vec![0; 3_000_000];
            count.send(stream.read_exact(&mut body).await.is_ok()).unwrap();
        }
    })
    .await;
    node.serve(&[backend.addr]).await;
    let (sender, _task) = connect(&node).await;
    let answer = ask(sender.clone(), Request::post("http://a.test/"), vec![1; 3_000_000]).await;
    assert_eq!(answer, (200, "early".into()));
    assert_eq!(within("the whole body", counted.recv()).await, Some(true));
}

#[tokio::test]
async fn a_connection_at_rest_is_closed_and_one_at_work_is_not() {
    let short = Duration::from_millis(300);
    let node = Node::with(|limits| limits.idle_timeout = short).await;
    let backend = Server::http(move |_| async move {
        tokio::time::sleep(short * 4).await;
        hyper::Response::new(Full::new("late".into()))
    })
    .await;
    node.serve(&[backend.addr]).await;
    let (sender, task) = connect(&node).await;
    assert_eq!(ask(sender.clone(), Request::get("http://a.test/"), vec![]).await, (200, "late".into()));
    within("the end of the connection", task).await.unwrap();
    drop(sender);
}
