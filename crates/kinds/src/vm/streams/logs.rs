//! Lines of output, as JSON.

use bytes::Bytes;
use futures::StreamExt as _;
use model::{Code, Error, Row};
use plasmavmc::LogQuery;
use plasmavmc::logs::Stream as LogStream;
use reconcile::Stream;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engines::Engines;

/// Lines when the caller names no number.
const TAIL: usize = 200;
const TAIL_MAX: usize = 10_000;

/// Query parameters, all text.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Parameters {
    follow: Option<String>,
    tail: Option<String>,
}

pub async fn logs(engines: &Engines, row: &Row, parameters: &Value) -> Result<Stream, Error> {
    let wanted: Parameters = reconcile::kind::read("query", parameters)?;
    let follow = match wanted.follow.as_deref() {
        None | Some("false") => false,
        Some("true" | "") => true,
        Some(other) => return Err(Error::invalid("query.follow", format!("`follow` is true or false, not `{other}`"))),
    };
    let tail = match &wanted.tail {
        None => TAIL,
        Some(text) => text.parse().ok().filter(|tail| *tail <= TAIL_MAX).ok_or_else(|| {
            Error::invalid("query.tail", format!("`tail` is a number from 0 to {TAIL_MAX}, not `{text}`"))
        })?,
    };
    let query = LogQuery { tail: Some(tail), follow, since_ns: None };
    let mut lines = engines.machines.logs(row.id.as_str(), query).map_err(|error| {
        Error::new(Code::Unavailable, error.to_string())
            .hint("has the machine been started? `vt status` tells")
            .reason(error.code())
    })?;
    let (stream, far) = reconcile::stream::pair();
    let name = row.name.clone();
    tokio::spawn(async move {
        // Held for as long as lines go out: the caller may send, and is not listened to.
        let _input = far.input;
        while let Some(line) = lines.next().await {
            let from = match line.stream {
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
            };
            let text = json!({
                "vm": name,
                "time_ms": line.ts_ns / 1_000_000,
                "stream": from,
                "line": line.line,
                "sequence": line.seq,
            });
            let mut bytes = text.to_string().into_bytes();
            bytes.push(b'\n');
            if far.output.send(Bytes::from(bytes)).await.is_err() {
                return;
            }
        }
    });
    Ok(stream)
}
