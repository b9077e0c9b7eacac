//! Requests that two readers could read differently: the backend must see one request or none.

use crate::support::*;

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Sends the bytes and returns the answer's status (0 for none) and what the backend saw.
async fn send(request: &str) -> (u16, Vec<String>, String) {
    let node = Node::new().await;
    let (backend, seen) = Server::recording(ANSWER).await;
    node.serve(&[backend.addr]).await;
    let mut client = Raw::open(node.http).await;
    client.write(request).await;
    let status = client.answer().await.map_or(0, |answer| answer.status);
    let rest = client.rest().await;
    (status, seen.lock().await.clone(), rest)
}

#[tokio::test]
async fn heads_that_are_not_clear_are_refused() {
    for head in [
        "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nbody",
        "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4, 4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: +4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: -1\r\n\r\nbody",
        "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0x4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length : 4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.test\r\nx: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.test\r\nx: a\u{0}b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.test\r\nhost: a.test\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a.test\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a.test\r\n\r\n",
        "GET / HTTP/1.1 \r\nhost: a.test\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: a.test\r\n\r\n",
        "\u{0}\r\n\r\n",
    ] {
        let (status, seen, rest) = send(head).await;
        assert!(status == 0 || (400..500).contains(&status), "{head:?}: {status}");
        assert_eq!(seen, [""; 0], "{head:?}");
        assert_eq!(rest, "", "{head:?}");
    }
}

#[tokio::test]
async fn with_both_lengths_chunks_count_and_the_connection_ends() {
    for heads in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 100\r\ntransfer-encoding: chunked",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: a.test\r\n{heads}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a.test\r\n\r\n"
        );
        let (status, seen, rest) = send(&request).await;
        assert_eq!(status, 200);
        assert_eq!(rest, "", "nothing after the first answer");
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(!seen[0].contains("content-length") && !seen[0].contains("smuggled"), "{seen:?}");
        assert!(seen[0].ends_with("0\r\n\r\n"), "{seen:?}");
    }
}

#[tokio::test]
async fn damaged_chunks_never_reach_the_backend_as_something_else() {
    for chunks in
        ["x\r\nbody\r\n0\r\n\r\n", "-4\r\nbody\r\n", "4\r\nbodyGET / HTTP/1.1\r\n", "fffffffffffffffff\r\nbody"]
    {
        let request = format!("POST / HTTP/1.1\r\nhost: a.test\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let (_, seen, _) = send(&request).await;
        assert!(seen.len() <= 1, "{chunks:?}: {seen:?}");
        assert!(seen.iter().all(|one| !one.ends_with("0\r\n\r\n")), "{chunks:?}: {seen:?}");
    }
}

#[tokio::test]
async fn what_hides_behind_a_body_is_its_own_request() {
    let request = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\ncontent-length: 4\r\n\r\nbodyGET /2 HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
    let (status, seen, rest) = send(request).await;
    assert_eq!(status, 200);
    assert!(rest.starts_with("HTTP/1.1 200 OK"), "{rest}");
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[0].ends_with("\r\n\r\nbody") && seen[0].matches("content-length").count() == 1, "{seen:?}");
    assert!(seen[1].starts_with("GET /2 HTTP/1.1"), "{seen:?}");
}
