//! A kind's own streams. What flows is the kind's; how it is carried is decided here.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::StatusCode;
use iam::Principal;
use model::{Code, Error, Row};
use serde_json::Value;

use super::call::Call;
use super::problem::{Problem, Refusal};
use super::{Cloud, with_type};

/// One message of a WebSocket.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// From the upgrade to the message that says what is wanted.
const FIRST_MESSAGE_SECONDS_MAX: u64 = 10;
/// How often a quiet peer is asked whether it is still there, and after how many unanswered times it is not.
const PING_SECONDS: u64 = 20;
const PINGS_UNANSWERED_MAX: u32 = 3;
/// How often a stream looks whether its token still holds: a deleted one ends its streams.
const TOKEN_LOOK_MS: u64 = 500;

/// WebSocket close codes (RFC 6455, section 7.4.1).
const CLOSE_NORMAL: u16 = 1000;
const CLOSE_GOING_AWAY: u16 = 1001;
const CLOSE_UNSUPPORTED: u16 = 1003;
/// An error's HTTP status is added, in the range that RFC 6455 leaves to applications.
const CLOSE_ERROR: u16 = 4000;
/// Bytes of the reason in a close frame.
const CLOSE_REASON_BYTES_MAX: usize = 120;

/// Returns when a stream of this principal has to end: the service stops, or the token holds no longer.
pub async fn revoked(cloud: Arc<Cloud>, principal: Principal) {
    let mut look = tokio::time::interval(Duration::from_millis(TOKEN_LOOK_MS));
    loop {
        tokio::select! {
            () = cloud.closing.cancelled() => return,
            _ = look.tick() => {}
        }
        if principal.expires_ms.is_some_and(|end| end <= cloud.door.clock().now_ms()) {
            return;
        }
        let known = cloud.rows.table().get(&principal.id).map(|row| row.deleting());
        // The view may not have caught up with a token that was just made.
        let gone = known.is_none() && matches!(cloud.door.get(&principal.id).await, Ok(None));
        if gone || known == Some(true) {
            return;
        }
    }
}

/// One direction: lines of JSON.
pub async fn lines(call: Call, name: &'static str) -> Result<Response, Refusal> {
    let Call { cloud, query, slot, principal, .. } = &call;
    let principal = principal.clone().ok_or_else(|| Error::internal("a stream has a principal"))?;
    let stream = open(cloud, call.row()?, name, Value::Object(query.object())).await?;
    let ended = revoked(cloud.clone(), principal);
    let _ = slot;
    // The input side is held although nothing is sent: dropping it hangs up.
    let reconcile::Stream { input, output } = stream;
    let messages = tokio_stream::wrappers::ReceiverStream::new(output).take_until(ended).map(move |message: Bytes| {
        let (_held, _slot) = (&input, &call.slot);
        Ok::<_, std::convert::Infallible>(line(message))
    });
    Ok(with_type(StatusCode::OK, "application/x-ndjson", Body::from_stream(messages)))
}

fn line(message: Bytes) -> Bytes {
    if message.ends_with(b"\n") {
        return message;
    }
    let mut line = Vec::with_capacity(message.len() + 1);
    line.extend_from_slice(&message);
    line.push(b'\n');
    line.into()
}

async fn open(cloud: &Cloud, row: &Row, name: &str, parameters: Value) -> Result<reconcile::Stream, Error> {
    let kind = cloud.door.registry().get(&row.kind).ok_or_else(|| Error::not_found(&row.id))?;
    kind.stream(row, name, parameters).await
}

