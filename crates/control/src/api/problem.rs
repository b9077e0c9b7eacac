//! Errors as RFC 9457 problem documents.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use model::{Code, Error, Id};
use serde::Serialize;

/// How long a caller that was turned away for load should wait.
const RETRY_AFTER_SECONDS: &str = "1";

/// A refusal on its way to the caller. The status is the code's own unless HTTP has a better one.
#[derive(Debug)]
pub struct Refusal(Box<Inner>);

#[derive(Debug)]
struct Inner {
    error: Error,
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The document. Its fields are those of [`Error`], with what RFC 9457 and HTTP add.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Problem {
    /// Names the code; nothing can be fetched there.
    #[serde(rename = "type")]
    pub about: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The same as `message`.
    pub detail: String,
    pub code: Code,
    /// What `vt explain` takes.
    pub number: String,
    /// One sentence that names what was refused or failed.
    pub message: String,
    /// Why, where the message alone does not tell. May be empty.
    pub why: String,
    /// What to do about it. May be empty.
    pub hint: String,
    /// The field of the request that is wrong, as a path with dots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The reason code behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sequence of the event that decided it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
    pub request_id: Id,
    /// The same request may be accepted later.
    pub retryable: bool,
}

impl Problem {
    pub fn of(error: &Error, status: u16, request_id: &Id) -> Self {
        let number = error.code.number().to_owned();
        Self {
            about: format!("about:blank#{number}"),
            title: error.code.word().replace('_', " "),
            status,
            detail: error.message.clone(),
            code: error.code,
            number,
            message: error.message.clone(),
            why: error.why.clone(),
            hint: error.hint.clone(),
            field: error.field.clone(),
            reason: error.reason.clone(),
            event: error.event,
            request_id: request_id.clone(),
            retryable: error.code.retryable(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(error.code.http_status()).expect("each code has a status");
        let headers = match error.code {
            Code::Unauthenticated => vec![(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))],
            Code::RateLimited | Code::Unavailable => {
                vec![(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS))]
            }
            _ => Vec::new(),
        };
        Self(Box::new(Inner { error, status, headers }))
    }
}

impl Refusal {
    pub fn status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.push((name, value));
        }
        self
    }

    /// The reason code behind it.
    pub fn reason(&self) -> Option<&str> {
        self.0.error.reason.as_deref()
    }

    pub fn response(self, request_id: &Id) -> Response {
        let Inner { error, status, headers } = *self.0;
        if error.code == Code::Internal {
            tracing::error!(%request_id, message = error.message, why = error.why, "a request failed");
        }
        let problem = Problem::of(&error, status.as_u16(), request_id);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response.headers_mut().extend(headers);
        response
    }
}
