//! Blobs in files of this machine.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::{BlobReader, Root, Source};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::MANIFEST_BYTES_MAX;
use crate::reference::Reference;

/// Read from a file at once.
const CHUNK_BYTES: usize = 256 << 10;

/// A range of an open file.
#[derive(Clone, Debug)]
pub struct Slice {
    pub file: Arc<File>,
    pub offset: u64,
    pub length: u64,
}

/// Where blobs are looked up.
#[derive(Debug)]
pub enum Blobs {
    /// `sha256/HEX` below this folder.
    Folder(PathBuf),
    /// Ranges of an archive, and documents that were made while it was read.
    Archive { slices: HashMap<Digest, Slice>, documents: HashMap<Digest, Bytes> },
}

/// An image whose blobs are here.
#[derive(Debug)]
pub struct Local {
    pub reference: Reference,
    pub root: Root,
    pub blobs: Blobs,
}

impl Local {
    fn missing(&self, digest: &Digest) -> Error {
        missing(&self.reference, digest)
    }
}

fn missing(reference: &Reference, digest: &Digest) -> Error {
    Error::FindImage { reference: reference.to_string(), detail: format!("it lacks the blob {digest}") }
}

#[async_trait]
impl Source for Local {
    fn reference(&self) -> &Reference {
        &self.reference
    }

    async fn root(&self) -> Result<Root> {
        Ok(self.root.clone())
    }

    async fn manifest(&self, digest: &Digest) -> Result<Bytes> {
        let mut bytes = Vec::new();
        let reader = self.blob(digest, MANIFEST_BYTES_MAX).await?;
        reader
            .take(MANIFEST_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| Error::disk("read", Path::new(&digest.to_string()), error))?;
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(Error::LimitSize {
                what: format!("manifest {digest}"),
                found: bytes.len() as u64,
                limit: MANIFEST_BYTES_MAX,
            });
        }
        Ok(bytes.into())
    }

    async fn blob(&self, digest: &Digest, _size: u64) -> Result<BlobReader> {
        match &self.blobs {
            Blobs::Folder(folder) => {
                let path = blob_path(folder, digest);
                match tokio::fs::File::open(&path).await {
                    Ok(file) => Ok(Box::pin(file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.missing(digest)),
                    Err(error) => Err(Error::disk("open", &path, error)),
                }
            }
            Blobs::Archive { slices, documents } => {
                if let Some(document) = documents.get(digest) {
                    return Ok(Box::pin(io::Cursor::new(document.clone())));
                }
                let slice = slices.get(digest).ok_or_else(|| self.missing(digest))?;
                Ok(slice.reader())
            }
        }
    }
}

pub fn blob_path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join("sha256").join(digest.hex())
}

/// A document of a folder or an archive, read while it is opened.
pub fn read_document(reference: &Reference, blobs: &Blobs, digest: &Digest) -> Result<Bytes> {
    let mut bytes = Vec::new();
    let read = match blobs {
        Blobs::Folder(folder) => match File::open(blob_path(folder, digest)) {
            Ok(file) => file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes),
            Err(error) => Err(error),
        },
        Blobs::Archive { slices, .. } => {
            let slice = slices.get(digest).ok_or_else(|| missing(reference, digest))?;
            slice.clone().take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)
        }
    };
    match read {
        Ok(_) if bytes.len() as u64 <= MANIFEST_BYTES_MAX => Ok(bytes.into()),
        Ok(_) => Err(Error::LimitSize {
            what: format!("manifest {digest}"),
            found: bytes.len() as u64,
            limit: MANIFEST_BYTES_MAX,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(reference, digest)),
        Err(error) => Err(Error::disk("read", Path::new(&digest.to_string()), error)),
    }
}

impl Slice {
    /// The range as a stream. Reading happens on the blocking threads.
    pub fn reader(&self) -> BlobReader {
        let stream = futures::stream::unfold(self.clone(), |mut slice| async move {
            if slice.length == 0 {
                return None;
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; CHUNK_BYTES];
                let result = slice.read(&mut chunk).map(|count| {
                    chunk.truncate(count);
                    Bytes::from(chunk)
                });
                (result, slice)
            });
            match read.await {
                Ok((Ok(chunk), _)) if chunk.is_empty() => None,
                Ok((Ok(chunk), slice)) => Some((Ok(chunk), slice)),
                Ok((Err(error), slice)) => Some((Err(error), Slice { length: 0, ..slice })),
                Err(_) => None,
            }
        });
        Box::pin(tokio_util::io::StreamReader::new(Box::pin(stream)))
    }
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.length).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..room], self.offset)?;
        self.offset += count as u64;
        self.length -= count as u64;
        Ok(count)
    }
}

/// Opens an archive file; a compressed one is unpacked into an unnamed temporary file first.
pub fn open_archive_file(reference: &Reference, path: &Path, bytes_max: u64) -> Result<Arc<File>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::FindImage {
                reference: reference.to_string(),
                detail: format!("{} does not exist", path.display()),
            });
        }
        Err(error) => return Err(Error::disk("open", path, error)),
    };
    let failed = |error| Error::disk("read", path, error);
    if !file.metadata().map_err(failed)?.is_file() {
        let detail = format!("{} is not a file", path.display());
        return Err(Error::FindImage { reference: reference.to_string(), detail });
    }
    let mut head = [0; 4];
    let count = file.read(&mut head).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if crate::decompress::Compression::of(&head[..count]).is_none() {
        return Ok(Arc::new(file));
    }
    let mut plain = tempfile::tempfile().map_err(|error| Error::disk("create", &std::env::temp_dir(), error))?;
    let mut input = crate::decompress::reader(file).map_err(failed)?.take(bytes_max + 1);
    let copied = io::copy(&mut input, &mut plain).map_err(|error| {
        if crate::error::is_disk_full(&error) {
            Error::DiskFull { path: std::env::temp_dir().display().to_string() }
        } else {
            Error::ReadManifest { what: reference.to_string(), problem: error.to_string() }
        }
    })?;
    if copied > bytes_max {
        return Err(Error::LimitSize { what: reference.to_string(), found: copied, limit: bytes_max });
    }
    Ok(Arc::new(plain))
}