/// Both directions: a WebSocket. Its first message is a JSON text that says what is wanted; frames follow.
pub async fn duplex(mut call: Call, name: &'static str) -> Result<Response, Refusal> {
    let row = call.row()?.clone();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut call.parts, &()).await.map_err(|error| {
        let error = Error::new(Code::InvalidArgument, "this is a WebSocket").why(error.to_string());
        Refusal::from(error.hint("connect with HTTP/1.1 and `Upgrade: websocket`")).status(StatusCode::UPGRADE_REQUIRED)
    })?;
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    let tasks = call.cloud.closing.clone();
    Ok(upgrade.on_upgrade(move |mut socket| async move {
        let request_id = call.request_id.clone();
        let ended = tokio::select! {
            ended = talk(&mut socket, &call, &row, name) => ended,
            () = tasks.cancelled() => Ok(CLOSE_GOING_AWAY),
        };
        let close = match ended {
            Ok(code) => CloseFrame { code, reason: "".into() },
            Err(error) => {
                let problem = Problem::of(&error, error.code.http_status(), &request_id);
                let text = serde_json::to_string(&problem).unwrap_or_default();
                // The peer may be gone; then nobody waits for the reason.
                let _ = socket.send(Message::Text(text.into())).await;
                let code = CLOSE_ERROR + error.code.http_status();
                CloseFrame { code, reason: shortened(&error.message).into() }
            }
        };
        let _ = socket.send(Message::Close(Some(close))).await;
    }))
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(CLOSE_REASON_BYTES_MAX)]
}

async fn talk(socket: &mut WebSocket, call: &Call, row: &Row, name: &str) -> Result<u16, Error> {
    let request = first(socket).await?;
    let mut parameters = call.query.object();
    parameters.insert("request".to_owned(), request);
    let reconcile::Stream { input, mut output } = open(&call.cloud, row, name, Value::Object(parameters)).await?;
    let principal = call.principal()?.clone();
    let revoked = revoked(call.cloud.clone(), principal);
    tokio::pin!(revoked);
    let mut ping = tokio::time::interval(Duration::from_secs(PING_SECONDS));
    ping.tick().await;
    let mut unanswered = 0;
    // A frame that the row's side has not taken yet. Until then the caller is not read: it waits, not we.
    let mut held: Option<Bytes> = None;
    // The row's side may stop to listen while it still has something to say.
    let mut listening = true;
    loop {
        tokio::select! {
            permit = input.reserve(), if listening && held.is_some() => {
                let frame = held.take();
                match (permit, frame) {
                    (Ok(permit), Some(frame)) => permit.send(frame),
                    _ => listening = false,
                }
            }
            message = socket.recv(), if held.is_none() => {
                unanswered = 0;
                match message {
                    Some(Ok(Message::Binary(frame))) => held = listening.then_some(frame),
                    Some(Ok(Message::Text(_))) => return Ok(CLOSE_UNSUPPORTED),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(CLOSE_NORMAL),
                }
            }
            frame = output.recv() => {
                let Some(frame) = frame else { return Ok(CLOSE_NORMAL) };
                if socket.send(Message::Binary(frame)).await.is_err() {
                    return Ok(CLOSE_NORMAL);
                }
            }
            _ = ping.tick() => {
                unanswered += 1;
                if unanswered > PINGS_UNANSWERED_MAX || socket.send(Message::Ping(Bytes::new())).await.is_err() {
                    return Ok(CLOSE_GOING_AWAY);
                }
            }
            () = &mut revoked => return Ok(CLOSE_GOING_AWAY),
        }
    }
}

/// What is wanted: the first message, a JSON text.
async fn first(socket: &mut WebSocket) -> Result<Value, Error> {
    let receive = async {
        loop {
            match socket.recv().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return other,
            }
        }
    };
    let limit = Duration::from_secs(FIRST_MESSAGE_SECONDS_MAX);
    let invalid = |message: &str| Error::invalid("request", message);
    match tokio::time::timeout(limit, receive).await {
        Ok(Some(Ok(Message::Text(text)))) => serde_json::from_str(&text)
            .map_err(|error| Error::invalid("request", format!("the first message is not JSON: {error}"))),
        Ok(Some(Ok(Message::Binary(_)))) => Err(invalid("the first message must be a JSON text")),
        Ok(_) => Err(invalid("the connection ended before the first message")),
        Err(_) => Err(invalid("the first message did not arrive in time")),
    }
}
