//! The answers that the ingress gives itself, as problem documents (RFC 9457).

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

const CONTENT: &str = "application/problem+json";
/// Seconds after which a client may ask again.
const RETRY_AFTER_SECONDS: u16 = 1;

/// Why the ingress answers in a backend's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The request names no host, several, or something that is none.
    BadHost,
    /// `CONNECT`, which is for forward proxies.
    NoTunnels,
    TooManyHeaders,
    /// Nothing is configured for the host.
    UnknownHost(String),
    /// The route has no backend now.
    NoBackend(String),
    /// No backend took a connection.
    Unreachable(String),
    /// The backend broke off before it answered, and the request could not be sent again.
    BrokeOff(String),
    /// The backend did not answer in time.
    TimedOut(String),
    /// The client did not send its request's body in time.
    BodyStalled,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: String,
    hint: &'a str,
    retryable: bool,
}

impl Problem {
    fn document(&self) -> Document<'static> {
        let (status, code, title, detail, hint) = match self {
            Problem::BadHost => (
                StatusCode::BAD_REQUEST,
                "bad_host",
                "No usable host",
                "The request must name exactly one host.".into(),
                "send one Host header with a host name",
            ),
            Problem::NoTunnels => (
                StatusCode::METHOD_NOT_ALLOWED,
                "connect_not_allowed",
                "CONNECT is not served here",
                "This is a reverse proxy; it opens no tunnels.".into(),
                "send the request to the host itself",
            ),
            Problem::TooManyHeaders => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too_many_headers",
                "Too many headers",
                "The request has more header lines than are accepted.".into(),
                "send fewer headers",
            ),
            Problem::UnknownHost(host) => (
                StatusCode::NOT_FOUND,
                "unknown_host",
                "Nothing is served under this name",
                format!("No route is configured for the host \"{host}\"."),
                "check the spelling; `vt route list` shows the hosts that are served",
            ),
            Problem::NoBackend(host) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_backend",
                "No instance is ready",
                format!("The route for \"{host}\" has no instance that is ready to answer."),
                "try again in a moment; `vt status` and `vt why` tell what the instances wait for",
            ),
            Problem::Unreachable(host) => (
                StatusCode::BAD_GATEWAY,
                "backend_unreachable",
                "The instances cannot be reached",
                format!("No instance behind \"{host}\" accepted a connection."),
                "does the program listen on the port that its manifest states, on all addresses?",
            ),
            Problem::BrokeOff(host) => (
                StatusCode::BAD_GATEWAY,
                "backend_failed",
                "The instance broke off",
                format!("The instance behind \"{host}\" closed the connection before it answered."),
                "`vt logs` shows what it said; whether it acted on the request is not known",
            ),
            Problem::TimedOut(host) => (
                StatusCode::GATEWAY_TIMEOUT,
                "backend_timeout",
                "The instance did not answer in time",
                format!("The instance behind \"{host}\" took the request and sent no answer in time."),
                "`vt logs` shows what it does; whether it acted on the request is not known",
            ),
            Problem::BodyStalled => (
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "The request did not arrive in time",
                "The body of the request stood still for too long.".into(),
                "send the request again",
            ),
        };
        let retryable = matches!(self, Problem::NoBackend(_) | Problem::Unreachable(_));
        Document { r#type: "about:blank", title, status: status.as_u16(), code, detail, hint, retryable }
    }

    pub fn response(&self) -> Response<Bytes> {
        let document = self.document();
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::from_u16(document.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if document.retryable {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        // After these the rest of the connection cannot be trusted to be in step.
        if matches!(self, Problem::BadHost | Problem::NoTunnels | Problem::TooManyHeaders | Problem::BodyStalled) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The whole answer to a connection that is one too many, head and all: nothing has been read from it.
pub fn full() -> String {
    let document = Document {
        r#type: "about:blank",
        title: "Too many connections",
        status: 503,
        code: "too_many_connections",
        detail: "This listener holds as many connections as it may.".into(),
        hint: "try again in a moment",
        retryable: true,
    };
    let body = serde_json::to_string(&document).unwrap_or_default();
    let mut answer = String::from("HTTP/1.1 503 Service Unavailable\r\n");
    let _ = write!(
        answer,
        "content-type: {CONTENT}\r\nretry-after: {RETRY_AFTER_SECONDS}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_valid_whatever_the_host() {
        let response = Problem::UnknownHost("a\"b<\u{1}".into()).response();
        assert_eq!(response.status(), 404);
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["code"], "unknown_host");
        assert_eq!(body["detail"], "No route is configured for the host \"a\"b<\u{1}\".");
    }

    #[test]
    fn the_refusal_of_a_full_listener_is_a_whole_answer() {
        let full = full();
        let (head, body) = full.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["code"], "too_many_connections");
    }
}
