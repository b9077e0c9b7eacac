//! HTTP by host name: a reverse proxy for HTTP/1.1, and for HTTP/2 from clients that know beforehand.
//!
//! ```text
//!   serve    one client connection: which version, then request by request
//!   wire     its socket, with the limits on heads, idleness and stalled writes
//!   headers  what is taken from a head and put in before it goes on
//!   forward  one request: pick, send, try again where nothing can break
//!   pool     unused connections to a backend
//!   upstream one connection to a backend, one request on it
//!   body     request and answer on their way through, counted
//!   upgrade  after 101: bytes both ways
//!   problem  the answers of the ingress itself
//! ```

mod body;
mod forward;
mod headers;
pub mod pool;
pub mod problem;
mod upgrade;
mod upstream;
mod wire;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use self::wire::{Activity, Version, Wire};
use crate::engine::Engine;

/// The smallest read buffer that the HTTP implementation takes.
const BUFFER_MIN: usize = 8 * 1024;
const BUFFER: usize = 64 * 1024;
/// Whether an HTTP/2 client is still there.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What all requests of one client connection share.
#[derive(Debug)]
pub(crate) struct Client {
    peer: SocketAddr,
    engine: Arc<Engine>,
    activity: Arc<Activity>,
    /// Its place among the listener's connections; a tunnel outlives the HTTP connection and keeps it.
    _place: OwnedSemaphorePermit,
}

pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit, engine: Arc<Engine>) {
    let activity = Arc::new(Activity::new());
    let mut wire = Wire::new(stream, Arc::clone(&activity), &engine.limits);
    let version = tokio::select! {
        version = wire.sniff() => version,
        () = engine.stop.cancelled() => return,
    };
    let Ok(Some(version)) = version else { return };
    let client = Arc::new(Client { peer, engine: Arc::clone(&engine), activity, _place: place });
    let result = match version {
        Version::Http1 => serve_http1(wire, client, &engine).await,
        Version::Http2 => serve_http2(wire, client, &engine).await,
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "client connection ended");
    }
}

async fn serve_http1(wire: Wire, client: Arc<Client>, engine: &Engine) -> hyper::Result<()> {
    let limits = &engine.limits;
    let header_bytes_max = limits.header_bytes_max.max(BUFFER_MIN);
    let service = service_fn(move |request| {
        let client = Arc::clone(&client);
        async move { Ok::<_, Infallible>(forward::answer(&client, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The wire times heads itself: it tells a slow head from a connection at rest.
        .header_read_timeout(None)
        .max_headers(limits.header_count_max)
        .max_header_size(header_bytes_max)
        .max_buf_size(header_bytes_max.max(BUFFER));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(wire), service).with_upgrades());
    tokio::select! {
        result = connection.as_mut() => return result,
        () = engine.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn serve_http2(wire: Wire, client: Arc<Client>, engine: &Engine) -> hyper::Result<()> {
    let limits = &engine.limits;
    let service = service_fn(move |request| {
        let client = Arc::clone(&client);
        async move { Ok::<_, Infallible>(forward::answer(&client, request).await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.header_bytes_max.try_into().unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(wire), service));
    tokio::select! {
        result = connection.as_mut() => return result,
        () = engine.stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
