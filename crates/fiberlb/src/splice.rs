//! Bytes from one connection to another, both ways, untouched.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use crate::backend::Flight;
use crate::engine::{Engine, Key, Miss};
use crate::socket;

/// Per direction; a connection at rest holds two.
const BUFFER: usize = 16 * 1024;
/// Backends that one connection may try.
const ATTEMPTS_MAX: usize = 4;

/// Copies until both sides have ended; an end on one side is passed on while the other still speaks. Ends early when
/// the backend is cut.
pub async fn splice<A, B>(mut client: A, mut backend: B, flight: &Flight, engine: &Engine)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    tokio::select! {
        _ = copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER) => {}
        () = flight.backend().cut.cancelled() => {}
        () = engine.kill.cancelled() => {}
    }
}

/// A connection to a backend of `key`, trying others while they refuse.
pub async fn connect(engine: &Engine, key: Key<'_>) -> Result<(TcpStream, Flight), Miss> {
    let mut tried = Vec::new();
    while tried.len() < ATTEMPTS_MAX {
        let flight = engine.pick_awake(key, &tried).await?;
        match socket::connect(flight.backend().addr, engine.limits.connect_timeout).await {
            Ok(stream) => {
                flight.succeeded();
                return Ok((stream, flight));
            }
            Err(error) => {
                flight.failed(engine.clock.monotonic(), &engine.limits, &error);
                tried.push(Arc::clone(flight.backend()));
            }
        }
    }
    Err(Miss::Exhausted)
}
