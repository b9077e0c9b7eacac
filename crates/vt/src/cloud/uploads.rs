//! Blobs that callers bring: from the API into the image store's uploads.

use async_trait::async_trait;
use control::{Body, Uploads};
use futures::TryStreamExt as _;
use model::{Code, Error, Id};
use tokio_util::io::StreamReader;

pub struct Blobs(pub image::Uploads);

fn digest(text: &str) -> Result<image::Digest, Error> {
    text.parse().map_err(|error: image::Error| Error::invalid("digest", error.to_string()).hint(error.hint()))
}

fn told(error: image::Error) -> Error {
    let code = match error.code() {
        "image_too_large" => Code::TooLarge,
        "disk_full" => Code::Unavailable,
        _ => Code::InvalidArgument,
    };
    Error::new(code, error.to_string()).hint(error.hint()).reason(error.code())
}

#[async_trait]
impl Uploads for Blobs {
    async fn has(&self, project: &Id, text: &str) -> Result<bool, Error> {
        self.0.has(project.as_str(), &digest(text)?).map_err(told)
    }

    async fn put(&self, project: &Id, text: &str, body: Body) -> Result<bool, Error> {
        let digest = digest(text)?;
        let mut reader = StreamReader::new(body.map_err(std::io::Error::other));
        if self.0.has(project.as_str(), &digest).map_err(told)? {
            // Taken in all the same: a client that is cut off while it sends takes that for a failure.
            let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
            return Ok(false);
        }
        self.0.put(project.as_str(), &digest, reader).await.map_err(told)?;
        Ok(true)
    }
}
