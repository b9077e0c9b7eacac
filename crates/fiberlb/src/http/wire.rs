//! A client's socket with a sense of time.
//!
//! ```text
//!   at rest --first byte--> head arriving --head complete--> busy --answer sent--> at rest
//!   idle limit              head limit                       no limit here
//! ```
//!
//! The limits hold between requests only; during one, the request's own limits do. HTTP/2 has frames between requests,
//! so there only the idle limit counts. A write that the client does not take is limited at all times.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config::Limits;

/// What an HTTP/2 client that knows beforehand begins with; RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// Whether a connection is between requests, and since when.
#[derive(Debug)]
pub struct Activity {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    busy: usize,
    idle_since: Instant,
    head_since: Option<Instant>,
    /// Who waits in a read without a limit. It is woken at the end of the request, to wait with one: the HTTP
    /// implementation would not look again until bytes come.
    reader: Option<Waker>,
}

/// A request on a connection, from its head to the end of its answer.
#[derive(Debug)]
pub struct Busy(Arc<Activity>);

impl Activity {
    pub fn new() -> Self {
        Self { state: Mutex::new(State { busy: 0, idle_since: Instant::now(), head_since: None, reader: None }) }
    }

    pub fn begin(self: &Arc<Self>) -> Busy {
        let mut state = self.state.lock();
        state.busy += 1;
        state.head_since = None;
        Busy(Arc::clone(self))
    }

    fn arrived(&self) {
        let mut state = self.state.lock();
        if state.busy == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy -= 1;
        state.idle_since = Instant::now();
        state.head_since = None;
        let reader = if state.busy == 0 { state.reader.take() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// Read while finding out the version, not yet handed on.
    read_ahead: BytesMut,
    heads_timed: bool,
    header_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    read_alarm: Option<Pin<Box<Sleep>>>,
    write_alarm: Option<Pin<Box<Sleep>>>,
}

impl Wire {
    pub fn new(stream: TcpStream, activity: Arc<Activity>, limits: &Limits) -> Self {
        Self {
            stream,
            activity,
            read_ahead: BytesMut::new(),
            heads_timed: true,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: limits.write_timeout,
            read_alarm: None,
            write_alarm: None,
        }
    }

    /// Which version the client speaks; `None` when it went away first. What was read is read again afterwards.
    pub async fn sniff(&mut self) -> io::Result<Option<Version>> {
        let mut seen = BytesMut::with_capacity(1024);
        let version = loop {
            if self.read_buf(&mut seen).await? == 0 {
                return Ok(None);
            }
            let common = seen.iter().zip(PREFACE).take_while(|(got, expected)| got == expected).count();
            if common == PREFACE.len() {
                break Version::Http2;
            }
            if common < seen.len() {
                break Version::Http1;
            }
        };
        self.heads_timed = version == Version::Http1;
        self.read_ahead = seen;
        Ok(Some(version))
    }

    /// When a read that has nothing to give turns into an error; `None` during a request, at the end of which `reader`
    /// is woken.
    fn deadline(&self, reader: Option<&Waker>) -> Option<Instant> {
        let mut state = self.activity.state.lock();
        state.reader = reader.filter(|_| state.busy > 0).cloned();
        match state.head_since {
            _ if state.busy > 0 => None,
            Some(since) if self.heads_timed => Some(since + self.header_timeout),
            _ => Some(state.idle_since + self.idle_timeout),
        }
    }

    /// `Pending` with an alarm set for `deadline`, or the error when it has passed.
    fn wait(alarm: &mut Option<Pin<Box<Sleep>>>, deadline: Instant, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn written<T>(&mut self, result: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_alarm = None;
            return result;
        }
        let deadline =
            self.write_alarm.as_ref().map_or_else(|| Instant::now() + self.write_timeout, |one| one.deadline());
        Self::wait(&mut self.write_alarm, deadline, cx).map(|result| result.and(Err(io::ErrorKind::TimedOut.into())))
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.read_ahead.is_empty() {
            let count = this.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.read_ahead[..count]);
            this.read_ahead.advance(count);
            if this.read_ahead.is_empty() {
                this.read_ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                if buffer.filled().len() > before {
                    this.activity.arrived();
                    // A head that trickles in is never pending for long; its limit holds all the same.
                    if this.deadline(None).is_some_and(|deadline| deadline <= Instant::now()) {
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                }
                Poll::Ready(result)
            }
            Poll::Pending => match this.deadline(Some(cx.waker())) {
                Some(deadline) => Self::wait(&mut this.read_alarm, deadline, cx),
                None => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
