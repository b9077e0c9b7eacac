//! Images that are only on this machine: sent blob by blob, each once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use image::{Credentials, Limits, Platform, Reference, package};
use model::manifest::Manifest;
use tokio_util::io::ReaderStream;

use super::session::Session;
use crate::client::Api;
use crate::failure::Failure;
use crate::output::steps::{Progress, Steps};
use crate::output::text;

const REDRAW_EVERY: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = 256 << 10;

/// The image that the manifest, or the command line, names. A path in the manifest is relative to the manifest.
pub fn source(session: &Session, manifest: &Manifest, from_flag: bool) -> Result<Reference, Failure> {
    let Some(image) = &manifest.image else {
        return Err(
            Failure::usage("the manifest names no image").hint("write [image] ref = \"...\", or say --image REF")
        );
    };
    let reference: Reference = image.reference.parse()?;
    let path = session.settings.get("manifest").unwrap_or_default();
    let folder = std::path::Path::new(path).parent().filter(|folder| !from_flag && !folder.as_os_str().is_empty());
    Ok(match (reference, folder) {
        (Reference::OciDir { path, tag }, Some(folder)) => Reference::OciDir { path: folder.join(path), tag },
        (Reference::OciArchive { path, tag }, Some(folder)) => Reference::OciArchive { path: folder.join(path), tag },
        (Reference::DockerArchive { path, name }, Some(folder)) => {
            Reference::DockerArchive { path: folder.join(path), name }
        }
        (other, _) => other,
    })
}

/// The reference under which the cloud finds the image: uploads it first where only this machine has it.
pub async fn place(api: &Api, project: &str, reference: &Reference, steps: &mut Steps<'_>) -> Result<String, Failure> {
    if !reference.is_local() {
        return Ok(reference.to_string());
    }
    steps.draw(&format!("image  reading {reference}"));
    let source = image::open(reference, &Credentials::default()).await?;
    let resolved = image::resolve(&*source, Platform::host(), &Limits::default()).await?;
    let blobs = package::blobs(&resolved, &*source).await?;
    let mut missing = Vec::new();
    for blob in &blobs {
        if !api.has_blob(project, &blob.digest.to_string()).await? {
            missing.push(blob.clone());
        }
    }
    let total: u64 = missing.iter().map(|blob| blob.size).sum();
    let sent = Arc::new(AtomicU64::new(0));
    for blob in &missing {
        let reader = package::open(blob, &*source).await?;
        let counter = sent.clone();
        let body = ReaderStream::with_capacity(reader, CHUNK_BYTES).inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        });
        let digest = blob.digest.to_string();
        let put = api.put_blob(project, &digest, blob.size, reqwest::Body::wrap_stream(body));
        tokio::pin!(put);
        loop {
            tokio::select! {
                done = &mut put => break done?,
                () = tokio::time::sleep(REDRAW_EVERY) => {
                    let progress = Progress {
                        what: "image  uploading".to_owned(),
                        done: sent.load(Ordering::Relaxed),
                        total,
                        unit: "bytes".to_owned(),
                    };
                    steps.draw(&progress.render());
                }
            }
        }
    }
    let kept = blobs.len() - missing.len();
    let what = if missing.is_empty() {
        "already there".to_owned()
    } else if kept == 0 {
        format!("{} sent", text::bytes(total))
    } else {
        format!("{} sent, {kept} of {} parts were already there", text::bytes(total), blobs.len())
    };
    steps.step(&format!("image {}  {what}", text::digest(&resolved.digest.to_string())));
    Ok(Reference::Upload(resolved.digest).to_string())
}
