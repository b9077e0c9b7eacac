//! Servers and clients that others wrote: nginx, Python's http.server, curl.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::process::Child;

use crate::support::*;

/// nginx in the foreground, with a folder of its own.
struct Nginx {
    addr: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Nginx {
    async fn start(word: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let addr = free_port().await;
        std::fs::write(folder.path().join("index.html"), word).unwrap();
        std::fs::write(folder.path().join("large"), vec![b'x'; 3_000_000]).unwrap();
        let config = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
             events {{ worker_connections 256; }}
             http {{
               access_log off; root {path}; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
               fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
               keepalive_timeout 1s; keepalive_requests 50;
               server {{
                 listen {addr}; client_max_body_size 10m;
                 location = /seen {{ return 200 \"$host $http_x_forwarded_for $http_x_forwarded_proto $request_method $http_expect.\"; }}
               }}
             }}"
        );
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        // Workers drop to nobody when root starts them; the folder must be readable then.
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let config = folder.path().join("nginx.conf").display().to_string();
        let errors = folder.path().join("error.log").display().to_string();
        let mut server = command("nginx", &["-c", &config, "-e", &errors]);
        server
            .env("PATH", "/usr/sbin:/usr/bin:/bin")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let child = server.spawn().unwrap();
        listening(addr).await;
        Self { addr, child, folder }
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
        drop(self.folder);
    }
}

/// curl to `host` by way of the ingress; what it wrote to standard output.
async fn curl(node: &Node, arguments: &[&str], paths: &[&str]) -> String {
    let resolve = format!("a.test:{}:127.0.0.1", node.http.port());
    let mut all =
        vec!["--silent", "--show-error", "--fail", "--max-time", "50", "--noproxy", "*", "--resolve", &resolve];
    all.extend(arguments);
    let urls: Vec<String> = paths.iter().map(|path| format!("http://a.test:{}{path}", node.http.port())).collect();
    all.extend(urls.iter().map(String::as_str));
    let (fine, out, errors) = run("curl", &all).await;
    assert!(fine, "curl {all:?}: {errors}");
    out
}

#[tokio::test]
async fn curl_speaks_to_nginx() {
    if !has("nginx") || !has("curl") {
        return;
    }
    let (node, nginx) = (Node::new().await, Nginx::start("hello from nginx").await);
    node.serve(&[nginx.addr]).await;
    assert_eq!(curl(&node, &[], &["/"]).await, "hello from nginx");
    assert!(curl(&node, &["--head"], &["/large"]).await.contains("ontent-length: 3000000"));
    assert_eq!(curl(&node, &[], &["/large"]).await.len(), 3_000_000);
    assert_eq!(curl(&node, &["--header", "x-forwarded-for: 6.6.6.6"], &["/seen"]).await, "a.test 127.0.0.1 http GET .");

    // Many requests on one connection, beyond what nginx allows on one of its own.
    let words = curl(&node, &["--write-out", " %{num_connects}\n"], &["/"; 120]).await;
    assert_eq!(words.matches("hello from nginx 1\n").count(), 1, "{words}");
    assert_eq!(words.matches("hello from nginx 0\n").count(), 119);

    // A body of unknown length, and one announced.
    let body = nginx.folder.path().join("large").display().to_string();
    let data = format!("@{body}");
    let chunked = ["--header", "transfer-encoding: chunked", "--data-binary", &data];
    assert_eq!(curl(&node, &chunked, &["/seen"]).await, "a.test 127.0.0.1 http POST .");
    let waiting = ["--header", "expect: 100-continue", "--verbose", "--data-binary", &data];
    assert_eq!(curl(&node, &waiting, &["/seen"]).await, "a.test 127.0.0.1 http POST .");

    // HTTP/2 without asking first.
    if run("curl", &["--version"]).await.1.contains("HTTP2") {
        // One request each: curl 7.88 loses a connection of this kind when it uses it again, whoever the server is.
        let version = ["--http2-prior-knowledge", "--write-out", " %{http_version}"];
        assert_eq!(curl(&node, &version, &["/"]).await, "hello from nginx 2");
        assert_eq!(curl(&node, &["--http2-prior-knowledge"], &["/large"]).await.len(), 3_000_000);
    }
    nginx.kill().await;
    assert_eq!(get(node.http, "a.test").await.code(), "backend_unreachable");
}

#[tokio::test]
async fn curl_speaks_to_a_server_of_http_1_0() {
    if !has("python3") || !has("curl") {
        return;
    }
    let node = Node::new().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page"), "from python").unwrap();
    let addr = free_port().await;
    let (port, root) = (addr.port().to_string(), folder.path().display().to_string());
    let mut server = command("python3", &["-m", "http.server", "--bind", "127.0.0.1", "--directory", &root, &port]);
    server.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = server.spawn().unwrap();
    listening(addr).await;
    node.serve(&[addr]).await;
    let words = curl(&node, &["--write-out", " %{http_version} %{num_connects}\n"], &["/page"; 5]).await;
    assert!(words.starts_with("from python 1.1 1\n"), "{words}");
    assert_eq!(words.matches("from python 1.1 0\n").count(), 4, "{words}");
    assert!(curl(&node, &[], &["/"]).await.contains("page"));
    child.kill().await.unwrap();
}

/// curl runs through 600 requests, six at once, while nginx processes are replaced and killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_is_replaced_under_load() {
    if !has("nginx") || !has("curl") {
        return;
    }
    let node = Node::new().await;
    let mut serving = Nginx::start("word").await;
    node.serve(&[serving.addr]).await;
    let paths = vec!["/?[1-600]"];
    let traffic = curl(
        &node,
        &[
            "--parallel",
            "--parallel-max",
            "6",
            "--rate",
            "60/s",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}\n",
        ],
        &paths,
    );
    let swaps = async {
        for _ in 0..5 {
            let next = Nginx::start("word").await;
            node.serve(&[next.addr]).await;
            eventually("drained", || node.status().routes[0].backends.iter().all(|one| !one.draining)).await;
            std::mem::replace(&mut serving, next).kill().await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let (words, ()) = tokio::join!(traffic, swaps);
    assert_eq!(words, "200\n".repeat(600));
    serving.kill().await;
}
