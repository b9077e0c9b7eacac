//! Ingress nodes, backends and clients for the tests.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fiberlb::{Backend, Config, Desired, Handle, Limits, Mode, Route, Service, Status};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// Longer than anything here takes on a busy machine; reached only when something hangs.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub async fn within<T>(what: &str, act: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, act).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Waits until `check` holds.
pub async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    within(what, async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// An ingress with one HTTP and one TLS listener on free ports.
pub struct Node {
    pub handle: Handle,
    pub folder: TempDir,
    pub http: SocketAddr,
    pub tls: SocketAddr,
    generation: AtomicUsize,
}

pub fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub fn config(state_dir: impl Into<PathBuf>) -> Config {
    Config {
        state_dir: state_dir.into(),
        http: vec![any_port()],
        tls: Some(any_port()),
        tcp_bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        limits: Limits::default(),
    }
}

impl Node {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        change(&mut config.limits);
        let handle = Service::open(config).await.unwrap();
        let (http, tls) = (handle.http_addrs()[0], handle.tls_addr().unwrap());
        Self { handle, folder, http, tls, generation: AtomicUsize::new(0) }
    }

    /// Applies the routes under the next generation.
    pub async fn routes(&self, routes: Vec<Route>) {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        self.handle.apply(Desired { generation, routes }).await.unwrap();
    }

    /// One HTTP route, `a.test`.
    pub async fn serve(&self, backends: &[SocketAddr]) {
        self.routes(vec![http_route("a.test", backends)]).await;
    }

    pub fn status(&self) -> Status {
        self.handle.status()
    }

    /// `id active` of each backend, with its marks.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for route in self.status().routes {
            for one in route.backends {
                let drains = if one.draining { " draining" } else { "" };
                let ill = if one.healthy { "" } else { " ill" };
                lines.push(format!("{} {} {}{drains}{ill}", route.id, one.addr.port(), one.active));
            }
        }
        lines
    }

    pub fn active(&self) -> usize {
        self.status().routes.iter().flat_map(|route| &route.backends).map(|one| one.active).sum()
    }
}

pub fn route(id: &str, mode: Mode, backends: &[SocketAddr]) -> Route {
    let backends = backends.iter().map(|addr| Backend { id: format!("vm_{}", addr.port()), addr: *addr }).collect();
    Route { id: id.into(), mode, backends, asleep: Vec::new() }
}

pub fn http_route(host: &str, backends: &[SocketAddr]) -> Route {
    route(&format!("http {host}"), Mode::Http { host: host.into() }, backends)
}

pub fn tls_route(host: &str, backends: &[SocketAddr]) -> Route {
    route(&format!("tls {host}"), Mode::Tls { host: host.into() }, backends)
}

pub fn tcp_route(port: u16, backends: &[SocketAddr]) -> Route {
    route(&format!("tcp {port}"), Mode::Tcp { port }, backends)
}

/// A port on which nobody listens.
pub async fn free_port() -> SocketAddr {
    TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap()
}

