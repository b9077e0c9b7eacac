//! Where images come from. One trait, four origins.
//!
//! ```text
//! registry        HTTPS, or plain HTTP on loopback; tokens, retries, bounded answers
//! layout          a folder in the OCI image layout, or a tar of one
//! docker_archive  what `docker save` writes, turned into the same on the way
//! local           blobs in files of this machine, behind the last two and behind uploads
//! ```
//!
//! A source is not believed: whoever reads a document or a blob checks its size and its digest.

mod docker_archive;
mod layout;
pub(crate) mod local;
mod registry;

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;

/// A blob as a stream. Ends where its source ends it: early, late or with an error.
pub type BlobReader = Pin<Box<dyn AsyncRead + Send>>;

/// The document a reference names: a manifest or an index.
#[derive(Clone, Debug)]
pub struct Root {
    pub bytes: Bytes,
    /// What the reference or a local index says its digest is.
    pub digest: Option<Digest>,
}

/// One image's documents and blobs.
#[async_trait]
pub trait Source: Send + Sync {
    /// The canonical reference, for messages and for [`crate::Resolved`].
    fn reference(&self) -> &Reference;

    /// The document that the reference names now. At most [`crate::limits::MANIFEST_BYTES_MAX`] bytes.
    async fn root(&self) -> Result<Root>;

    /// A manifest or index by digest, not verified. At most [`crate::limits::MANIFEST_BYTES_MAX`] bytes.
    async fn manifest(&self, digest: &Digest) -> Result<Bytes>;

    /// A layer or a configuration, not verified. `size` is what the manifest says.
    async fn blob(&self, digest: &Digest, size: u64) -> Result<BlobReader>;
}

/// Opens the source of `reference`. Uploads belong to a project and are opened by [`crate::Uploads::source`].
///
/// A local reference reads files with this process's rights: only for references the process's own user wrote.
/// Opening a compressed archive unpacks it into an unnamed file in the system's temporary folder.
pub async fn open(reference: &Reference, credentials: &Credentials) -> Result<Arc<dyn Source>> {
    let reference = reference.clone();
    match &reference {
        Reference::Registry(name) => Ok(Arc::new(registry::Registry::new(name.clone(), credentials)?)),
        Reference::OciDir { .. } | Reference::OciArchive { .. } | Reference::DockerArchive { .. } => {
            let opened = tokio::task::spawn_blocking(move || match &reference {
                Reference::DockerArchive { path, name } => docker_archive::open(&reference, path, name.as_deref()),
                Reference::OciArchive { path, tag } => layout::open_archive(&reference, path, tag.as_deref()),
                Reference::OciDir { path, tag } => layout::open_folder(&reference, path, tag.as_deref()),
                Reference::Registry(_) | Reference::Upload(_) => unreachable!("matched above"),
            });
            let local = opened.await.map_err(|error| Error::Cancelled { what: error.to_string() })??;
            Ok(Arc::new(local))
        }
        Reference::Upload(_) => Err(Error::FindImage {
            reference: reference.to_string(),
            detail: "an upload is found only within its project".into(),
        }),
    }
}

/// Reads a small blob whole, verified.
pub(crate) async fn read_verified(
    reader: BlobReader,
    what: &str,
    digest: &Digest,
    size: u64,
    bytes_max: u64,
) -> Result<Bytes> {
    if size > bytes_max {
        return Err(Error::LimitSize { what: what.into(), found: size, limit: bytes_max });
    }
    let mut bytes = Vec::new();
    reader
        .take(size + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| Error::Reach { registry: what.into(), detail: error.to_string() })?;
    if bytes.len() as u64 != size {
        return Err(Error::VerifySize { what: what.into(), wanted: size, found: bytes.len() as u64 });
    }
    verify(what, digest, &bytes)?;
    Ok(bytes.into())
}

pub(crate) fn verify(what: &str, wanted: &Digest, bytes: &[u8]) -> Result<()> {
    let found = Digest::of(bytes);
    if found == *wanted {
        return Ok(());
    }
    Err(Error::VerifyDigest { what: what.into(), wanted: *wanted, found: found.to_string() })
}

impl std::fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.reference())
    }
}
