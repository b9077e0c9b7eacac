//! What a workload said: one line of JSON per line, on the node's disk and nowhere else.
//!
//! ```text
//!   guest -> channel -> Store::append -> FOLDER/log  (10 MiB, then log.1)
//!                           |
//!                           +-> newest number -> every follower reads on
//! ```
//!
//! Lines are numbered by the engine from 1 over all boots of a machine, without gaps; a line that fell out of the files
//! is gone. Nothing here waits for the disk: after a power cut the last lines may miss.

mod read;

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use read::{LineStream, TAIL_MAX};

use crate::rotate::Rotating;

/// Each of the two files, in bytes.
pub const FILE_BYTES_MAX: u64 = 10 << 20;

/// Which output of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// One line, without its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// From 1, growing, without gaps over all boots of the machine.
    pub seq: u64,
    /// Nanoseconds since the Unix epoch, by the guest's clock.
    #[serde(rename = "ts")]
    pub ts_ns: u64,
    pub stream: Stream,
    /// At most 16 KiB; what was not UTF-8 is replaced.
    pub line: String,
    /// The line was longer and goes on in the next one of the same stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// Which lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Of what is there now only the last lines, at most [`TAIL_MAX`]; `None` for all.
    pub tail: Option<usize>,
    /// Go on with new lines as they come, until the machine is destroyed or the stream is dropped.
    pub follow: bool,
    /// Only lines of this time or later, in nanoseconds since the Unix epoch.
    pub since_ns: Option<u64>,
}

/// A line as it is kept: with the guest's own numbering, so that a program that comes back can ask for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    line: LogLine,
    /// The guest's boot, and its number of the line in it, from 0.
    boot: String,
    n: u64,
}

/// The log of one machine.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    inner: Mutex<Inner>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    file: Rotating,
    seq: u64,
    boot: String,
    next: u64,
}

impl Store {
    /// Opens the log in `folder`, which goes on after the last whole line in it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("log");
        let last = read::last(&path)?;
        let mut file = Rotating::open(&path, FILE_BYTES_MAX)?;
        if read::ends_in_the_middle(&path)? {
            file.write(b"\n")?;
        }
        let (seq, boot, next) = last.map_or((0, String::new(), 0), |kept| (kept.line.seq, kept.boot, kept.n + 1));
        Ok(Self { path, inner: Mutex::new(Inner { file, seq, boot, next }), newest: watch::Sender::new(seq) })
    }

    /// The number of the first line of that boot which is not here.
    pub fn next_of(&self, boot: &str) -> u64 {
        let inner = self.inner.lock();
        if inner.boot == boot { inner.next } else { 0 }
    }

    /// Appends one line of a guest. A line that is here already (the guest sent it again) is left out.
    pub fn append(&self, boot: &str, n: u64, ts_ns: u64, stream: Stream, partial: bool, text: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if inner.boot == boot && n < inner.next {
            return Ok(());
        }
        let line =
            LogLine { seq: inner.seq + 1, ts_ns, stream, line: String::from_utf8_lossy(text).into_owned(), partial };
        let kept = Kept { line, boot: boot.to_owned(), n };
        let mut bytes = serde_json::to_vec(&kept).map_err(io::Error::from)?;
        bytes.push(b'\n');
        inner.file.write(&bytes)?;
        (inner.seq, inner.next) = (inner.seq + 1, n + 1);
        if inner.boot != boot {
            boot.clone_into(&mut inner.boot);
        }
        self.newest.send_replace(inner.seq);
        Ok(())
    }

    /// The lines asked for, in order.
    pub fn read(&self, query: LogQuery) -> io::Result<LineStream> {
        read::stream(&self.path, query, self.newest.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    async fn lines(store: &Store, query: LogQuery) -> Vec<String> {
        store.read(query).unwrap().map(|line| line.line).collect().await
    }

    #[tokio::test]
    async fn tail_and_since_choose_lines() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for n in 0..20 {
            store.append("b1", n, 1000 + n, Stream::Stdout, false, format!("line {n}").as_bytes()).unwrap();
        }
        assert_eq!(lines(&store, LogQuery { tail: Some(2), ..LogQuery::default() }).await, ["line 18", "line 19"]);
        assert_eq!(
            lines(&store, LogQuery { since_ns: Some(1018), ..LogQuery::default() }).await,
            ["line 18", "line 19"]
        );
        assert_eq!(lines(&store, LogQuery::default()).await.len(), 20);
        assert_eq!(lines(&store, LogQuery { tail: Some(0), ..LogQuery::default() }).await.len(), 0);
    }

    #[tokio::test]
    async fn a_log_goes_on_after_a_crash_and_takes_no_line_twice() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.append("b1", 0, 1, Stream::Stdout, false, b"one").unwrap();
        store.append("b1", 1, 2, Stream::Stderr, false, b"tw\xffo").unwrap();
        drop(store);
        // Died in the middle of a line.
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new().append(true).open(folder.path().join("log")).unwrap();
        file.write_all(b"{\"seq\":3,\"ts\"").unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!((store.next_of("b1"), store.next_of("b2")), (2, 0));
        store.append("b1", 1, 2, Stream::Stderr, false, b"again").unwrap();
        store.append("b1", 2, 3, Stream::Stdout, false, b"three").unwrap();
        store.append("b2", 0, 4, Stream::Stdout, false, b"four").unwrap();
        let read: Vec<_> = store.read(LogQuery::default()).unwrap().collect().await;
        let seen: Vec<_> = read.iter().map(|line| (line.seq, line.line.as_str())).collect();
        assert_eq!(seen, [(1, "one"), (2, "tw\u{fffd}o"), (3, "three"), (4, "four")]);
    }

    #[tokio::test]
    async fn a_follower_crosses_the_change_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = std::sync::Arc::new(Store::open(folder.path()).unwrap());
        store.append("b", 0, 0, Stream::Stdout, false, b"first").unwrap();
        let mut follower = store.read(LogQuery { tail: Some(1), follow: true, since_ns: None }).unwrap();
        assert_eq!(follower.next().await.unwrap().line, "first");
        let writer = tokio::spawn({
            let store = store.clone();
            async move {
                // More than one file holds, fewer than two.
                for n in 1..1000_u64 {
                    store.append("b", n, n, Stream::Stdout, false, &vec![b'x'; 15_000]).unwrap();
                    if n % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        for seq in 2..=1000 {
            assert_eq!(follower.next().await.unwrap().seq, seq);
        }
        writer.await.unwrap();
        assert!(folder.path().join("log.1").is_file());
        drop(store);
        assert!(follower.next().await.is_none(), "it ends with the log");
    }
}
