//! Server-sent events: rows as they change, and the log as it grows.
//!
//! An id is sent with the last event of a revision alone: who breaks off within one gets the whole revision again.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use model::{Code, Error, Event, Id, Row, Scope};
use reconcile::{keys, log, rows as table};
use serde_json::json;
use store::{EventKind, Revision, WatchEvent, WatchRequest, Watcher};
use tokio::sync::mpsc;

use super::call::{Call, Slot};
use super::problem::{Problem, Refusal};
use super::stream::revoked;
use super::{Cloud, wire, with_type};

const LAST_EVENT_ID: &str = "last-event-id";
/// A comment keeps proxies from ending a quiet stream, and notices a caller that went away.
const KEEP_ALIVE_SECONDS: u64 = 15;
/// Events that wait for a slow caller before the watch is held.
const EVENTS_WAITING_MAX: usize = 64;
/// Events of the past that are read at once.
const HISTORY_PAGE: usize = 500;

/// The caller is gone.
struct Closed;

/// Towards the caller.
struct Sink {
    sender: mpsc::Sender<Bytes>,
}

impl Sink {
    async fn send(&self, event: Option<&str>, id: Option<u64>, data: &impl serde::Serialize) -> Result<(), Closed> {
        use std::fmt::Write as _;
        let mut text = String::new();
        if let Some(event) = event {
            let _ = writeln!(text, "event: {event}");
        }
        if let Some(id) = id {
            let _ = writeln!(text, "id: {id}");
        }
        // JSON of serde_json is one line.
        let _ = write!(text, "data: {}\n\n", serde_json::to_string(data).unwrap_or_default());
        self.sender.send(text.into()).await.map_err(|_| Closed)
    }

    async fn comment(&self) -> Result<(), Closed> {
        self.sender.send(Bytes::from_static(b": keep-alive\n\n")).await.map_err(|_| Closed)
    }
}

/// Where to begin: `from` itself again, or what follows `Last-Event-ID`.
fn begin(call: &Call) -> Result<Option<u64>, Error> {
    if let Some(last) = call.parts.headers.get(LAST_EVENT_ID) {
        let last = last.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
        let last = last.ok_or_else(|| Error::invalid("Last-Event-ID", "`Last-Event-ID` must be a number"))?;
        return Ok(Some(last.saturating_add(1)));
    }
    Ok(call.query.number("from"))
}

fn from_watch(error: store::Error) -> Error {
    match error {
        store::Error::Compacted { compacted } => {
            Error::new(Code::PreconditionFailed, format!("the history up to revision {compacted} is gone"))
                .hint("read again without `from`")
                .reason("revision_compacted")
        }
        other => table::from_store(other),
    }
}

async fn watcher(cloud: &Cloud, prefix: Bytes, from: u64) -> Result<Watcher, Error> {
    let request = WatchRequest::prefix(prefix).from(Revision(from));
    cloud.door.store().watch(request).await.map_err(from_watch)
}

/// Answers with what `work` sends, until it ends, the caller leaves or its token holds no longer.
fn answer<W: Future<Output = Result<(), Closed>> + Send + 'static>(
    mut call: Call,
    work: impl FnOnce(Sink) -> W,
) -> Result<Response, Refusal> {
    let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    let slot = std::mem::replace(&mut call.slot, Slot::Free);
    let ended = revoked(call.cloud.clone(), call.principal()?.clone());
    let left = sender.clone();
    let work = work(Sink { sender });
    tokio::spawn(async move {
        let _slot = slot;
        tokio::select! {
            _ = work => {}
            () = ended => {}
            () = left.closed() => {}
        }
    });
    let body = tokio_stream::StreamExt::map(tokio_stream::wrappers::ReceiverStream::new(receiver), |event| {
        Ok::<_, std::convert::Infallible>(event)
    });
    Ok(with_type(StatusCode::OK, "text/event-stream", Body::from_stream(body)))
}

/// The next batch, with comments while there is none; nothing after the end or an error, which is told.
async fn next(watcher: &mut Watcher, sink: &Sink, request_id: &Id) -> Result<Option<store::Batch>, Closed> {
    let quiet = Duration::from_secs(KEEP_ALIVE_SECONDS);
    loop {
        match tokio::time::timeout(quiet, watcher.next()).await {
            Ok(Ok(batch)) => return Ok(batch),
            Ok(Err(error)) => {
                failed(sink, &from_watch(error), request_id).await?;
                return Ok(None);
            }
            Err(_) => sink.comment().await?,
        }
    }
}

