//! Where uploaded blobs go.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use model::{Error, Id};

/// A blob as it arrives. Ends with an error when the caller went away, was too slow, or sent too much.
pub type Body = BoxStream<'static, std::io::Result<Bytes>>;

/// A store for blobs that callers bring themselves, apart for each project.
#[async_trait]
pub trait Uploads: Send + Sync + 'static {
    /// Whether `project` has uploaded this blob. `digest` is `sha256:` and 64 hexadecimal digits.
    async fn has(&self, project: &Id, digest: &str) -> Result<bool, Error>;

    /// Keeps a blob, once it is whole and its digest is right; nothing is kept otherwise. True when it is new.
    ///
    /// Errors: `invalid_argument` for another digest, `too_large`, `quota_exceeded`, `unavailable`.
    async fn put(&self, project: &Id, digest: &str, body: Body) -> Result<bool, Error>;
}
