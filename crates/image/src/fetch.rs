//! One layer from its source into a file, verified while it streams.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::resolve::Layer;
use crate::retry;
use crate::source::Source;

const CHUNK_BYTES: usize = 256 << 10;

/// Fetches `layer` to `path`. `seen` is told of every byte that arrives, and of those given up (negative) when an
/// attempt starts over.
pub async fn layer(
    source: &dyn Source,
    layer: &Layer,
    path: &Path,
    limits: &Limits,
    seen: &(dyn Fn(i64) + Send + Sync),
) -> Result<()> {
    let limit = limits.layer_time_max;
    let work = retry::transient(|| attempt(source, layer, path, seen));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Error::LimitTime { what: format!("fetching layer {}", layer.digest.short()), limit_s: limit.as_secs() })
    })
}

async fn attempt(source: &dyn Source, layer: &Layer, path: &Path, seen: &(dyn Fn(i64) + Send + Sync)) -> Result<()> {
    let what = || format!("layer {}", layer.digest);
    let disk = |error| Error::disk("write", path, error);
    let mut reader = source.blob(&layer.digest, layer.size).await?;
    let mut file = tokio::fs::File::create(path).await.map_err(disk)?;
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut found = 0_u64;
    let result = loop {
        let count = match reader.read(&mut chunk).await {
            Ok(count) => count,
            Err(error) => break Err(Error::Reach { registry: what(), detail: error.to_string() }),
        };
        found += count as u64;
        if count == 0 && found == layer.size {
            break Ok(());
        }
        if count == 0 || found > layer.size {
            break Err(Error::VerifySize { what: what(), wanted: layer.size, found });
        }
        hasher.update(&chunk[..count]);
        seen(count as i64);
        if let Err(error) = file.write_all(&chunk[..count]).await {
            break Err(disk(error));
        }
    };
    let result = match result {
        Ok(()) => match file.flush().await {
            Ok(()) => {
                let digest = hasher.finish();
                if digest == layer.digest {
                    return Ok(());
                }
                Err(Error::VerifyDigest { what: what(), wanted: layer.digest, found: digest.to_string() })
            }
            Err(error) => Err(disk(error)),
        },
        failed => failed,
    };
    seen(-(found.min(layer.size) as i64));
    result
}
