//! An image as the list of blobs that carry it elsewhere: what the CLI sends when an image is only on its machine.

use std::io;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Result;
use crate::resolve::Resolved;
use crate::source::{BlobReader, Source, verify};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Layer,
    Config,
    Manifest,
}

/// One blob to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    pub digest: Digest,
    pub size: u64,
    pub part: Part,
}

/// The blobs of `resolved`, each once, the manifest last: whoever has it has the rest. It is sent as
/// `upload:MANIFEST-DIGEST`.
pub async fn blobs(resolved: &Resolved, source: &dyn Source) -> Result<Vec<Blob>> {
    let manifest = source.manifest(&resolved.digest).await?;
    verify(&format!("manifest {}", resolved.digest), &resolved.digest, &manifest)?;
    let mut blobs: Vec<Blob> = Vec::new();
    let layers = resolved.layers.iter().map(|layer| (layer.digest, layer.size, Part::Layer));
    let rest = [
        (resolved.config_digest, resolved.config_bytes, Part::Config),
        (resolved.digest, manifest.len() as u64, Part::Manifest),
    ];
    for (digest, size, part) in layers.chain(rest) {
        if !blobs.iter().any(|blob| blob.digest == digest) {
            blobs.push(Blob { digest, size, part });
        }
    }
    Ok(blobs)
}

/// One blob as a stream. The receiver verifies it.
pub async fn open(blob: &Blob, source: &dyn Source) -> Result<BlobReader> {
    match blob.part {
        Part::Manifest => Ok(Box::pin(io::Cursor::new(source.manifest(&blob.digest).await?))),
        Part::Config | Part::Layer => source.blob(&blob.digest, blob.size).await,
    }
}
