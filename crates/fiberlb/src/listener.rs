//! The accept loop: how many connections a listener holds, and what becomes of one too many.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::{http, socket, tcp, tls};

/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refusals being written at once; further ones are closed without a word.
const REFUSALS_MAX: usize = 64;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// What a refused client has already sent, read so that the close does not take the refusal away from it.
const REFUSAL_READ_MAX: u64 = 64 * 1024;

/// Which protocol a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Http,
    Tls,
    Tcp(u16),
}

/// Serves `listener` until `stop`. Connections that are open then go on.
pub async fn run(listener: TcpListener, door: Door, engine: Arc<Engine>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(engine.limits.connections_max.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(?door, %error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!(?door, %peer, "connection refused: the listener is full");
            if door == Door::Http
                && let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned()
            {
                engine.tasks.spawn(async move {
                    let _refusal = refusal;
                    let _ = timeout(REFUSAL_TIMEOUT, refuse(stream)).await;
                });
            }
            continue;
        };
        socket::tune(&stream);
        let served = Arc::clone(&engine);
        engine.tasks.spawn(async move {
            let kill = served.kill.clone();
            let serve = async {
                match door {
                    Door::Http => http::serve(stream, peer, place, served).await,
                    Door::Tls => {
                        tls::serve(stream, &served).await;
                        drop(place);
                    }
                    Door::Tcp(port) => {
                        tcp::serve(stream, port, &served).await;
                        drop(place);
                    }
                }
            };
            tokio::select! {
                () = kill.cancelled() => {}
                () = serve => {}
            }
        });
    }
}

async fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(http::problem::full().as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REFUSAL_READ_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}
