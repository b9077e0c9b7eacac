//! Request and answer on their way through, frame by frame; nothing is collected.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep};

use super::wire::Busy;
use crate::backend::Flight;

/// When a request's body last moved, and whether it came to a stand.
#[derive(Debug)]
pub struct Progress {
    state: Mutex<(Instant, bool)>,
}

impl Progress {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((Instant::now(), false)) })
    }

    pub fn last(&self) -> Instant {
        self.state.lock().0
    }

    pub fn stalled(&self) -> bool {
        self.state.lock().1
    }
}

/// A request's body on the way to a backend.
#[derive(Debug)]
pub enum Upload {
    Empty,
    Client(Box<Inflow>),
}

#[derive(Debug)]
pub struct Inflow {
    body: Incoming,
    progress: Arc<Progress>,
    limit: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    pub fn new(body: Incoming, progress: Arc<Progress>, limit: Duration) -> Self {
        if body.is_end_stream() {
            return Upload::Empty;
        }
        Upload::Client(Box::new(Inflow { body, progress, limit, alarm: None }))
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Upload::Empty)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Upload::Client(inflow) = self.get_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(&mut inflow.body).poll_frame(cx) {
            inflow.alarm = None;
            inflow.progress.state.lock().0 = Instant::now();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = inflow.limit;
        let alarm = inflow.alarm.get_or_insert_with(|| Box::pin(sleep(limit)));
        if alarm.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        inflow.progress.state.lock().1 = true;
        Poll::Ready(Some(Err("the client's body stood still".into())))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Upload::Empty => true,
            Upload::Client(inflow) => inflow.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Upload::Empty => SizeHint::with_exact(0),
            Upload::Client(inflow) => inflow.body.size_hint(),
        }
    }
}

/// An answer's body on the way to the client. It carries what ends with it: the request's place in the counts.
#[derive(Debug)]
pub struct Download {
    source: Source,
    _busy: Busy,
}

#[derive(Debug)]
enum Source {
    Own(Option<Bytes>),
    Backend { body: Incoming, flight: Option<Flight> },
}

impl Download {
    pub fn own(bytes: Bytes, busy: Busy) -> Self {
        Self { source: Source::Own(Some(bytes).filter(|bytes| !bytes.is_empty())), _busy: busy }
    }

    pub fn backend(body: Incoming, flight: Flight, busy: Busy) -> Self {
        Self { source: Source::Backend { body, flight: Some(flight) }, _busy: busy }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut self.get_mut().source {
            Source::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Backend { body, flight } => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                // The backend has done its part, however slowly the client takes the rest.
                if !matches!(frame, Some(Ok(_))) {
                    *flight = None;
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Backend { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Backend { body, .. } => body.size_hint(),
        }
    }
}
