//! Is the file what was written? Asked once, before it is used.
//!
//! The storage engine keeps a checksum of every page in the page above it, but looks at them only when it repairs after
//! a crash, and then may go back to the commit before. A file that was closed in order and is damaged since must be
//! refused instead, as it is. So the check runs on an overlay: it reads the file, and what it writes stays in memory
//! and is thrown away.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redb::{Builder, DatabaseError, StorageBackend};
use store::Error;

use super::fault::{contained, damaged, io_fault, opening};

const BLOCK_BYTES: u64 = 4096;

/// Reads all of the file. One that was not closed in order passes: opening it will check and repair it.
/// Errors: [`Error::Corrupt`], [`Error::Storage`].
pub fn verify(path: &Path, cache_bytes: usize) -> Result<(), Error> {
    let file = File::open(path).map_err(|error| io_fault("open the database", error))?;
    let bytes = file.metadata().map_err(|error| io_fault("look at the database", error))?.len();
    let overlay = Overlay { file, file_bytes: bytes, inner: Mutex::new(Written { bytes, blocks: BTreeMap::new() }) };
    let crashed = Arc::new(AtomicBool::new(false));
    contained(path, || {
        if bytes == 0 {
            return Err(damaged("it is empty"));
        }
        let seen = crashed.clone();
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes).set_repair_callback(move |session| {
            seen.store(true, Ordering::Relaxed);
            session.abort();
        });
        let mut database = match builder.create_with_backend(overlay) {
            Err(DatabaseError::RepairAborted) if crashed.load(Ordering::Relaxed) => return Ok(()),
            database => database.map_err(|error| opening(path, error))?,
        };
        if database.check_integrity().map_err(|error| opening(path, error))? {
            Ok(())
        } else {
            Err(damaged("its pages do not have the checksums they should"))
        }
    })
}

/// A file to read, with what was written on top of it in memory.
#[derive(Debug)]
struct Overlay {
    file: File,
    file_bytes: u64,
    inner: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    bytes: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// From the file alone; zeros behind its end.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = self.file_bytes.saturating_sub(offset).min(out.len() as u64) as usize;
        let (from_file, behind) = out.split_at_mut(there);
        behind.fill(0);
        self.file.read_exact_at(from_file, offset)
    }
}

/// Where `offset..offset + length` meets block `block`: the range within the block, and within the bytes.
fn meet(block: u64, offset: u64, length: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let block_start = block * BLOCK_BYTES;
    let start = offset.max(block_start);
    let end = (offset + length as u64).min(block_start + BLOCK_BYTES);
    let within = |base: u64| (start - base) as usize..(end - base) as usize;
    (within(block_start), within(offset))
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.lock().bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner.lock();
        let length = out.len();
        if offset + length as u64 > inner.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(offset, out)?;
        let blocks = offset / BLOCK_BYTES..=(offset + length as u64) / BLOCK_BYTES;
        for (block, written) in inner.blocks.range(blocks) {
            let (inside, outside) = meet(*block, offset, length);
            out[outside].copy_from_slice(&written[inside]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.lock().bytes = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let mut at = offset;
        let end = offset + data.len() as u64;
        while at < end {
            let block = at / BLOCK_BYTES;
            let written = match inner.blocks.entry(block) {
                Entry::Occupied(written) => written.into_mut(),
                Entry::Vacant(vacant) => {
                    let mut there = vec![0; BLOCK_BYTES as usize];
                    self.read_file(block * BLOCK_BYTES, &mut there)?;
                    vacant.insert(there)
                }
            };
            let (inside, outside) = meet(block, offset, data.len());
            written[inside].copy_from_slice(&data[outside]);
            at = (block + 1) * BLOCK_BYTES;
        }
        Ok(())
    }
}
