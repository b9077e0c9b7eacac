//! One connection of HTTP/2: its calls run in its own task.
//!
//! A call is a future in a set that is polled where the connection is: nothing is spawned for a call, nothing is handed
//! from thread to thread, and what several calls answer at once leaves in one write.
//!
//! ```text
//!   accept ──▶ route ──▶ send: head, message, trailers
//!                    └─▶ send: head, piece after piece while the client has room ──▶ trailers
//! ```

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::Status;

use super::authority::Mended;
use super::desk::Peer;
use super::front::Front;
use super::grpc;
use super::grpc::body::{Frames, Part, Reply};
use super::grpc::frame::Wire;

/// Bytes that a client may send ahead on one call and on one connection. A message is at most 2 MiB.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of answers that wait on one call for a client that does not read.
const SEND_BYTES_MAX: usize = 256 * 1024;

/// Calls that a client takes back before they were looked at. gRPC clients do that in good faith when deadlines pass.
const RESETS_MAX: usize = 4096;

/// Headers of one call.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Serves until the other end goes, or `closing` says so and the calls under way are answered.
pub async fn http2(
    io: impl AsyncRead + AsyncWrite + Unpin,
    front: Front,
    peer: Arc<Peer>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), h2::Error> {
    let mut builder = Builder::new();
    builder
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(front.options().streams_max)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(Some(RESETS_MAX))
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buffer_size(SEND_BYTES_MAX);
    let mut connection = builder.handshake::<_, Bytes>(Mended::new(io)).await?;
    let mut calls: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    let mut closing = pin!(async move { closing.wait_for(|closing| *closing).await.is_ok() });
    let mut open = true;
    let mut step = |cx: &mut Context<'_>| loop {
        if open && closing.as_mut().poll(cx).is_ready() {
            open = false;
            connection.graceful_shutdown();
        }
        let mut idle = true;
        // Polling it also writes what the calls have answered.
        while let Poll::Ready(accepted) = connection.poll_accept(cx) {
            let Some(accepted) = accepted else { return Poll::Ready(Ok(())) };
            match accepted {
                Ok((request, respond)) => {
                    calls.push(Box::pin(call(front.clone(), peer.clone(), request, respond)));
                    idle = false;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        while let Poll::Ready(Some(())) = calls.poll_next_unpin(cx) {
            idle = false;
        }
        if idle {
            return Poll::Pending;
        }
    };
    poll_fn(move |cx| step(cx)).await
}

/// Plain HTTP for those who speak nothing newer.
pub async fn http1(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    front: Front,
    peer: Arc<Peer>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (front, peer) = (front.clone(), peer.clone());
        async move { Ok::<_, Infallible>(front.answer(peer, request.map(Wire::Http1)).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let talk = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(io), service);
    let mut talk = pin!(talk);
    let closing = async { closing.wait_for(|closing| *closing).await.is_ok() };
    tokio::select! {
        ended = talk.as_mut() => ended,
        _ = closing => {
            talk.as_mut().graceful_shutdown();
            talk.await
        }
    }
}

async fn call(front: Front, peer: Arc<Peer>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut answer = pin!(front.answer(peer, request.map(Wire::Http2)));
    // A client that takes its call back, or goes away, wants no answer: what waits for one ends here.
    let answer = poll_fn(|cx| match respond.poll_reset(cx) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => answer.as_mut().poll(cx).map(Some),
    });
    if let Some(answer) = answer.await {
        // It fails when the client has gone, which is nobody's fault.
        let _ = send(answer, &mut respond).await;
    }
}

async fn send(answer: Response<Reply>, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (head, reply) = answer.into_parts();
    let head = Response::from_parts(head, ());
    match reply.into_part() {
        Part::Done => {
            respond.send_response(head, true)?;
        }
        Part::Trailers(trailers) => {
            respond.send_response(head, false)?.send_trailers(trailers)?;
        }
        Part::Plain(bytes) => {
            respond.send_response(head, false)?.send_data(bytes, true)?;
        }
        Part::Message(frame, trailers) => {
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(frame, false)?;
            stream.send_trailers(trailers)?;
        }
        Part::Stream(frames) => {
            let mut stream = respond.send_response(head, false)?;
            let ended = pump(frames, &mut stream).await?;
            let trailers = ended.map_or_else(|status| grpc::trailers(&status), |()| grpc::success());
            stream.send_trailers(trailers)?;
        }
        Part::Lines(frames) => {
            let mut stream = respond.send_response(head, false)?;
            let _ = pump(frames, &mut stream).await?;
            stream.send_trailers(HeaderMap::new())?;
        }
    }
    Ok(())
}

/// Asks for the next piece only when the client has room for it. Answers how the stream ended.
async fn pump(mut frames: Frames, stream: &mut SendStream<Bytes>) -> Result<Result<(), Status>, h2::Error> {
    loop {
        stream.reserve_capacity(1);
        while stream.capacity() == 0 {
            poll_fn(|cx| {
                if let Poll::Ready(reset) = stream.poll_reset(cx) {
                    return Poll::Ready(Err(gone(reset)));
                }
                stream.poll_capacity(cx).map(|room| room.unwrap_or_else(|| Err(Reason::CANCEL.into())))
            })
            .await?;
        }
        let next = poll_fn(|cx| match stream.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(gone(reset))),
            Poll::Pending => frames.as_mut().poll_next(cx).map(Ok),
        });
        match next.await? {
            Some(Ok(piece)) => stream.send_data(piece, false)?,
            Some(Err(status)) => return Ok(Err(status)),
            None => return Ok(Ok(())),
        }
    }
}

fn gone(reset: Result<Reason, h2::Error>) -> h2::Error {
    reset.map_or_else(|error| error, Into::into)
}
