//! What can be set, with its defaults.

use std::net::SocketAddr;
use std::time::Duration;

/// Settings of the control plane.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API listens. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The setting to change when that address is taken, as errors name it.
    pub listen_setting: &'static str,
    pub limits: Limits,
}

impl Config {
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, listen_setting: "api.listen", limits: Limits::default() }
    }
}

/// How much is let in at once, and for how long.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections; more wait to be accepted.
    pub connections_max: usize,
    /// Short requests in progress; one more is answered 503.
    pub requests_max: usize,
    /// Waits, watches, streams and uploads of one token; one more is answered 429.
    pub streams_per_token_max: usize,
    /// The same over all tokens; one more is answered 503.
    pub streams_max: usize,
    /// A JSON body.
    pub json_bytes_max: usize,
    /// A blob.
    pub blob_bytes_max: u64,
    /// All header fields of a request.
    pub header_bytes_max: usize,
    pub headers_max: usize,
    /// From the start of a connection, or the end of a request, to the end of the next request's header.
    pub header_time_max: Duration,
    /// For a whole JSON body.
    pub body_time_max: Duration,
    /// Between two pieces of a blob.
    pub idle_time_max: Duration,
    /// For a TLS handshake.
    pub handshake_time_max: Duration,
    /// For a short request, from its header to its answer.
    pub request_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            requests_max: 256,
            streams_per_token_max: 64,
            streams_max: 512,
            json_bytes_max: 1 << 20,
            blob_bytes_max: 10 << 30,
            header_bytes_max: 32 << 10,
            headers_max: 100,
            header_time_max: Duration::from_secs(30),
            body_time_max: Duration::from_secs(30),
            idle_time_max: Duration::from_mins(1),
            handshake_time_max: Duration::from_secs(10),
            request_time_max: Duration::from_mins(1),
        }
    }
}
