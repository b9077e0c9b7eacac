//! A network in memory whose ways can be cut, as if by pulling a cable: nothing comes through and nobody is told.

use std::collections::{HashMap, HashSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use chainfire::member::peer::address::Address;
use chainfire::member::peer::network::{Listener, Network, Pipe};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;

/// Bytes under way on one connection.
const BUFFER_BYTES: usize = 256 * 1024;

#[derive(Clone, Default)]
pub struct Hub {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    listeners: HashMap<(String, u16), mpsc::Sender<(Pipe, String)>>,
    /// Pairs of hosts, the lesser first.
    cut: HashSet<(String, String)>,
    lines: Vec<((String, String), Arc<Line>)>,
}

#[derive(Default)]
struct Line {
    inner: Mutex<(Course, Vec<Waker>)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Course {
    #[default]
    Open,
    Cut,
    /// Was cut: what got lost does not come back.
    Broken,
}

fn pair(a: &str, b: &str) -> (String, String) {
    let (a, b) = if a < b { (a, b) } else { (b, a) };
    (a.to_owned(), b.to_owned())
}

impl Line {
    fn set(&self, course: Course) {
        let mut inner = self.inner.lock();
        inner.0 = course;
        inner.1.drain(..).for_each(Waker::wake);
    }

    fn course(&self, cx: &Context<'_>) -> Course {
        let mut inner = self.inner.lock();
        if inner.0 != Course::Broken {
            // Few wait at once, and those who have gone do not mind being woken.
            if inner.1.len() > 64 {
                inner.1.drain(..).for_each(Waker::wake);
            }
            inner.1.push(cx.waker().clone());
        }
        inner.0
    }
}

impl Hub {
    /// The network as `host` has it.
    pub fn network(&self, host: &str) -> Arc<dyn Network> {
        Arc::new(Seat { hub: self.clone(), host: host.to_owned() })
    }

    pub fn cut(&self, a: &str, b: &str) {
        let inner = &mut *self.inner.lock();
        let pair = pair(a, b);
        inner.lines.iter().filter(|(ends, _)| *ends == pair).for_each(|(_, line)| line.set(Course::Cut));
        inner.cut.insert(pair);
    }

    pub fn heal(&self, a: &str, b: &str) {
        let inner = &mut *self.inner.lock();
        let pair = pair(a, b);
        inner.cut.remove(&pair);
        inner.lines.retain(|(ends, line)| {
            if *ends == pair {
                line.set(Course::Broken);
            }
            *ends != pair
        });
    }
}

struct Seat {
    hub: Hub,
    host: String,
}

struct End {
    stream: DuplexStream,
    line: Arc<Line>,
}

#[async_trait]
impl Network for Seat {
    async fn connect(&self, to: &Address) -> io::Result<Pipe> {
        let (pipe, theirs, listener) = {
            let inner = &mut *self.hub.inner.lock();
            let pair = pair(&self.host, &to.host);
            let cut = inner.cut.contains(&pair);
            let line = Arc::new(Line::default());
            if cut {
                line.set(Course::Cut);
            }
            let listener = inner.listeners.get(&(to.host.clone(), to.port)).cloned();
            inner.lines.retain(|(_, line)| Arc::strong_count(line) > 1);
            inner.lines.push((pair, line.clone()));
            let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
            let theirs: Pipe = Box::new(End { stream: theirs, line: line.clone() });
            let ours: Pipe = Box::new(End { stream: ours, line });
            (ours, theirs, if cut { None } else { Some(listener.ok_or(io::ErrorKind::ConnectionRefused)?) })
        };
        let Some(listener) = listener else { return std::future::pending().await };
        let sent = listener.send((theirs, self.host.clone())).await;
        sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(pipe)
    }

    async fn listen(&self, at: &Address) -> io::Result<Box<dyn Listener>> {
        let (sender, receiver) = mpsc::channel(64);
        self.hub.inner.lock().listeners.insert((at.host.clone(), at.port), sender);
        Ok(Box::new(Accepting(receiver)))
    }
}

struct Accepting(mpsc::Receiver<(Pipe, String)>);

#[async_trait]
impl Listener for Accepting {
    async fn accept(&mut self) -> io::Result<(Pipe, String)> {
        match self.0.recv().await {
            Some(accepted) => Ok(accepted),
            // Somebody else listens here now.
            None => std::future::pending().await,
        }
    }
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.line.course(cx) {
            Course::Open => Pin::new(&mut self.stream).poll_read(cx, into),
            Course::Cut => Poll::Pending,
            Course::Broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.line.course(cx) {
            Course::Open => Pin::new(&mut self.stream).poll_write(cx, bytes),
            // Into the buffers of the system, as it were.
            Course::Cut => Poll::Ready(Ok(bytes.len())),
            Course::Broken => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
