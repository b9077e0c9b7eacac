//! gRPC over HTTP/2: the part of it that a server of unary calls and streams needs.
//!
//! ```text
//!   request body ── frame::Messages ──▶ handler ──▶ frame::encode ──▶ body::Reply ── trailers: the status
//! ```
//!
//! Messages are read and written without a layer between them and the connection: one request is one allocation, its
//! answer another.

pub mod body;
pub mod frame;
pub mod method;

pub use body::Reply;
pub use method::{Method, Shape};

use http::{HeaderMap, HeaderValue, Response, header};
use tonic::Status;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// An answer that is its status alone.
pub fn refusal(status: &Status) -> Response<Reply> {
    let mut response = Response::new(Reply::empty());
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

pub fn response(reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

/// The status as it stands in trailers.
pub fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    trailers
}

/// The trailers of success.
pub fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}
