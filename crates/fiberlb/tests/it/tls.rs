//! TLS by server name against OpenSSL on both ends.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Child;

use crate::support::*;

/// `openssl s_server` with a certificate for its name; answers with a page about the connection.
struct Secure {
    addr: SocketAddr,
    _child: Child,
    _folder: TempDir,
}

impl Secure {
    async fn start(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, certificate) = (folder.path().join("key"), folder.path().join("certificate"));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (key, certificate) = (text(&key), text(&certificate));
        let subject = format!("/CN={name}");
        let (made, _, errors) = run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "1",
                "-subj",
                &subject,
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
        )
        .await;
        assert!(made, "{errors}");
        let addr = free_port().await;
        let accept = addr.to_string();
        let mut server = command(
            "openssl",
            &["s_server", "-accept", &accept, "-key", &key, "-cert", &certificate, "-www", "-quiet"],
        );
        server.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let child = server.spawn().unwrap();
        listening(addr).await;
        Self { addr, _child: child, _folder: folder }
    }
}

/// What `openssl s_client` says; `name` as server name, none if empty.
async fn connect(addr: SocketAddr, name: &str, more: &[&str]) -> (bool, String) {
    let target = addr.to_string();
    let mut arguments = vec!["s_client", "-connect", &target];
    if name.is_empty() {
        arguments.push("-noservername");
    } else {
        arguments.extend(["-servername", name]);
    }
    arguments.extend(more);
    let (connected, out, errors) = run("openssl", &arguments).await;
    (connected, out + &errors)
}

#[tokio::test]
async fn names_lead_to_their_own_server_and_unknown_ones_nowhere() {
    if !has("openssl") {
        return;
    }
    let (node, a, b) = (Node::new().await, Secure::start("a.test").await, Secure::start("b.test").await);
    node.routes(vec![tls_route("a.test", &[a.addr]), tls_route("b.test", &[b.addr]), tls_route("empty.test", &[])])
        .await;
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, subject) in [("a.test", "CN = a.test"), ("b.test", "CN = b.test"), ("B.Test", "CN = b.test")] {
            let (connected, said) = connect(node.tls, name, &[version]).await;
            assert!(connected && said.contains(&format!("subject={subject}")), "{name}: {said}");
        }
    }
    let (connected, said) = connect(node.tls, "c.test", &[]).await;
    assert!(!connected && said.contains("unrecognized name"), "{said}");
    let (connected, said) = connect(node.tls, "", &[]).await;
    assert!(!connected && said.contains("handshake failure"), "{said}");
    let (connected, said) = connect(node.tls, "empty.test", &[]).await;
    assert!(!connected && said.contains("internal error"), "{said}");
    // With a single route a hello without a name can mean only that.
    node.routes(vec![tls_route("a.test", &[a.addr])]).await;
    let (connected, said) = connect(node.tls, "", &[]).await;
    assert!(connected && said.contains("subject=CN = a.test"), "{said}");
    let (connected, said) = connect(node.tls, "c.test", &[]).await;
    assert!(!connected && said.contains("unrecognized name"), "{said}");
    eventually("none in flight", || node.active() == 0).await;
}

/// The hello that OpenSSL really sends.
async fn real_hello(name: &str, more: &[&str]) -> Vec<u8> {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let mut arguments = vec!["s_client", "-connect", &target, "-servername", name];
    arguments.extend(more);
    let _client = command("openssl", &arguments).spawn().unwrap();
    let (mut stream, _) = within("a client", listener.accept()).await.unwrap();
    let mut header = [0; 5];
    stream.read_exact(&mut header).await.unwrap();
    let mut payload = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut payload).await.unwrap();
    [&header[..], &payload].concat()
}

/// Whether the server answers with a handshake record whose message is a ServerHello.
async fn server_hello(mut client: Raw) -> bool {
    let mut answer = [0; 6];
    within("a server's answer", client.stream.read_exact(&mut answer)).await.is_ok()
        && answer[0] == 22
        && answer[5] == 2
}

fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in hello[5..].chunks(size) {
        wire.extend([22, 3, 1]);
        wire.extend((piece.len() as u16).to_be_bytes());
        wire.extend(piece);
    }
    wire
}

#[tokio::test]
async fn a_real_hello_in_any_pieces_reaches_the_server() {
    if !has("openssl") {
        return;
    }
    let (node, a) = (Node::new().await, Secure::start("a.test").await);
    node.routes(vec![tls_route("a.test", &[a.addr]), tls_route("b.test", &[])]).await;
    // Protocol names to make it as large as hellos with post-quantum keys and more.
    let protocols: Vec<String> = (0..60).map(|n| format!("protocol-{n:0>50}")).collect();
    let protocols = protocols.join(",");
    for more in [&[][..], &["-alpn", &protocols]] {
        let hello = real_hello("a.test", more).await;
        assert!(more.is_empty() || hello.len() > 3_500, "{}", hello.len());

        let mut client = Raw::open(node.tls).await;
        client.stream.set_nodelay(true).unwrap();
        for (n, byte) in hello.iter().enumerate() {
            client.write([*byte]).await;
            // Often enough a segment of its own.
            if n < 200 {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
        assert!(server_hello(client).await, "byte by byte");

        for size in [7, 100, 1_000] {
            let mut client = Raw::open(node.tls).await;
            client.write(in_records(&hello, size)).await;
            assert!(server_hello(client).await, "in records of {size}");
        }
    }
}

#[tokio::test]
async fn what_is_no_hello_or_never_ends_is_closed() {
    let node = Node::with(|limits| limits.hello_timeout = Duration::from_millis(300)).await;
    let backend = Server::word("never").await;
    node.routes(vec![tls_route("a.test", &[backend.addr])]).await;
    let mut client = Raw::open(node.tls).await;
    client.write("GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await;
    assert_eq!(client.rest().await, "");
    // A length beyond the limit, and one that is never filled.
    let mut client = Raw::open(node.tls).await;
    client.write([22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]).await;
    assert_eq!(client.rest().await.len(), 7, "an alert");
    let mut client = Raw::open(node.tls).await;
    client.write([22, 3, 1, 0, 200, 1, 0]).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(Raw::open(node.tls).await.rest().await, "");
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn bytes_pass_untouched_after_the_hello_and_half_close_works() {
    let node = Node::new().await;
    let backend = Server::raw(|mut stream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let _ = stream.write_all(&all).await;
    })
    .await;
    node.routes(vec![tls_route("a.test", &[backend.addr])]).await;
    // Without extensions: no name, and one route.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0x13, 1, 1, 0]);
    hello.extend(b"\x17\x03\x03early data and \xff whatever comes");
    let mut client = Raw::open(node.tls).await;
    client.write(&hello).await;
    client.write(vec![9; 100_000]).await;
    client.stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    within("all bytes", client.stream.read_to_end(&mut back)).await.unwrap();
    assert!(back[..hello.len()] == hello[..] && back.len() == hello.len() + 100_000);
}
