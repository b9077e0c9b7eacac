//! Reading a log: from its end backwards to find where to begin, then forwards, then on with what is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::{mpsc, watch};

use super::{Kept, LogLine, LogQuery};
use crate::rotate::older;

/// The most lines a tail gives.
pub const TAIL_MAX: usize = 10_000;
/// Read at a time, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// A kept line is at most 16 KiB of text, each byte up to six in JSON; a longer one is damage and is skipped.
const LINE_BYTES_MAX: usize = 256 << 10;
/// Lines read ahead of a slow reader.
const AHEAD_MAX: usize = 256;

/// Lines in order of their numbers.
#[derive(Debug)]
pub struct LineStream {
    lines: mpsc::Receiver<LogLine>,
}

impl Stream for LineStream {
    type Item = LogLine;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<LogLine>> {
        self.lines.poll_recv(context)
    }
}

pub(super) fn stream(path: &Path, query: LogQuery, newest: watch::Receiver<u64>) -> io::Result<LineStream> {
    let (older, current) = (open(&older(path))?, open(path)?);
    let tail = query.tail.map(|tail| tail.min(TAIL_MAX));
    let (mut skip_older, mut start) = (false, 0);
    if let Some(tail) = tail {
        let (at, found) = match &current {
            Some(file) => tail_start(file, tail)?,
            None => (0, 0),
        };
        (start, skip_older) = (at, found >= tail);
        if let (false, Some(file)) = (skip_older, &older) {
            let (at, _) = tail_start(file, tail - found)?;
            return Ok(spawn(path, query, newest, vec![(older, at), (current, 0)]));
        }
    }
    let files = if skip_older { vec![(current, start)] } else { vec![(older, 0), (current, start)] };
    Ok(spawn(path, query, newest, files))
}

fn spawn(path: &Path, query: LogQuery, newest: watch::Receiver<u64>, files: Vec<(Option<File>, u64)>) -> LineStream {
    let (sender, lines) = mpsc::channel(AHEAD_MAX);
    let reader = Reader { path: path.to_owned(), query, sender, last: 0 };
    tokio::spawn(async move {
        if let Err(error) = reader.run(files, newest).await {
            tracing::warn!(%error, "a log could not be read on");
        }
    });
    LineStream { lines }
}

struct Reader {
    path: PathBuf,
    query: LogQuery,
    sender: mpsc::Sender<LogLine>,
    /// The number of the last line given: where files change, no line comes twice.
    last: u64,
}

impl Reader {
    async fn run(mut self, files: Vec<(Option<File>, u64)>, mut newest: watch::Receiver<u64>) -> io::Result<()> {
        let mut current = None;
        for (file, start) in files {
            if let Some(file) = file {
                let mut cursor = Cursor { file, at: start };
                if !self.give(&mut cursor).await? {
                    return Ok(());
                }
                current = Some(cursor);
            }
        }
        while self.query.follow {
            newest.borrow_and_update();
            // What was written between the last read and the mark is there for this one.
            if let Some(cursor) = &mut current
                && !self.give(cursor).await?
            {
                return Ok(());
            }
            if let Some(file) = self.replaced(current.as_ref())? {
                // The full file may have got lines after it was read to its end.
                if let Some(cursor) = &mut current
                    && !self.give(cursor).await?
                {
                    return Ok(());
                }
                let mut cursor = Cursor { file, at: 0 };
                if !self.give(&mut cursor).await? {
                    return Ok(());
                }
                current = Some(cursor);
                continue;
            }
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return Ok(()) },
                () = self.sender.closed() => return Ok(()),
            }
        }
        Ok(())
    }

    /// The file now at the path, when it is not the one being read.
    fn replaced(&self, current: Option<&Cursor>) -> io::Result<Option<File>> {
        let Some(file) = open(&self.path)? else { return Ok(None) };
        let inode = current.map(|cursor| cursor.file.metadata().map(|metadata| metadata.ino())).transpose()?;
        Ok((inode != Some(file.metadata()?.ino())).then_some(file))
    }

    /// Gives all whole lines from the cursor to the end. False when nobody listens any more.
    async fn give(&mut self, cursor: &mut Cursor) -> io::Result<bool> {
        let mut buffer = vec![0; PIECE_BYTES];
        let mut pending = Vec::new();
        loop {
            let read = cursor.file.read_at(&mut buffer, cursor.at + pending.len() as u64)?;
            if read == 0 {
                return Ok(true);
            }
            pending.extend_from_slice(&buffer[..read]);
            while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                cursor.at += line.len() as u64;
                // A line that is not one was cut by a crash.
                let Ok(kept) = serde_json::from_slice::<Kept>(&line) else { continue };
                let wanted =
                    kept.line.seq > self.last && self.query.since_ns.is_none_or(|since| kept.line.ts_ns >= since);
                if wanted {
                    self.last = kept.line.seq;
                    if self.sender.send(kept.line).await.is_err() {
                        return Ok(false);
                    }
                }
            }
            if pending.len() > LINE_BYTES_MAX {
                cursor.at += pending.len() as u64;
                pending.clear();
            }
        }
    }
}

struct Cursor {
    file: File,
    /// Where the next line begins.
    at: u64,
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the last `tail` lines begin, and how many there are at most `tail`.
fn tail_start(file: &File, tail: usize) -> io::Result<(u64, usize)> {
    let length = file.metadata()?.len();
    let mut buffer = vec![0; PIECE_BYTES];
    let (mut at, mut found) = (length, 0);
    while at > 0 {
        let piece = buffer.len().min(at as usize);
        at -= piece as u64;
        file.read_exact_at(&mut buffer[..piece], at)?;
        for index in (0..piece).rev() {
            // The end of the last line begins no line.
            if buffer[index] == b'\n' && at + index as u64 + 1 < length {
                found += 1;
                if found == tail {
                    return Ok((at + index as u64 + 1, found));
                }
            }
        }
    }
    if tail == 0 {
        return Ok((length, 0));
    }
    Ok((0, if length > 0 { found + 1 } else { 0 }))
}

/// The last whole line of a log, in either of its files.
pub(super) fn last(path: &Path) -> io::Result<Option<Kept>> {
    // The very last one may be cut, so a few are looked at.
    const LOOK: usize = 4;
    for path in [path.to_owned(), older(path)] {
        let Some(file) = open(&path)? else { continue };
        let (start, _) = tail_start(&file, LOOK)?;
        let mut bytes = vec![0; (file.metadata()?.len() - start) as usize];
        file.read_exact_at(&mut bytes, start)?;
        let mut lines = bytes.split(|&byte| byte == b'\n').rev();
        if let Some(kept) = lines.find_map(|line| serde_json::from_slice(line).ok()) {
            return Ok(Some(kept));
        }
    }
    Ok(None)
}

/// True when the last byte does not end a line.
pub(super) fn ends_in_the_middle(path: &Path) -> io::Result<bool> {
    let Some(file) = open(path)? else { return Ok(false) };
    let length = file.metadata()?.len();
    let mut byte = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut byte, length - 1)?;
    }
    Ok(byte != [b'\n'])
}
