//! Connections: accepted, wrapped in TLS, answered by the router.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;

/// Application protocols, best first.
pub const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Requests at once on one HTTP/2 connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 128;
/// The pause after a failed accept, for example when the process has no file descriptor left.
const ACCEPT_PAUSE_MS: u64 = 100;
/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to say so.
const PING_SECONDS: u64 = 20;
/// hyper refuses to work with less.
const HTTP1_BUFFER_BYTES_MIN: usize = 8 << 10;

/// Accepts until `closing` is cancelled; each connection is a task of `tasks` and ends after its present requests.
pub async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    router: Router,
    limits: Arc<Limits>,
    tasks: TaskTracker,
    closing: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    loop {
        let accepted = async {
            let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = closing.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let work = connection(stream, tls.clone(), router.clone(), limits.clone(), closing.clone());
                tasks.spawn(async move {
                    work.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: TlsAcceptor,
    router: Router,
    limits: Arc<Limits>,
    closing: CancellationToken,
) {
    // Answers are small and written whole: waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(limits.handshake_time_max, tls.accept(stream)).await else { return };
    let service = TowerToHyperService::new(router);
    // Told by ALPN, so that nobody has to wait for first bytes to find out.
    let ended = if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let ping = Duration::from_secs(PING_SECONDS);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .max_header_list_size(limits.header_bytes_max as u32)
            .keep_alive_interval(ping)
            .keep_alive_timeout(ping);
        let serving = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        tokio::select! {
            ended = serving.as_mut() => ended,
            () = closing.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_time_max)
            .max_buf_size(limits.header_bytes_max.max(HTTP1_BUFFER_BYTES_MIN))
            .max_headers(limits.headers_max);
        let serving = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::pin!(serving);
        tokio::select! {
            ended = serving.as_mut() => ended,
            () = closing.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}
