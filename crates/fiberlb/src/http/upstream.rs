//! One connection to a backend, and one request on it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until};

use super::body::{Progress, Upload};
use super::pool::Sender;
use crate::backend::{Backend, Flight};
use crate::engine::Engine;
use crate::socket;

/// A request that cannot be sent twice takes a waiting connection only if that has waited no longer than this: a
/// backend closes connections that wait, and one that it closes as the request comes would lose the request.
const FRESH: Duration = Duration::from_millis(500);

/// How an attempt failed.
#[derive(Debug)]
pub enum Failure {
    /// No connection; nothing was sent.
    Connect(io::Error),
    /// The connection was gone before anything was sent; here is the body, whole.
    Unsent(Upload),
    /// Sent in part or whole, and no answer.
    Lost(hyper::Error),
    /// No answer in time.
    TimedOut,
}

pub struct Connection {
    pub sender: Sender,
    /// It has served a request before, so the backend may be about to close it.
    pub reused: bool,
}

/// A waiting connection or a new one.
pub async fn connection(
    flight: &Flight,
    engine: &Engine,
    repeatable: bool,
    reuse: bool,
) -> Result<Connection, Failure> {
    let backend = flight.backend();
    if reuse {
        let age_max = if repeatable { Duration::MAX } else { FRESH };
        if let Some(sender) = backend.pool.take(age_max, &engine.limits) {
            return Ok(Connection { sender, reused: true });
        }
    }
    let stream = tokio::select! {
        stream = socket::connect(backend.addr, engine.limits.connect_timeout) => stream.map_err(Failure::Connect)?,
        () = backend.cut.cancelled() => return Err(Failure::Connect(io::ErrorKind::ConnectionAborted.into())),
    };
    let mut builder = http1::Builder::new();
    builder.max_headers(engine.limits.header_count_max.max(100));
    let (sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| Failure::Connect(io::Error::other(error)))?;
    let (cut, kill) = (backend.cut.clone(), engine.kill.clone());
    engine.tasks.spawn(async move {
        tokio::select! {
            result = connection.with_upgrades() => if let Err(error) = result {
                tracing::debug!(%error, "connection to a backend ended");
            },
            // Ends the request on it as well, whoever waits for that.
            () = cut.cancelled() => {}
            () = kill.cancelled() => {}
        }
    });
    Ok(Connection { sender, reused: false })
}

/// Sends `request` and waits for the head of the answer, `response_timeout` from the last movement of the request.
pub async fn send(
    sender: &mut Sender,
    request: Request<Upload>,
    progress: &Progress,
    engine: &Engine,
) -> Result<Response<Incoming>, Failure> {
    let limit = engine.limits.response_timeout;
    let sent = Instant::now();
    let mut answer = std::pin::pin!(sender.try_send_request(request));
    loop {
        let deadline = progress.last().max(sent) + limit;
        tokio::select! {
            answer = answer.as_mut() => return answer.map_err(|mut error| match error.take_message() {
                Some(request) => Failure::Unsent(request.into_body()),
                None => Failure::Lost(error.into_error()),
            }),
            () = sleep_until(deadline) => if progress.last().max(sent) + limit <= Instant::now() {
                return Err(Failure::TimedOut);
            },
        }
    }
}

/// Keeps the connection for the next request, once this one is over on both sides.
pub fn give_back(mut sender: Sender, backend: &Arc<Backend>, engine: &Arc<Engine>) {
    if sender.is_ready() {
        backend.pool.put(sender, &engine.limits);
        return;
    }
    let (backend, kept) = (Arc::clone(backend), Arc::clone(engine));
    engine.tasks.spawn(async move {
        if sender.ready().await.is_ok() {
            backend.pool.put(sender, &kept.limits);
        }
    });
}