/// A backend that accepts connections and gives each to a task.
pub struct Server {
    pub addr: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn raw<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                open.spawn(serve(stream));
            }
        });
        Self { addr, connections, task }
    }

    /// Answers every request with `answer`, over HTTP/1.1 with keep-alive.
    pub async fn http<F, Fut>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::raw(move |stream| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let mut builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// Answers with what it got: request line, headers in order of name, empty line, body.
    pub async fn echo() -> Self {
        Self::http(|request| async { Response::new(Full::new(describe(request).await.into())) }).await
    }

    /// Answers every request with `word`.
    pub async fn word(word: &'static str) -> Self {
        Self::http(move |request| async move {
            let _ = request.into_body().collect().await;
            Response::new(Full::new(word.into()))
        })
        .await
    }

    /// Keeps each connection's first bytes up to an empty line and answers with what `answer` makes of their number.
    pub async fn recording(answer: &'static str) -> (Self, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let server = Self::raw(move |mut stream| {
            let kept = Arc::clone(&kept);
            async move {
                let mut bytes = Vec::new();
                while let Ok(count) = stream.read_buf(&mut bytes).await
                    && count > 0
                {
                    if bytes.windows(4).any(|window| window == b"\r\n\r\n") {
                        // What belongs to the request may still be on its way.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        let mut more = [0; 4096];
                        if let Ok(count) = stream.try_read(&mut more) {
                            bytes.extend(&more[..count]);
                        }
                        kept.lock().await.push(String::from_utf8_lossy(&bytes).into_owned());
                        bytes.clear();
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            }
        })
        .await;
        (server, seen)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub async fn describe(request: Request<Incoming>) -> String {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut lines: Vec<String> = parts
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort();
    format!(
        "{} {} {:?}\n{}\n\n{}",
        parts.method,
        parts.uri,
        parts.version,
        lines.join("\n"),
        String::from_utf8_lossy(&body)
    )
}

/// A client's connection on which bytes are written and answers read by hand.
pub struct Raw {
    pub stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The `code` of a problem document.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(document["status"], self.status);
        for text in ["title", "detail", "hint"] {
            assert!(!document[text].as_str().unwrap().is_empty());
        }
        document["code"].as_str().unwrap().into()
    }
}

impl Raw {
    pub async fn open(addr: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(addr).await.unwrap(), read: Vec::new() }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next bytes up to and with `end`; `None` when the connection ends before.
    pub async fn until(&mut self, end: &str) -> Option<String> {
        within(end, async {
            loop {
                if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                    let rest = self.read.split_off(at + end.len());
                    return Some(String::from_utf8_lossy(&std::mem::replace(&mut self.read, rest)).into_owned());
                }
                if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        })
        .await
    }

    pub async fn exactly(&mut self, count: usize) -> String {
        within("bytes", async {
            while self.read.len() < count {
                assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "ended early");
            }
        })
        .await;
        let rest = self.read.split_off(count);
        String::from_utf8_lossy(&std::mem::replace(&mut self.read, rest)).into_owned()
    }

    /// One answer; `None` when the connection ends before its head.
    pub async fn answer(&mut self) -> Option<Answer> {
        let head = self.until("\r\n\r\n").await?;
        let status = head.split(' ').nth(1)?.parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        if let Some(length) = answer.header("content-length") {
            answer.body = self.exactly(length.parse().unwrap()).await;
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                let length = self.until("\r\n").await.unwrap();
                let length = usize::from_str_radix(length.trim(), 16).unwrap();
                let chunk = self.exactly(length + 2).await;
                answer.body.push_str(&chunk[..chunk.len() - 2]);
                if length == 0 {
                    break;
                }
            }
        }
        Some(answer)
    }

    pub async fn ask(&mut self, request: &str) -> Answer {
        self.write(request.replace('\n', "\r\n")).await;
        self.answer().await.expect("an answer")
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> String {
        within("the end of the connection", async {
            while self.stream.read_buf(&mut self.read).await.is_ok_and(|count| count > 0) {}
        })
        .await;
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }
}

/// One request on a connection of its own.
pub async fn ask(addr: SocketAddr, request: &str) -> Answer {
    Raw::open(addr).await.ask(request).await
}

pub async fn get(addr: SocketAddr, host: &str) -> Answer {
    ask(addr, &format!("GET / HTTP/1.1\nhost: {host}\n\n")).await
}

/// Whether `program` is installed; says so when a test is skipped for want of it.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs a program to its end; standard output and error, whatever the exit code.
pub async fn run(program: &str, arguments: &[&str]) -> (bool, String, String) {
    let output = within(program, command(program, arguments).output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// Waits until something accepts connections at `addr`.
pub async fn listening(addr: SocketAddr) {
    within("a listening server", async {
        while TcpStream::connect(addr).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
