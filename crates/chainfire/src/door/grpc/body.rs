//! What goes back over a connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;

/// Frames of a stream, each with one message or several; an error ends it.
pub type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

pub struct Reply(Part);

enum Part {
    Done,
    /// All there is, without trailers.
    Plain(Bytes),
    Message(Bytes, HeaderMap),
    Trailers(HeaderMap),
    Stream(Frames),
}

impl Reply {
    pub fn empty() -> Self {
        Self(Part::Done)
    }

    /// For plain HTTP.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { Part::Done } else { Part::Plain(bytes) })
    }

    /// One framed message and success.
    pub fn message(frame: Bytes) -> Self {
        Self(Part::Message(frame, super::success()))
    }

    /// Of its message, when there is one.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Part::Message(frame, _) => frame.len(),
            Part::Done | Part::Plain(_) | Part::Trailers(_) | Part::Stream(_) => 0,
        }
    }

    pub fn stream(frames: Frames) -> Self {
        Self(Part::Stream(frames))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (frame, rest) = match std::mem::replace(&mut self.0, Part::Done) {
            Part::Done => return Poll::Ready(None),
            Part::Plain(bytes) => (Frame::data(bytes), Part::Done),
            Part::Message(bytes, trailers) => (Frame::data(bytes), Part::Trailers(trailers)),
            Part::Trailers(trailers) => (Frame::trailers(trailers), Part::Done),
            Part::Stream(mut frames) => match frames.as_mut().poll_next(cx) {
                Poll::Pending => {
                    self.0 = Part::Stream(frames);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(bytes))) => (Frame::data(bytes), Part::Stream(frames)),
                Poll::Ready(Some(Err(status))) => (Frame::trailers(super::trailers(&status)), Part::Done),
                Poll::Ready(None) => (Frame::trailers(super::success()), Part::Done),
            },
        };
        self.0 = rest;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Part::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Part::Done => SizeHint::with_exact(0),
            Part::Plain(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Part::Message(..) | Part::Trailers(_) | Part::Stream(_) => SizeHint::default(),
        }
    }
}
