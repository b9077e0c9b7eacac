//! Rows as callers see them.

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use model::Row;
use serde_json::Value;

use super::problem::Refusal;
use super::{Cloud, json};

/// The row, with what is going on right now.
pub fn row(cloud: &Cloud, row: &Row) -> Value {
    let mut value = serde_json::to_value(row).unwrap_or_default();
    let progress = cloud.door.registry().get(&row.kind).and_then(|kind| kind.progress(row));
    value["progress"] = progress.unwrap_or_default();
    value
}

/// An answer that is one row, with its version as `ETag`.
pub fn answer(cloud: &Cloud, status: StatusCode, of: &Row) -> Result<Response, Refusal> {
    let mut response = json(status, &row(cloud, of))?;
    let tag = format!("\"{}\"", of.version);
    response.headers_mut().insert(header::ETAG, HeaderValue::from_str(&tag).expect("a number is ASCII"));
    Ok(response)
}
