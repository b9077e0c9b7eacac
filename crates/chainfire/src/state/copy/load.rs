//! Making a state out of a copy.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use lsm_tree::Slice;
use store::Error;

use super::{Decoder, Dump};
use crate::door::host::SnapshotPieces;
use crate::fault::{at, io_fault};
use crate::record;
use crate::state::home::{Home, Place};
use crate::state::keys;
use crate::state::marks::{LogId, Marks, Membership};
use crate::state::{lsm, memory};

/// Read from a file at once.
const CHUNK_BYTES: usize = 512 * 1024;

pub fn read_file(path: &Path, take: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let mut file = File::open(path).map_err(|error| io_fault("open a copy", error))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk).map_err(|error| io_fault("read a copy", error))? {
            0 => return Ok(()),
            read => take(&chunk[..read]).map_err(at(path))?,
        }
    }
}

pub fn pieces(path: PathBuf) -> SnapshotPieces {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let read = read_file(&path, &mut |chunk| {
            let sent = sender.blocking_send(Ok(Bytes::copy_from_slice(chunk)));
            sent.map_err(|_| Error::Closed)
        });
        if let Err(error) = read {
            // Nobody may be there to hear it.
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

type Feed<'f> = &'f mut dyn FnMut(&mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error>;

/// Fills `take` with the items of a copy and the marks that `settle` made of its own, in order of their keys.
/// Only after it answered is the copy known to be whole.
fn items(
    feed: Feed<'_>,
    settle: impl FnOnce(Marks) -> Marks,
    take: &mut dyn FnMut(Slice, Slice) -> Result<(), Error>,
) -> Result<Marks, Error> {
    let mut decoder = Decoder::default();
    let mut settle = Some(settle);
    let mut settled = None;
    feed(&mut |bytes| {
        // The marks come first, and lie in the middle.
        let mut after: Vec<(Slice, Slice)> = Vec::new();
        decoder.feed(bytes, &mut |key, value| {
            if key[..] < [keys::MARKS][..] {
                return take(key, value);
            }
            after.push((key, value));
            Ok(())
        })?;
        if !after.is_empty() {
            put_marks(&decoder, &mut settle, &mut settled, take)?;
        }
        after.into_iter().try_for_each(|(key, value)| take(key, value))
    })?;
    put_marks(&decoder, &mut settle, &mut settled, take)?;
    decoder.finish()?;
    settled.ok_or_else(|| crate::fault::damaged("the copy was cut off"))
}

fn put_marks(
    decoder: &Decoder,
    settle: &mut Option<impl FnOnce(Marks) -> Marks>,
    settled: &mut Option<Marks>,
    take: &mut dyn FnMut(Slice, Slice) -> Result<(), Error>,
) -> Result<(), Error> {
    let (Some(marks), Some(settle)) = (decoder.marks().cloned(), settle.take()) else { return Ok(()) };
    let marks = settle(marks);
    take(keys::marks(), record::plain_slice(&keys::marks(), &marks.body()))?;
    *settled = Some(marks);
    Ok(())
}

/// Makes a new tree beside the one in use and answers what leads to it. When this fails nothing is left of it.
fn load(
    home: &Home,
    options: lsm::Options,
    source: &Path,
    feed: Feed<'_>,
    settle: impl FnOnce(Marks) -> Marks,
) -> Result<(Loaded, Marks), Error> {
    match home {
        Home::Folder(folder) => {
            let (number, path) = folder.fresh()?;
            let mut marks = None;
            let filled = lsm::fill(&path, options, |take| {
                marks = Some(items(feed, settle, take).map_err(at(source))?);
                Ok(())
            });
            match (filled, marks) {
                (Ok(()), Some(marks)) => Ok((Loaded::Folder(number), marks)),
                (filled, _) => {
                    folder.forget(number);
                    Err(filled.err().unwrap_or_else(|| crate::fault::damaged("the copy was cut off")))
                }
            }
        }
        Home::Memory(_) => {
            let mut tree = std::collections::BTreeMap::new();
            let marks = items(feed, settle, &mut |key, value| {
                tree.insert(key, value);
                Ok(())
            })?;
            let image = memory::Image::default();
            image.replace(tree);
            Ok((Loaded::Memory(image), marks))
        }
    }
}

pub enum Loaded {
    Folder(u64),
    Memory(memory::Image),
}

/// Makes the state of a new member from a copy in a file: rows, history, revisions, leases and system rows stay, what the
/// copy says of logs and members does not. The place must not hold a state. Blocks.
///
/// Errors: [`Error::Corrupt`] when the copy is not whole and sound; [`Error::Locked`]; [`Error::FormatUnknown`];
/// [`Error::DiskFull`]; [`Error::Storage`]. After any of them the place is as it was.
pub fn import(
    place: &Place,
    copy: &Path,
    options: lsm::Options,
    applied: Option<LogId>,
    membership: Membership,
) -> Result<Marks, Error> {
    let home = Home::take(place)?;
    home.must_be_empty()?;
    let mut feed = |take: &mut dyn FnMut(&[u8]) -> Result<(), Error>| read_file(copy, take);
    let settle = |marks: Marks| Marks { applied, membership: std::sync::Arc::new(membership), ..marks };
    let (loaded, marks) = load(&home, options, copy, &mut feed, settle)?;
    home.switch(loaded)?;
    Ok(marks)
}

/// Reads a copy to its end and answers what it says of itself. Blocks. Errors: as [`import`].
pub fn inspect(copy: &Path) -> Result<Marks, Error> {
    let mut decoder = Decoder::default();
    read_file(copy, &mut |chunk| decoder.feed(chunk, &mut |_, _| Ok(())))?;
    decoder.finish().map_err(at(copy))
}

/// As [`load`], from what came in.
pub fn load_dump(home: &Home, options: lsm::Options, dump: &Dump) -> Result<(Loaded, Marks), Error> {
    load(home, options, dump.path(), &mut |take| dump.read(take), |marks| marks)
}
