//! The HTTP API.
//!
//! ```text
//! router     from the route table; what matches none is answered 401, 404 or 405
//! call       request -> who asks -> may they -> is it well formed -> Call
//! rows       list, get, create, set, delete, events, why, wait
//! watch      server-sent events of rows and of the log
//! stream     a kind's own streams: lines of JSON, or a WebSocket
//! blobs      uploads
//! about      answers about the program and the cloud itself
//! problem    errors as RFC 9457 problem documents
//! ```

mod about;
mod blobs;
mod call;
mod nearest;
mod payload;
mod problem;
mod query;
mod rows;
mod stream;
mod tenancy;
mod watch;
mod wire;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Method, StatusCode, header};
use model::{Code, Error, Id};
use reconcile::rows::Changed;
use reconcile::{Door, Rows};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::routes::{Action, Route};
use crate::service::Provider;
use crate::uploads::Uploads;
pub use problem::Problem;

use call::Call;
use problem::Refusal;
use reconcile::rows::STORE_UNAVAILABLE;

/// What handlers answer from. One for each service.
pub struct Cloud {
    pub door: Door,
    pub rows: Rows,
    pub changes: broadcast::Sender<Changed>,
    pub uploads: Arc<dyn Uploads>,
    pub info: Provider,
    pub settings: Provider,
    pub version: String,
    pub limits: Arc<Limits>,
    pub routes: Vec<Route>,
    pub openapi: Bytes,
    /// Monotonic time of the start.
    pub started: Duration,
    pub requests: Arc<Semaphore>,
    pub streams: Arc<Semaphore>,
    pub streams_by_token: Arc<parking_lot::Mutex<BTreeMap<Id, usize>>>,
    pub metrics: Metrics,
    pub closing: CancellationToken,
}

const REQUEST_ID: &str = "x-request-id";
/// The route of requests that match none, in metrics.
const UNMATCHED: &str = "unmatched";

/// The router of a service's route table.
pub fn router(cloud: &Arc<Cloud>) -> Router {
    let mut paths: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, route) in cloud.routes.iter().enumerate() {
        paths.entry(&route.path).or_default().push(place);
    }
    let mut router = Router::new();
    for (path, places) in paths {
        let mut methods = MethodRouter::new();
        let mut allowed: Vec<String> = Vec::new();
        for place in places {
            let route = &cloud.routes[place];
            allowed.push(route.method.to_string());
            if route.method == Method::GET {
                allowed.push(Method::HEAD.to_string());
            }
            let filter = MethodFilter::try_from(route.method.clone()).expect("a route has a method of RFC 9110");
            let cloud = cloud.clone();
            methods = methods.merge(on(filter, move |request: Request| matched(cloud, place, request)));
        }
        let (cloud, allowed) = (cloud.clone(), allowed.join(", "));
        methods = methods.fallback(move |request: Request| unmatched(cloud, Some(allowed), request));
        router = router.route(path, methods);
    }
    let cloud = cloud.clone();
    router.fallback(move |request: Request| unmatched(cloud, None, request))
}

async fn matched(cloud: Arc<Cloud>, place: usize, request: Request) -> Response {
    let begin = cloud.door.clock().monotonic();
    let (request_id, method) = (request_id(&request), request.method().to_string());
    let work = async {
        let route = &cloud.routes[place];
        let answering = answer(&cloud, place, request_id.clone(), request);
        if route.action.is_long() {
            return answering.await;
        }
        match tokio::time::timeout(cloud.limits.request_time_max, answering).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(Code::DeadlineExceeded, "the request took too long")
                .why("it may have been accepted all the same")
                .hint("ask again; with the same Idempotency-Key it has one effect")
                .into()),
        }
    };
    // A handler that panics is one failed request, not a lost connection.
    let answer = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(route = cloud.routes[place].path, %request_id, "a handler panicked");
        Err(Error::internal("the request could not be answered").into())
    });
    finish(&cloud, &cloud.routes[place].path, &method, &request_id, begin, answer)
}

async fn unmatched(cloud: Arc<Cloud>, allowed: Option<String>, request: Request) -> Response {
    let begin = cloud.door.clock().monotonic();
    let (request_id, method) = (request_id(&request), request.method().to_string());
    let refusal = match call::authenticate(&cloud, request.headers()).await {
        Err(refusal) => refusal,
        Ok(_) => match allowed {
            Some(allowed) => {
                let message = format!("{method} is not possible here; possible: {allowed}");
                Refusal::from(Error::new(Code::InvalidArgument, message))
                    .status(StatusCode::METHOD_NOT_ALLOWED)
                    .header(header::ALLOW, &allowed)
            }
            None => Error::new(Code::NotFound, "there is nothing at this path").hint("see /openapi.json").into(),
        },
    };
    finish(&cloud, UNMATCHED, &method, &request_id, begin, Err(refusal))
}

async fn answer(cloud: &Arc<Cloud>, place: usize, request_id: Id, request: Request) -> Result<Response, Refusal> {
    let call = Call::admit(cloud.clone(), place, request_id, request).await?;
    match cloud.routes[place].action {
        Action::List => rows::list(call).await,
        Action::Create => rows::create(call).await,
        Action::Get => rows::get(call),
        Action::Set => rows::set(call).await,
        Action::Delete => rows::delete(call).await,
        Action::RowEvents => rows::events(call).await,
        Action::Why => rows::why(call).await,
        Action::Wait => rows::wait(call).await,
        Action::WatchRows => watch::rows(call).await,
        Action::Stream(contract) if contract.duplex => stream::duplex(call, contract.name).await,
        Action::Stream(contract) => stream::lines(call, contract.name).await,
        Action::Events => about::events(call).await,
        Action::WatchEvents => watch::events(call).await,
        Action::Whoami => about::whoami(call),
        Action::Info => about::info(call),
        Action::Config => about::config(call),
        Action::Kinds => about::kinds(call),
        Action::Replay => about::replay(call).await,
        Action::PutBlob => blobs::put(call).await,
        Action::HasBlob => blobs::has(call).await,
        Action::OpenApi => Ok(about::openapi(call)),
        Action::Health => about::health(call),
        Action::Ready => about::ready(call).await,
        Action::Version => about::version(call),
        Action::Metrics => Ok(about::metrics(call)),
    }
}

/// The caller's own request id when it is one, or a new one.
fn request_id(request: &Request) -> Id {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()?.parse::<Id>().ok());
    given.filter(|id| id.prefix() == model::id::REQUEST).unwrap_or_else(|| Id::new(model::id::REQUEST))
}

fn finish(
    cloud: &Cloud,
    route: &str,
    method: &str,
    request_id: &Id,
    begin: Duration,
    answer: Result<Response, Refusal>,
) -> Response {
    if answer.as_ref().is_err_and(|refusal| refusal.reason() == Some(STORE_UNAVAILABLE)) {
        cloud.rows.outage().suspect();
    }
    let mut response = answer.unwrap_or_else(|refusal| refusal.response(request_id));
    let headers = response.headers_mut();
    let id = HeaderValue::from_str(request_id.as_str()).expect("an id is ASCII");
    headers.insert(REQUEST_ID, id);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let time = cloud.door.clock().monotonic().saturating_sub(begin);
    let status = response.status();
    cloud.metrics.request(method, route, status.as_u16(), time);
    tracing::debug!(%request_id, method, route, status = status.as_u16(), ?time, "answered");
    response
}

/// A JSON answer.
fn json(status: StatusCode, value: &impl serde::Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(value).map_err(|error| Error::internal(error.to_string()))?;
    Ok(with_type(status, "application/json", body))
}

fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
