//! A copy on its way: given out from a moment of the state, or taken in from somewhere else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use store::Error;

use super::{Decoder, Pieces};
use crate::door::host::SnapshotPieces;
use crate::fault::io_fault;
use crate::state::book::View;
use crate::state::marks::Marks;

/// What travels between members. A cheap handle: it holds a moment of the state, to be taken once, or names what came in.
#[derive(Clone)]
pub struct Dump {
    source: Source,
    marks: Arc<Marks>,
}

#[derive(Clone)]
enum Source {
    Moment(Arc<Mutex<Option<Pieces>>>),
    File(Arc<Received>),
    Pieces(Arc<Vec<Bytes>>),
}

/// A file that goes away when nobody needs it any more.
struct Received {
    path: PathBuf,
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a copy that was taken in could not be removed");
        }
    }
}

impl Dump {
    /// `inline` when there are no threads to wait on.
    pub(crate) fn of(view: View, inline: bool) -> Self {
        let marks = view.marks.clone();
        Self { source: Source::Moment(Arc::new(Mutex::new(Some(Pieces::new(view, inline))))), marks }
    }

    /// What the copy says of itself.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Pieces in order, each at most 1 MiB, made as they are taken. Of a moment they can be taken once; of what came in,
    /// from the start with each call. Needs a runtime.
    pub fn pieces(&self) -> SnapshotPieces {
        match &self.source {
            Source::Moment(moment) => match moment.lock().take() {
                Some(pieces) => pieces.send(),
                None => {
                    let (sender, receiver) = tokio::sync::mpsc::channel(1);
                    let _ = sender.try_send(Err(taken()));
                    receiver
                }
            },
            Source::File(file) => super::load::pieces(file.path.clone()),
            Source::Pieces(pieces) => {
                let (sender, receiver) = tokio::sync::mpsc::channel(1);
                let pieces = pieces.clone();
                tokio::spawn(async move {
                    for piece in pieces.iter() {
                        if sender.send(Ok(piece.clone())).await.is_err() {
                            return;
                        }
                    }
                });
                receiver
            }
        }
    }

    /// The file it lies in; empty when it lies in none.
    pub(crate) fn path(&self) -> &Path {
        match &self.source {
            Source::File(file) => &file.path,
            Source::Moment(_) | Source::Pieces(_) => Path::new(""),
        }
    }

    /// Feeds everything to `take`; blocks.
    pub(crate) fn read(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        match &self.source {
            Source::Moment(moment) => {
                let mut pieces = moment.lock().take().ok_or_else(taken)?;
                pieces.try_for_each(|piece| take(&piece?))
            }
            Source::File(file) => super::load::read_file(&file.path, take),
            Source::Pieces(pieces) => pieces.iter().try_for_each(|piece| take(piece)),
        }
    }
}

fn taken() -> Error {
    Error::storage("take a copy", std::io::Error::other("it was taken already"))
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump").field("marks", &self.marks).finish_non_exhaustive()
    }
}

/// A copy that is being taken in: checked piece by piece, kept until it is complete. Dropping it forgets it.
pub struct Incoming {
    decoder: Decoder,
    kept: Kept,
}

enum Kept {
    File(File, Arc<Received>),
    Pieces(Vec<Bytes>),
}

impl Incoming {
    pub(crate) fn to_file(path: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
        let file = file.map_err(|error| io_fault("make room for a copy", error))?;
        let received = Arc::new(Received { path: path.to_path_buf() });
        Ok(Self { decoder: Decoder::default(), kept: Kept::File(file, received) })
    }

    pub(crate) fn to_memory() -> Self {
        Self { decoder: Decoder::default(), kept: Kept::Pieces(Vec::new()) }
    }

    /// The next bytes of the stream, cut anyhow. May wait for the disk.
    /// Errors: [`Error::Corrupt`], [`Error::FormatUnknown`], [`Error::DiskFull`], [`Error::Storage`].
    pub fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.decoder.feed(&bytes, &mut |_, _| Ok(()))?;
        match &mut self.kept {
            Kept::File(file, _) => file.write_all(&bytes).map_err(|error| io_fault("keep a copy", error)),
            Kept::Pieces(pieces) => {
                pieces.push(bytes);
                Ok(())
            }
        }
    }

    /// After the last piece. Errors: [`Error::Corrupt`] when something is missing.
    pub fn finish(self) -> Result<Dump, Error> {
        let marks = Arc::new(self.decoder.finish()?);
        let source = match self.kept {
            Kept::File(_, received) => Source::File(received),
            Kept::Pieces(pieces) => Source::Pieces(Arc::new(pieces)),
        };
        Ok(Dump { source, marks })
    }
}
