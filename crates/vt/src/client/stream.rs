//! Bodies that go on: lines of JSON, and server-sent events (WHATWG HTML, section 9.2).

use bytes::{Buf as _, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::Code;
use serde_json::Value;

use super::Api;
use crate::failure::Failure;

/// The longest line of a stream. A log line is at most 16 KiB before it is escaped.
const LINE_BYTES_MAX: usize = 8 << 20;

/// A body, line by line.
pub struct Lines {
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: BytesMut,
}

impl Lines {
    /// The next line without its end; `None` when the body has ended.
    pub async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                return Ok(Some(String::from_utf8_lossy(line).into_owned()));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Failure::new(
                    Code::TooLarge,
                    format!("a line of the stream is longer than {LINE_BYTES_MAX} bytes"),
                ));
            }
            match self.body.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(error)) => return Err(broken(&error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => {
                    let rest = self.buffer.split();
                    return Ok(Some(String::from_utf8_lossy(&rest).into_owned()));
                }
            }
        }
    }

    /// The next line as JSON. Empty lines are passed over.
    pub async fn json(&mut self) -> Result<Option<Value>, Failure> {
        while let Some(line) = self.next().await? {
            if line.trim().is_empty() {
                continue;
            }
            let value: Value = serde_json::from_str(&line)
                .map_err(|error| Failure::new(Code::Internal, format!("a line of the stream is not JSON: {error}")))?;
            // A stream that fails after it began can say so only in its last line.
            if let Some(failure) = value.get("error").filter(|error| error.is_object()).and_then(Failure::from_problem)
            {
                return Err(failure);
            }
            return Ok(Some(value));
        }
        Ok(None)
    }
}

fn broken(error: &reqwest::Error) -> Failure {
    Failure::new(Code::Unavailable, "the stream broke off").why(error.to_string()).hint("run the same command again")
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub event: String,
    pub id: String,
    pub data: Value,
}

/// Server-sent events.
pub struct Events {
    lines: Lines,
}

impl Events {
    /// The next event; `None` when the stream has ended. Comments are passed over.
    pub async fn next(&mut self) -> Result<Option<Sent>, Failure> {
        let (mut event, mut id, mut data) = (String::new(), String::new(), String::new());
        while let Some(line) = self.lines.next().await? {
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event),
                "id" => value.clone_into(&mut id),
                "data" => {
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    data.push_str(value);
                }
                "" if line.is_empty() && !data.is_empty() => {
                    let data = serde_json::from_str(&data)
                        .map_err(|error| Failure::new(Code::Internal, format!("an event is not JSON: {error}")))?;
                    if event == "error" {
                        let other = || Failure::new(Code::Internal, "the stream ended with an error");
                        return Err(Failure::from_problem(&data).unwrap_or_else(other));
                    }
                    return Ok(Some(Sent { event, id, data }));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Api {
    /// A body of lines of JSON.
    pub async fn lines(&self, path: &str, query: &[(&str, &str)]) -> Result<Lines, Failure> {
        let response = self.open_stream(path, query, "application/x-ndjson").await?;
        Ok(Lines { body: response.bytes_stream().boxed(), buffer: BytesMut::new() })
    }

    /// A body of server-sent events.
    pub async fn events(&self, path: &str, query: &[(&str, &str)]) -> Result<Events, Failure> {
        let response = self.open_stream(path, query, "text/event-stream").await?;
        Ok(Events { lines: Lines { body: response.bytes_stream().boxed(), buffer: BytesMut::new() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: Vec<&'static str>) -> Lines {
        let body = futures::stream::iter(chunks.into_iter().map(|chunk| Ok(bytes::Bytes::from(chunk))));
        Lines { body: body.boxed(), buffer: BytesMut::new() }
    }

    #[tokio::test]
    async fn lines_and_events_survive_any_split() {
        let mut ndjson = lines(vec!["{\"a\"", ":1}\n\n{\"a\":", "2}"]);
        assert_eq!(ndjson.json().await.unwrap().unwrap()["a"], 1);
        assert_eq!(ndjson.json().await.unwrap().unwrap()["a"], 2);
        assert!(ndjson.json().await.unwrap().is_none());
        let mut events = Events {
            lines: lines(vec![
                ": keep-alive\n\nevent: p",
                "ut\r\nid: 7\nda",
                "ta: {\"id\":\ndata: \"x\"}\n",
                "\ndata: 1\n\n",
            ]),
        };
        let sent = events.next().await.unwrap().unwrap();
        assert_eq!((sent.event.as_str(), sent.id.as_str(), &sent.data["id"]), ("put", "7", &Value::from("x")));
        assert_eq!(events.next().await.unwrap().unwrap().data, 1);
        assert!(events.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_failure_in_a_stream_is_a_failure() {
        let mut ndjson = lines(vec!["{\"error\":{\"code\":\"unavailable\",\"detail\":\"the guest is away\"}}\n"]);
        assert_eq!(ndjson.json().await.unwrap_err().error.message, "the guest is away");
    }
}
