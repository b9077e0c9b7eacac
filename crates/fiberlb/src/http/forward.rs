//! One request: to whom, what of it, and what when that fails.
//!
//! A request is sent again only where nothing can go wrong by it: when nothing of it has been sent, or when it has no
//! body, its method may be repeated (RFC 9110, section 9.2.2) and not a byte of an answer has come.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::body::{Download, Progress, Upload};
use super::problem::Problem;
use super::upstream::{self, Failure};
use super::wire::Busy;
use super::{Client, headers, upgrade};
use crate::backend::Flight;
use crate::engine::{Key, Miss};

/// Sendings of one request, the first included.
const ATTEMPTS_MAX: usize = 5;

/// Answers a request, whatever happens.
pub async fn answer(client: &Arc<Client>, request: Request<Incoming>) -> Response<Download> {
    let busy = client.activity.begin();
    match forward(client, request).await {
        Ok(answer) => finish(client, answer, busy),
        Err(problem) => {
            tracing::debug!(peer = %client.peer, ?problem, "request not served");
            problem.response().map(|bytes| Download::own(bytes, busy))
        }
    }
}

struct Answer {
    response: Response<Incoming>,
    flight: Flight,
    host: String,
    /// The client's side of the tunnel that was asked for, and the protocol in it.
    tunnel: Option<(OnUpgrade, HeaderValue)>,
}

async fn forward(client: &Arc<Client>, mut request: Request<Incoming>) -> Result<Answer, Problem> {
    let engine = &client.engine;
    if request.method() == Method::CONNECT {
        return Err(Problem::NoTunnels);
    }
    if request.headers().len() > engine.limits.header_count_max {
        return Err(Problem::TooManyHeaders);
    }
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let target = headers::target(&parts)?;
    let wanted = headers::upgrade(&parts);
    headers::to_backend(&mut parts, &target, client.peer.ip(), wanted.as_ref());

    let progress = Progress::new();
    let mut body = Some(Upload::new(body, Arc::clone(&progress), engine.limits.body_timeout));
    let repeatable = body.as_ref().is_some_and(Upload::is_empty) && is_idempotent(&parts.method);
    let mut tried = Vec::new();
    let mut reuse = true;
    let mut problem = Problem::Unreachable(target.host.clone());
    for _ in 0..ATTEMPTS_MAX {
        let flight = match engine.pick_awake(Key::Http(&target.host), &tried).await {
            Ok(flight) => flight,
            Err(Miss::NoRoute) => return Err(Problem::UnknownHost(target.host)),
            Err(Miss::NoBackend | Miss::Asleep) => return Err(Problem::NoBackend(target.host)),
            Err(Miss::Exhausted) => return Err(problem),
        };
        // Once a waiting connection has failed the next attempt takes a new one, whose failure means something.
        let mut connection = match upstream::connection(&flight, engine, repeatable, reuse).await {
            Ok(connection) => connection,
            Err(failure) => {
                flight.failed(engine.clock.monotonic(), &engine.limits, &describe(&failure));
                tried.push(Arc::clone(flight.backend()));
                continue;
            }
        };
        let upload = if repeatable { Upload::Empty } else { body.take().unwrap_or(Upload::Empty) };
        let attempt = Request::from_parts(clone(&parts), upload);
        let failure = match upstream::send(&mut connection.sender, attempt, &progress, engine).await {
            Ok(response) => {
                flight.succeeded();
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    upstream::give_back(connection.sender, flight.backend(), engine);
                }
                let tunnel = wanted.map(|protocol| (on_upgrade, protocol));
                return Ok(Answer { response, flight, host: target.host, tunnel });
            }
            Err(failure) => failure,
        };
        if progress.stalled() {
            return Err(Problem::BodyStalled);
        }
        // A connection that waited may have been closed by the backend meanwhile; that is no fault of anyone.
        if connection.reused {
            reuse = false;
        } else if !matches!(failure, Failure::TimedOut) {
            flight.failed(engine.clock.monotonic(), &engine.limits, &describe(&failure));
            tried.push(Arc::clone(flight.backend()));
        }
        problem = match failure {
            Failure::TimedOut => return Err(Problem::TimedOut(target.host)),
            Failure::Unsent(unsent) => {
                body = Some(unsent);
                Problem::BrokeOff(target.host.clone())
            }
            Failure::Lost(_) if repeatable => Problem::BrokeOff(target.host.clone()),
            Failure::Lost(_) | Failure::Connect(_) => return Err(Problem::BrokeOff(target.host)),
        };
    }
    Err(problem)
}

/// Turns a backend's answer into the client's.
fn finish(client: &Arc<Client>, answer: Answer, busy: Busy) -> Response<Download> {
    let Answer { mut response, flight, host, tunnel } = answer;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some((from_client, protocol)) = tunnel else {
            // Nobody asked for it; what follows on that connection means nothing.
            return Problem::BrokeOff(host).response().map(|bytes| Download::own(bytes, busy));
        };
        let from_backend = hyper::upgrade::on(&mut response);
        upgrade::tunnel(Arc::clone(client), from_client, from_backend, flight, busy);
        let (mut parts, _) = response.into_parts();
        headers::to_client(&mut parts.headers, Some(&protocol));
        return Response::from_parts(parts, Download::own(Bytes::new(), client.activity.begin()));
    }
    let (mut parts, body) = response.into_parts();
    headers::to_client(&mut parts.headers, None);
    // The version belongs to the hop: a backend of 1.0 does not make the client's connection one.
    parts.version = Version::HTTP_11;
    Response::from_parts(parts, Download::backend(body, flight, busy))
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

fn clone(parts: &Parts) -> Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = parts.method.clone();
    copy.uri = parts.uri.clone();
    copy.version = parts.version;
    copy.headers = parts.headers.clone();
    copy
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Connect(error) => format!("cannot connect: {error}"),
        Failure::Unsent(_) => "closed the connection at once".into(),
        Failure::Lost(error) => format!("broke off before an answer: {error}"),
        Failure::TimedOut => "no answer in time".into(),
    }
}
