//! A plain HTTP client for loopback: one request, or a steady load that counts what fails.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const CONNECT_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(30);
const BODY_BYTES_MAX: usize = 1 << 20;
/// Between two requests of one worker: a load that two cores under software emulation can carry.
const PAUSE: Duration = Duration::from_millis(10);
/// Failed requests that are kept with their reason.
const FAULTS_MAX: usize = 10;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Where a URL leads when it is asked for on this machine: `*.localhost` is loopback (RFC 6761), and no resolver is asked.
pub fn place(url: &str) -> Result<(SocketAddr, String)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is no http URL"))?;
    let host = rest.split('/').next().unwrap_or(rest).to_owned();
    let port = host.rsplit_once(':').map_or(Ok(80), |(_, port)| port.parse()).with_context(|| url.to_owned())?;
    Ok((SocketAddr::from(([127, 0, 0, 1], port)), host))
}

/// One connection that is kept for many requests.
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    pub fn open(addr: SocketAddr, host: &str, connect_max: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, connect_max)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: host.to_owned() })
    }

    /// Answers that say neither length nor chunks are refused: the connection could not be used again.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: xtask\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(broken("the connection was closed"));
        }
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| broken("no status"))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length = answer.header("content-length").and_then(|length| length.parse::<usize>().ok());
        let length = length.filter(|length| *length <= BODY_BYTES_MAX).ok_or_else(|| broken("no length"))?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Ok(answer)
    }
}

/// One request on a connection of its own.
pub fn get(url: &str) -> Result<Answer> {
    let (addr, host) = place(url)?;
    let answer = Connection::open(addr, &host, CONNECT_MAX).and_then(|mut connection| connection.get("/"));
    answer.with_context(|| format!("GET {url}"))
}

/// Requests one after the other over kept connections until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(url: &str, workers: usize) -> Result<Self> {
        let (addr, host) = place(url)?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let worker = |_| {
            let (stop, sent, host) = (stop.clone(), sent.clone(), host.clone());
            std::thread::spawn(move || work(addr, &host, &stop, &sent))
        };
        let workers = (0..workers).map(worker).collect();
        Ok(Self { stop, sent, workers })
    }

    /// Requests sent, and the first failures. Errors when a worker fell over.
    pub fn stop(self) -> Result<(usize, Vec<String>)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut faults = Vec::new();
        for worker in self.workers {
            let Ok(found) = worker.join() else { bail!("a worker of the load fell over") };
            faults.extend(found);
        }
        Ok((self.sent.load(Ordering::Relaxed), faults))
    }
}

fn work(addr: SocketAddr, host: &str, stop: &AtomicBool, sent: &AtomicUsize) -> Vec<String> {
    let mut faults = Vec::new();
    let mut connection: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) && faults.len() < FAULTS_MAX {
        sent.fetch_add(1, Ordering::Relaxed);
        let mut kept = match connection.take() {
            Some(kept) => kept,
            None => match Connection::open(addr, host, CONNECT_MAX) {
                Ok(opened) => opened,
                Err(error) => {
                    faults.push(format!("connecting: {error}"));
                    continue;
                }
            },
        };
        match kept.get("/") {
            Ok(answer) if answer.status == 200 => {
                let closing = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                connection = (!closing).then_some(kept);
            }
            Ok(answer) => faults.push(format!("status {}: {}", answer.status, answer.body.trim())),
            Err(error) => faults.push(error.to_string()),
        }
        std::thread::sleep(PAUSE);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_names_lead_to_loopback() {
        let (addr, host) = place("http://shop-prod.vt.localhost:8080").unwrap();
        assert_eq!((addr, host.as_str()), (([127, 0, 0, 1], 8080).into(), "shop-prod.vt.localhost:8080"));
        assert_eq!(place("http://a.localhost/x").unwrap().0.port(), 80);
        assert!(place("https://a").is_err());
    }

    #[test]
    fn a_load_counts_what_fails() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().take(2).enumerate() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).unwrap();
                let status = if number == 0 { "503 Busy" } else { "200 OK" };
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nhi").unwrap();
            }
        });
        assert_eq!(get(&url).unwrap().status, 503);
        assert_eq!(get(&url).unwrap().body, "hi");
        server.join().unwrap();
        let load = Load::start(&url, 1).unwrap();
        while !load.workers[0].is_finished() {
            std::thread::sleep(PAUSE);
        }
        let (sent, faults) = load.stop().unwrap();
        assert_eq!((sent, faults.len()), (FAULTS_MAX, FAULTS_MAX));
    }
}
