//! Plain HTTP beside gRPC, on the same port.

use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::desk::Desk;
use super::grpc::Reply;
use super::options::Options;

pub async fn answer(desk: &Desk, request: Request<Incoming>) -> Response<Reply> {
    if request.method() != Method::GET {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        refused.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static("GET"));
        return refused;
    }
    match request.uri().path() {
        "/version" => {
            let body = serde_json::json!({
                "etcdserver": desk.options.version,
                "etcdcluster": Options::CLUSTER_VERSION,
            });
            json(StatusCode::OK, &body)
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn with(status: StatusCode, kind: &'static str, body: impl Into<bytes::Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::plain(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

pub fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Reply> {
    with(status, "text/plain; charset=utf-8", body)
}

pub fn json(status: StatusCode, body: &serde_json::Value) -> Response<Reply> {
    with(status, "application/json", body.to_string())
}
