//! Is the other side still there: bytes come in from it, and it takes bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

/// Both sides send a sign of life this often.
pub const LIFE_EVERY: Duration = Duration::from_millis(500);

/// Without any byte for so long, the other side or the way to it is gone. TCP alone would notice after many minutes.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Bytes that a slow link has [`SILENCE_MAX`] for.
const STEP_BYTES: usize = 64 * 1024;

/// When bytes came in last; `None` while nobody listens, which says nothing about the other side.
#[derive(Clone)]
pub struct Heard(Arc<Mutex<Option<Instant>>>);

impl Heard {
    pub fn now() -> Self {
        Self(Arc::new(Mutex::new(Some(Instant::now()))))
    }

    pub fn is_silent(&self) -> bool {
        self.0.lock().is_some_and(|last| last.elapsed() > SILENCE_MAX)
    }

    pub fn set_listening(&self, listening: bool) {
        *self.0.lock() = listening.then(Instant::now);
    }
}

/// Notes when bytes come.
pub struct Listening<R> {
    pub read: R,
    pub heard: Heard,
}

impl<R: AsyncRead + Unpin> AsyncRead for Listening<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.read).poll_read(cx, into);
        if into.filled().len() > before {
            self.heard.set_listening(true);
        }
        polled
    }
}

/// Writes all of it; fails when the other side takes nothing any more.
pub async fn write(pipe: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    for step in bytes.chunks(STEP_BYTES) {
        timeout(SILENCE_MAX, pipe.write_all(step)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    timeout(SILENCE_MAX, pipe.flush()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
