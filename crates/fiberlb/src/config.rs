//! What the ingress of a node is told once, at start.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The settings that error messages name, as they stand in the node's configuration file.
pub(crate) const SETTING_HTTP: &str = "ingress.http";
pub(crate) const SETTING_TLS: &str = "ingress.tls";
pub(crate) const SETTING_TCP_BIND: &str = "ingress.tcp_bind";

/// Where the ingress listens and what it keeps on disk.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the last good configuration; created when missing.
    pub state_dir: PathBuf,
    /// Addresses of the HTTP listeners; may be empty. Port 0 takes a free one, see [`crate::Handle::http_addrs`].
    pub http: Vec<SocketAddr>,
    /// Address of the TLS listener that routes by server name; `None` for none.
    pub tls: Option<SocketAddr>,
    /// Address on which the ports of tcp routes are opened.
    pub tcp_bind: IpAddr,
    pub limits: Limits,
}

impl Config {
    /// Ports 80 and 443 on all addresses, default limits.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        Self {
            state_dir: state_dir.into(),
            http: vec![SocketAddr::new(any, 80)],
            tls: Some(SocketAddr::new(any, 443)),
            tcp_bind: any,
            limits: Limits::default(),
        }
    }
}

/// Every bound of the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once per listener; one more is refused (HTTP: 503, TLS and TCP: closed). Default 10,000.
    pub connections_max: usize,
    /// Bytes of an HTTP request head, request line included; more is answered with 431. Default 32 KiB, at least 8 KiB.
    pub header_bytes_max: usize,
    /// Header lines of an HTTP request; more is answered with 431. Default 100.
    pub header_count_max: usize,
    /// From the first byte of a request to the end of its head. Default 10 s.
    pub header_timeout: Duration,
    /// How long a client connection may stay open without a request. Default 75 s.
    pub idle_timeout: Duration,
    /// How long a request body may stand still. Default 60 s.
    pub body_timeout: Duration,
    /// How long a client may refuse to take what is written to it. Default 60 s.
    pub write_timeout: Duration,
    /// How long a client is held while a backend that sleeps is woken. Default 10 s.
    pub wake_timeout: Duration,
    /// To open a connection to a backend. Default 2 s.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the backend's answer; then 504. Default 120 s.
    pub response_timeout: Duration,
    /// HTTP/2 streams at once per client connection. Default 128.
    pub streams_max: u32,
    /// Unused connections kept per backend. Default 64.
    pub pool_max: usize,
    /// How long an unused connection to a backend is kept. Default 30 s.
    pub pool_idle_timeout: Duration,
    /// From accept to a complete ClientHello. Default 10 s: a lost second segment is sent again after 1 s, then 2 s,
    /// and one of a slow client must not be taken for an attack.
    pub hello_timeout: Duration,
    /// How long a removed backend may finish what it has in flight; then it is cut. Default 30 s.
    pub drain_timeout: Duration,
    /// First cooldown of a failed backend; each further failure doubles it. Default 1 s.
    pub cooldown_min: Duration,
    /// Longest cooldown of a failed backend. Default 300 s.
    pub cooldown_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            header_bytes_max: 32 * 1024,
            header_count_max: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_mins(1),
            write_timeout: Duration::from_mins(1),
            wake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_mins(2),
            streams_max: 128,
            pool_max: 64,
            pool_idle_timeout: Duration::from_secs(30),
            hello_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            cooldown_min: Duration::from_secs(1),
            cooldown_max: Duration::from_mins(5),
        }
    }
}
