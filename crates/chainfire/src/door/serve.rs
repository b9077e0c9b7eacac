//! Listeners and connections.
//!
//! ```text
//!   listener ── accept ──▶ TLS, when there are files ──▶ HTTP/2 or HTTP/1 ──▶ route
//! ```

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use store::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::desk::{Desk, Peer};
use super::host::Host;
use super::http as plain;
use super::options::Options;
use super::route;
use super::tenants::{Keyring, Tenants};

/// Bytes that a client may send ahead on one call and on one connection. A message is at most 2 MiB.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of answers that wait on one call for a client that does not read.
const SEND_BYTES_MAX: usize = 256 * 1024;

/// Calls that a client takes back before they were looked at. gRPC clients do that in good faith when deadlines pass.
const RESETS_MAX: usize = 4096;

/// Headers of one call.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// A connection on which nothing comes is asked for a sign of life this often, and given up this long after.
const ALIVE_INTERVAL: Duration = Duration::from_mins(1);
const ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Wait for calls under way when the door closes.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Wait after an accept that failed, as it does when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{url} is not an address to listen on: http://host:port or https://host:port")]
    Url { url: String },
    #[error("{url} needs a certificate and a key")]
    NoCertificate { url: String },
    #[error("cannot listen on {url}: {source}")]
    Listen { url: String, source: io::Error },
    #[error(transparent)]
    Tls(#[from] super::tls::Error),
}

/// An open door. Dropping it closes it at once; [`Handle::close`] lets calls under way finish.
pub struct Handle {
    addresses: Vec<SocketAddr>,
    closing: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Handle {
    /// Where it listens, in the order of [`Options::listen`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes no more calls, and gives those under way a few seconds.
    pub async fn close(mut self) {
        self.closing.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Whose the calls of a door are.
#[derive(Clone)]
enum Front {
    One(Arc<Desk>),
    Tenants(Arc<Tenants>),
}

impl Front {
    fn options(&self) -> &Options {
        match self {
            Self::One(desk) => &desk.options,
            Self::Tenants(tenants) => tenants.options(),
        }
    }
}

/// Opens the door; it is open when this returns.
pub async fn serve(options: Options, store: Arc<dyn Store>, host: Arc<dyn Host>) -> Result<Handle, Error> {
    open(Front::One(Arc::new(Desk::new(options, store, host)))).await
}

/// Opens one door to many stores; `keyring` decides who comes to which.
pub async fn serve_tenants(options: Options, keyring: Arc<dyn Keyring>) -> Result<Handle, Error> {
    open(Front::Tenants(Arc::new(Tenants::new(options, keyring)))).await
}

async fn open(front: Front) -> Result<Handle, Error> {
    let options = front.options();
    let mut listeners = Vec::new();
    let calls = options.listen.iter().map(|url| (url, true));
    for (url, calls) in calls.chain(options.listen_metrics.iter().map(|url| (url, false))) {
        let (secure, address) = if let Some(address) = url.strip_prefix("http://") {
            (false, address)
        } else if let Some(address) = url.strip_prefix("https://") {
            (true, address)
        } else {
            return Err(Error::Url { url: url.clone() });
        };
        let tls = match (&options.tls, secure) {
            (_, false) => None,
            (Some(files), true) => Some(super::tls::Acceptor::open(files.clone())?),
            (None, true) => return Err(Error::NoCertificate { url: url.clone() }),
        };
        let address = address.trim_end_matches('/');
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { url: url.clone(), source })?;
        listeners.push((listener, tls, calls));
    }
    let mut addresses = Vec::new();
    for ((listener, ..), url) in listeners.iter().zip(&options.listen) {
        addresses.push(listener.local_addr().map_err(|source| Error::Listen { url: url.clone(), source })?);
    }
    let connections = Arc::new(Semaphore::new(options.connections_max));
    let (closing, closed) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for (listener, tls, calls) in listeners {
        let listening = Listening { listener, tls, calls, front: front.clone(), room: connections.clone() };
        tasks.spawn(listen(listening, closed.clone()));
    }
    Ok(Handle { addresses, closing, tasks })
}

struct Listening {
    listener: TcpListener,
    tls: Option<super::tls::Acceptor>,
    /// Whether gRPC is answered, too.
    calls: bool,
    front: Front,
    room: Arc<Semaphore>,
}

async fn listen(listening: Listening, mut closing: watch::Receiver<bool>) {
    let Listening { listener, tls, calls, front, room } = listening;
    let mut connections = JoinSet::new();
    loop {
        let room = tokio::select! {
            room = room.clone().acquire_owned() => room,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let Ok(room) = room else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            _ = closing.wait_for(|closing| *closing) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (tls, front, closing) = (tls.clone(), front.clone(), closing.clone());
                connections.spawn(async move {
                    connection(stream, tls, front, calls, closing).await;
                    drop(room);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(CLOSE_MAX, ended).await.is_err() {
        tracing::info!("calls were under way when the door closed");
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<super::tls::Acceptor>,
    front: Front,
    calls: bool,
    closing: watch::Receiver<bool>,
) {
    // Answers are small and wanted at once.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return talk(stream, Arc::default(), front, calls, closing).await;
    };
    match tls.accept(stream).await {
        Ok((stream, peer)) => talk(stream, Arc::new(peer), front, calls, closing).await,
        Err(error) => tracing::debug!(%error, "no TLS came about"),
    }
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Arc<Peer>,
    front: Front,
    calls: bool,
    mut closing: watch::Receiver<bool>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(front.options().streams_max)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(SEND_BYTES_MAX)
        .keep_alive_interval(ALIVE_INTERVAL)
        .keep_alive_timeout(ALIVE_TIMEOUT);
    let service = service_fn(move |request| {
        let (front, peer) = (front.clone(), peer.clone());
        async move {
            let answer = match front {
                Front::One(desk) if calls => route::answer(desk, peer, request).await,
                Front::One(desk) => plain::answer(&desk, request).await,
                // Boxed, so that it does not make the usual call's task larger.
                Front::Tenants(tenants) => Box::pin(async move { tenants.answer(peer, request).await }).await,
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let talk = builder.serve_connection(TokioIo::new(stream), service);
    let mut talk = std::pin::pin!(talk);
    let closing = async { closing.wait_for(|closing| *closing).await.is_ok() };
    let ended = tokio::select! {
        ended = talk.as_mut() => ended,
        _ = closing => {
            talk.as_mut().graceful_shutdown();
            talk.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended");
    }
}