async fn failed(sink: &Sink, error: &Error, request_id: &Id) -> Result<(), Closed> {
    sink.send(Some("error"), None, &Problem::of(error, error.code.http_status(), request_id)).await
}

/// Rows of one kind.
pub async fn rows(call: Call) -> Result<Response, Refusal> {
    let (cloud, kind, seen) = (call.cloud.clone(), call.kind(), call.seen()?);
    let scope = seen.scope.clone();
    let (present, from) = match begin(&call)? {
        Some(from) => (None, from),
        None => {
            let page = table::list(&**cloud.door.store(), &scope, kind, None, usize::MAX, |_| true).await?;
            let above = seen.above.iter().filter(|row| row.kind == kind).cloned();
            let rows: Vec<Row> = above.chain(page.rows).collect();
            (Some((rows, page.revision)), page.revision + 1)
        }
    };
    let mut watcher = watcher(&cloud, keys::rows_below(&scope), from).await?;
    let request_id = call.request_id.clone();
    answer(call, move |sink| async move {
        if let Some((rows, revision)) = present {
            for row in &rows {
                sink.send(Some("put"), None, &wire::row(&cloud, row)).await?;
            }
            sink.send(Some("sync"), Some(revision), &json!({"revision": revision})).await?;
        }
        while let Some(batch) = next(&mut watcher, &sink, &request_id).await? {
            send_rows(&cloud, &sink, kind, &batch).await?;
        }
        Ok(())
    })
}

async fn send_rows(cloud: &Cloud, sink: &Sink, kind: &str, batch: &store::Batch) -> Result<(), Closed> {
    let about: Vec<&WatchEvent> =
        batch.events.iter().filter(|event| keys::kind_of(&event.kv.key) == Some(kind)).collect();
    for (place, event) in about.iter().enumerate() {
        let id = (place + 1 == about.len()).then_some(batch.revision.0);
        match event.kind {
            EventKind::Put => match serde_json::from_slice::<Row>(&event.kv.value) {
                Ok(row) => sink.send(Some("put"), id, &wire::row(cloud, &row)).await?,
                Err(error) => tracing::error!(%error, "a row cannot be read and is left out of a watch"),
            },
            EventKind::Delete => {
                let gone = keys::id_of(&event.kv.key);
                sink.send(Some("delete"), id, &json!({"id": gone})).await?;
            }
        }
    }
    Ok(())
}

/// The log.
pub async fn events(call: Call) -> Result<Response, Refusal> {
    let (cloud, scope) = (call.cloud.clone(), call.seen()?.scope.clone());
    let begin = begin(&call)?;
    let newest = cloud.door.store().status().await.map_err(table::from_store)?.revision.0;
    // The watch begins where the past ends: what is logged between the two is in neither twice nor missing.
    let mut watcher = watcher(&cloud, keys::log_below(&scope), begin.unwrap_or(0).max(newest + 1)).await?;
    let request_id = call.request_id.clone();
    answer(call, move |sink| async move {
        if let Some(from) = begin
            && let Err(error) = past(&cloud, &sink, &scope, from, newest).await?
        {
            return failed(&sink, &error, &request_id).await;
        }
        while let Some(batch) = next(&mut watcher, &sink, &request_id).await? {
            let read = |event: &WatchEvent| log::read(&event.kv.value, batch.revision).ok();
            let put = batch.events.iter().filter(|event| event.kind == EventKind::Put);
            send_events(&sink, &put.filter_map(read).collect::<Vec<Event>>()).await?;
        }
        Ok(())
    })
}

/// Sends the events of `from..=to`.
async fn past(
    cloud: &Arc<Cloud>,
    sink: &Sink,
    scope: &Scope,
    mut from: u64,
    to: u64,
) -> Result<Result<(), Error>, Closed> {
    while from <= to {
        let page = match log::since(&**cloud.door.store(), scope, from, HISTORY_PAGE).await {
            Ok(page) => page,
            Err(error) => return Ok(Err(error)),
        };
        let events: Vec<Event> = page.events.into_iter().filter(|event| event.sequence <= to).collect();
        if events.is_empty() {
            break;
        }
        for command in events.chunk_by(|a, b| a.sequence == b.sequence) {
            send_events(sink, command).await?;
        }
        from = page.next;
    }
    Ok(Ok(()))
}

/// Sends events of one sequence.
async fn send_events(sink: &Sink, events: &[Event]) -> Result<(), Closed> {
    for (place, event) in events.iter().enumerate() {
        let id = (place + 1 == events.len()).then_some(event.sequence);
        sink.send(None, id, event).await?;
    }
    Ok(())
}
