//! Sockets as the data path wants them: bounded to open, prompt to send, and not deaf to a dead peer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// There is no idle limit on tunnels, so the kernel asks whether the peer is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;
/// A machine that was killed sends no FIN. What it has not acknowledged after this long is taken for lost.
const UNACKNOWLEDGED_MS_MAX: u32 = 20_000;

/// Opens a listener. Where the machine has no IPv6, "all addresses" means all IPv4 addresses.
pub async fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(addr).await {
        Err(error)
            if addr.ip() == IpAddr::from([0_u16; 8])
                && error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await
        }
        result => result,
    }
}

/// Connects within `limit`.
pub async fn connect(addr: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(addr)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    tune(&stream);
    // Best effort: without it a dead backend is noticed later, by keepalive.
    let _ = sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS_MAX);
    Ok(stream)
}

/// Sets what both sides of a proxied connection want. A socket that refuses is already broken and shows so when used.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT);
}
