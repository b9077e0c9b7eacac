//! The image file while it grows: file contents, each from a block boundary on, then whatever else is appended.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub const BLOCK_BYTES: u64 = 4096;
/// Written to the file in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;

/// Appends to the image file, from block 1 on; block 0 is the superblock's.
pub struct Area {
    file: File,
    path: PathBuf,
    /// Not yet written, from `buffer_at` of the file on.
    buffer: Vec<u8>,
    buffer_at: u64,
    bytes_max: u64,
}

impl Area {
    pub fn new(file: File, path: &Path, bytes_max: u64) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Self { file, path: path.to_owned(), buffer, buffer_at: BLOCK_BYTES, bytes_max }
    }

    /// Where the next byte goes.
    pub fn position(&self) -> u64 {
        self.buffer_at + self.buffer.len() as u64
    }

    /// Refuses what would make the image too large, before any of it is read.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        let found = self.position().saturating_add(bytes);
        if found > self.bytes_max {
            return Err(Error::LimitSize { what: "the root image".into(), found, limit: self.bytes_max });
        }
        Ok(())
    }

    pub fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.reserve(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let count = bytes.len().min(BUFFER_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.buffer.len() == BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Leaves a hole: zeros that take no disk.
    pub fn skip(&mut self, bytes: u64) -> Result<()> {
        const SMALL_BYTES: u64 = 2 * BLOCK_BYTES;
        self.reserve(bytes)?;
        if bytes <= SMALL_BYTES {
            return self.append(&[0; SMALL_BYTES as usize][..bytes as usize]);
        }
        self.flush()?;
        self.buffer_at += bytes;
        Ok(())
    }

    /// Zeros up to the next block boundary; answers that block's number.
    pub fn align(&mut self) -> Result<u32> {
        let rest = (BLOCK_BYTES - self.position() % BLOCK_BYTES) % BLOCK_BYTES;
        self.skip(rest)?;
        u32::try_from(self.position() / BLOCK_BYTES).map_err(|_| Error::LimitSize {
            what: "the root image".into(),
            found: self.position(),
            limit: u64::from(u32::MAX) * BLOCK_BYTES,
        })
    }

    /// Gives back the disk under a range that nothing refers to. Its bytes become zeros on every file system, so
    /// that the image does not depend on the host's.
    pub fn clear(&self, from: u64, to: u64) -> Result<()> {
        if to <= from {
            return Ok(());
        }
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, from, to - from) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.zero(from, to),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    fn zero(&self, mut from: u64, to: u64) -> Result<()> {
        let zeros = vec![0; BUFFER_BYTES];
        while from < to {
            let count = (to - from).min(BUFFER_BYTES as u64);
            self.write_at(&zeros[..count as usize], from)?;
            from += count;
        }
        Ok(())
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed(error))
    }

    pub fn flush(&mut self) -> Result<()> {
        self.write_at(&self.buffer, self.buffer_at)?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Flushes, fixes the length to what was appended and makes it durable.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.set_len(self.position()).and_then(|()| self.file.sync_all()).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::disk("write", &self.path, error)
    }
}
