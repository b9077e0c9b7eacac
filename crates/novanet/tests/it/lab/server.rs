//! Small servers and clients over TCP, and ping.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Space;

/// Long enough for a busy machine where an answer is due.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough to see that none comes where one would come within a millisecond.
const SILENCE: Duration = Duration::from_millis(1200);

/// Tells each line's sender the address it was seen from: `from ADDRESS: LINE`.
pub struct Server {
    stop: Arc<AtomicBool>,
}

impl Server {
    pub fn start(space: &Space, address: impl Into<IpAddr>, port: u16) -> Self {
        let at = SocketAddr::new(address.into(), port);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        space.run(move || {
            let listener = TcpListener::bind(at).unwrap_or_else(|error| panic!("bind {at}: {error}"));
            // Born here, it stays in this namespace.
            std::thread::spawn(move || accept(&listener, &stopped));
        });
        Self { stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn accept(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        if poll(&mut ready, Some(&tick)).is_ok_and(|count| count > 0)
            && let Ok((stream, from)) = listener.accept()
        {
            std::thread::spawn(move || answer(stream, from));
        }
    }
}

fn answer(mut stream: TcpStream, from: SocketAddr) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let reply = format!("from {}: {}", from.ip(), String::from_utf8_lossy(&buffer[..read]));
        if stream.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}

/// Asks the server at `address` once; its answer, or `None` when none came. `expect` says how long to wait.
pub fn ask(space: &Space, address: impl Into<IpAddr>, port: u16, expect: bool) -> Option<String> {
    let at = SocketAddr::new(address.into(), port);
    space.run(move || {
        let mut stream = TcpStream::connect_timeout(&at, if expect { PATIENCE } else { SILENCE }).ok()?;
        exchange(&mut stream, "hello")
    })
}

/// A connection that stays open for [`exchange`].
pub fn connect<A: Into<IpAddr>>(space: &Space, address: A, port: u16) -> impl FnMut(&str) -> Option<String> + use<A> {
    let at = SocketAddr::new(address.into(), port);
    let mut stream = space.run(move || TcpStream::connect_timeout(&at, PATIENCE)).expect("a connection");
    move |line| exchange(&mut stream, line)
}

fn exchange(stream: &mut TcpStream, line: &str) -> Option<String> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(line.as_bytes()).ok()?;
    let mut buffer = [0; 4096];
    let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
    Some(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

/// An echo request and its answer. Where one is expected it is asked for again, as people's ping does: the first may fall
/// into the end of an address resolution that began before there was anyone to answer.
pub fn ping(space: &Space, address: impl Into<IpAddr>, expect: bool) -> bool {
    let address = address.into();
    let rounds = if expect { 10 } else { 1 };
    (0..rounds).any(|_| space.run(move || echo(address)))
}

fn echo(address: IpAddr) -> bool {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
    let (family, protocol, kind) = match address {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    let socket = UdpSocket::from(socket(family, SocketType::DGRAM, Some(protocol)).unwrap());
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    if socket.connect(SocketAddr::new(address, 0)).is_err() {
        return false;
    }
    let mut buffer = [0; 64];
    socket.send(&[kind, 0, 0, 0, 0, 0, 0, 1, 7, 7, 7, 7]).is_ok() && socket.recv(&mut buffer).is_ok()
}
