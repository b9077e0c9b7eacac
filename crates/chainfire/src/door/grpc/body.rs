//! What goes back over a connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;

use super::frame::PREFIX_BYTES;

/// Frames of a stream, each with one message or several; an error ends it.
pub type Frames = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

pub struct Reply(Part);

pub enum Part {
    Done,
    /// All there is, without trailers.
    Plain(Bytes),
    /// A framed message, and its trailers.
    Message(Bytes, HeaderMap),
    Trailers(HeaderMap),
    /// Frames, and then trailers.
    Stream(Frames),
    /// Without trailers.
    Lines(Frames),
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
            Part::Done | Part::Plain(_) | Part::Trailers(_) | Part::Stream(_) | Part::Lines(_) => 0,
        }
    }

    pub fn into_part(self) -> Part {
        self.0
    }

    /// The message without its frame.
    pub fn into_message(self) -> Option<Bytes> {
        match self.0 {
            Part::Message(frame, _) => Some(frame.slice(PREFIX_BYTES..)),
            Part::Done | Part::Plain(_) | Part::Trailers(_) | Part::Stream(_) | Part::Lines(_) => None,
        }
    }

    /// The frames of a stream; none for anything else.
    pub fn into_stream(self) -> Frames {
        match self.0 {
            Part::Stream(frames) => frames,
            Part::Done | Part::Plain(_) | Part::Message(..) | Part::Trailers(_) | Part::Lines(_) => {
                Box::pin(futures::stream::empty())
            }
        }
    }

    /// The same with its frames changed, when it has any.
    pub fn map_stream(self, change: impl FnOnce(Frames) -> Frames) -> Self {
        match self.0 {
            Part::Stream(frames) => Self(Part::Stream(change(frames))),
            other => Self(other),
        }
    }

    /// For plain HTTP, piece after piece.
    pub fn lines(frames: Frames) -> Self {
        Self(Part::Lines(frames))
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
            Part::Lines(mut frames) => match frames.as_mut().poll_next(cx) {
                Poll::Pending => {
                    self.0 = Part::Lines(frames);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(bytes))) => (Frame::data(bytes), Part::Lines(frames)),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
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
            Part::Message(..) | Part::Trailers(_) | Part::Stream(_) | Part::Lines(_) => SizeHint::default(),
        }
    }
}
