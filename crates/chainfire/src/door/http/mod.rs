//! Plain HTTP beside gRPC, on the same port.

mod gateway;
mod health;

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::desk::Desk;
use super::grpc::Reply;
use super::grpc::frame::Wire;
use super::metrics::Facts;
use super::options::Options;

/// Calls in JSON, and all that [`answer`] knows.
pub async fn calls(desk: &Arc<Desk>, request: Request<Wire>) -> Response<Reply> {
    match gateway::answer(desk, request).await {
        Ok(answer) => answer,
        Err(request) => answer(desk, &request).await,
    }
}

/// Health, metrics and the version.
pub async fn answer<B>(desk: &Desk, request: &Request<B>) -> Response<Reply> {
    if request.method() != Method::GET {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    match path {
        "/version" => {
            let body = serde_json::json!({
                "etcdserver": desk.options.version,
                "etcdcluster": Options::CLUSTER_VERSION,
            });
            with(StatusCode::OK, "application/json", body.to_string())
        }
        "/health" => health::health(desk, query).await,
        "/metrics" => metrics(desk).await,
        _ => match health::checks(desk, path, query).await {
            Some(answer) => answer,
            None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        },
    }
}

async fn metrics(desk: &Desk) -> Response<Reply> {
    let facts = Facts {
        header: desk.host.header(),
        seen: desk.seen(),
        host: desk.host.status().await.ok(),
        store: desk.store.status().await.ok(),
        log: desk.host.measures(),
        options: &desk.options,
    };
    let page = desk.metrics.tell(&facts);
    with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
}

fn with(status: StatusCode, kind: &'static str, body: impl Into<bytes::Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::plain(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Reply> {
    with(status, "text/plain; charset=utf-8", body)
}
