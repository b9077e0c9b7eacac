//! Uploads: streamed from the caller into the store for blobs, which verifies them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::response::Response;
use futures::StreamExt;
use http::{StatusCode, header};
use model::{Code, Error, Id};

use super::call::Call;
use super::problem::Refusal;
use super::{json, with_type};

const HEX_CHARS: usize = 64;

fn digest(call: &Call) -> Result<String, Error> {
    let text = call.path.iter().find(|(name, _)| name == "digest").map_or("", |(_, value)| value.as_str());
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    let fine = hex.len() == HEX_CHARS && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if fine {
        Ok(text.to_owned())
    } else {
        Err(Error::invalid("digest", "a digest is `sha256:` and 64 of 0-9 and a-f"))
    }
}

fn project(call: &Call) -> Result<Id, Error> {
    Ok(call.row()?.id.clone())
}

pub async fn has(call: Call) -> Result<Response, Refusal> {
    if call.cloud.uploads.has(&project(&call)?, &digest(&call)?).await? {
        Ok(with_type(StatusCode::OK, "application/octet-stream", axum::body::Body::empty()))
    } else {
        Err(Error::not_found("this blob").into())
    }
}

pub async fn put(mut call: Call) -> Result<Response, Refusal> {
    let (project, digest) = (project(&call)?, digest(&call)?);
    let limit = call.cloud.limits.blob_bytes_max;
    let too_large = move || Error::new(Code::TooLarge, format!("a blob has at most {limit} bytes"));
    let length = call.parts.headers.get(header::CONTENT_LENGTH);
    if length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok()).is_some_and(|length| length > limit) {
        return Err(too_large().into());
    }
    let over = Arc::new(AtomicBool::new(false));
    let body = std::mem::take(call.body.get_mut());
    let pieces = Box::pin(body.into_data_stream());
    let idle = call.cloud.limits.idle_time_max;
    let counted = futures::stream::unfold(
        (pieces, 0_u64, over.clone(), false),
        move |(mut pieces, read, over, ended)| async move {
            if ended {
                return None;
            }
            let broken = |text: String| Err(std::io::Error::other(text));
            let piece = match tokio::time::timeout(idle, pieces.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(error))) => return Some((broken(error.to_string()), (pieces, read, over, true))),
                Ok(None) => return None,
                Err(_) => {
                    return Some((
                        broken("the caller sent nothing for too long".to_owned()),
                        (pieces, read, over, true),
                    ));
                }
            };
            let read = read + piece.len() as u64;
            if read > limit {
                over.store(true, Ordering::Relaxed);
                return Some((broken("the blob is too large".to_owned()), (pieces, read, over, true)));
            }
            Some((Ok(piece), (pieces, read, over, false)))
        },
    );
    let new = match call.cloud.uploads.put(&project, &digest, counted.boxed()).await {
        Ok(new) => new,
        Err(_) if over.load(Ordering::Relaxed) => return Err(too_large().into()),
        Err(error) => return Err(error.into()),
    };
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    json(status, &serde_json::json!({"digest": digest}))
}
