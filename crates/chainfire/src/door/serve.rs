//! Listeners and connections.
//!
//! ```text
//!   listener ── accept ──▶ TLS, when there are files ──▶ HTTP/2 or HTTP/1 ──▶ route
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use store::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connection;
use super::desk::Desk;
use super::front::Front;
use super::host::Host;
use super::options::Options;
use super::tenants::{Keyring, Tenants};

/// A connection on which nothing comes is asked for a sign of life after this time, then every so often, and given up
/// after so many that were not answered.
const ALIVE_AFTER: Duration = Duration::from_mins(1);
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const ALIVE_PROBES: u32 = 3;

/// A client that says nothing at all for so long is let go.
const FIRST_WORDS_MAX: Duration = Duration::from_secs(30);

/// Between two looks at what a client has said, while it has said too little to tell what it speaks.
const FIRST_WORDS_PAUSE: Duration = Duration::from_millis(5);

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
        let front = if calls { front.clone() } else { front.plain() };
        let listening = Listening { listener, tls, front, room: connections.clone() };
        tasks.spawn(listen(listening, closed.clone()));
    }
    Ok(Handle { addresses, closing, tasks })
}

struct Listening {
    listener: TcpListener,
    tls: Option<super::tls::Acceptor>,
    front: Front,
    room: Arc<Semaphore>,
}

async fn listen(listening: Listening, mut closing: watch::Receiver<bool>) {
    let Listening { listener, tls, front, room } = listening;
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
                    if let Err(error) = connection(stream, tls, front, closing).await {
                        tracing::debug!(error, "a connection ended");
                    }
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
    closing: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Answers are small and wanted at once.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, ALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(&stream, ALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, ALIVE_PROBES)?;
    let Some(tls) = tls else {
        if tokio::time::timeout(FIRST_WORDS_MAX, speaks_http2(&stream)).await?? {
            connection::http2(stream, front, Arc::default(), closing).await?;
        } else {
            connection::http1(stream, front, Arc::default(), closing).await?;
        }
        return Ok(());
    };
    let (stream, peer) = tls.accept(stream).await?;
    let peer = Arc::new(peer);
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        connection::http2(stream, front, peer, closing).await?;
    } else {
        connection::http1(stream, front, peer, closing).await?;
    }
    Ok(())
}

/// What HTTP/2 begins with (RFC 9113, section 3.4) begins like no request of HTTP/1.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    let mut seen = [0; PREFACE.len()];
    loop {
        let bytes = stream.peek(&mut seen).await?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if seen[..bytes] != PREFACE[..bytes] {
            return Ok(false);
        }
        if bytes == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(FIRST_WORDS_PAUSE).await;
    }
}
