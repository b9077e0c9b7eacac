//! A request that was let in: who asks, about what, with which parameters.
//!
//! ```text
//! limits -> token -> query -> guard -> body -> Call -> handler
//! ```
//!
//! Every guard is decided here, so that a handler cannot forget it: it is handed the row or scope that was let through.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use http::request::Parts;
use http::{HeaderMap, header};
use iam::{Principal, Verb};
use model::event::{Actor, ActorKind};
use model::{Code, Error, Id, Row, Scope};
use parking_lot::Mutex;
use reconcile::{Origin, rows};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::Cloud;
use super::payload::{self, New};
use super::problem::Refusal;
use super::query::Query;
use super::tenancy::{self, Seen};
use crate::routes::{Action, Guard, Payload, Route};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_CHARS_MAX: usize = 128;
const BEARER: &str = "Bearer ";

/// What the guard let through.
#[derive(Debug)]
pub enum Subject {
    Nothing,
    /// The row that the path names, and the revision at which it was last written.
    Row(Box<Row>, u64),
    /// There is no such row now; a repeated request may still have its answer.
    Gone(Id),
    Scope(Seen),
    New(New),
}

/// A place among those who are served at once; given back when dropped.
pub enum Slot {
    Free,
    Request(#[expect(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit),
    Stream(#[expect(dead_code, reason = "held until it is dropped")] StreamSlot),
}

pub struct StreamSlot {
    token: Id,
    counts: Arc<Mutex<std::collections::BTreeMap<Id, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.token);
            }
        }
    }
}

/// A request that was let in.
pub struct Call {
    pub cloud: Arc<Cloud>,
    pub place: usize,
    pub request_id: Id,
    /// Present unless the route is open.
    pub principal: Option<Principal>,
    pub subject: Subject,
    pub query: Query,
    pub parts: Parts,
    /// The path's parameters besides `id`, in order.
    pub path: Vec<(String, String)>,
    pub spec: Value,
    /// Behind a lock because a body may not be shared between threads, and a call may.
    pub body: Mutex<Body>,
    pub if_version: Option<u64>,
    pub idempotency_key: Option<String>,
    pub slot: Slot,
}

impl Call {
    /// Lets a request in, or refuses it before anything changes.
    pub async fn admit(cloud: Arc<Cloud>, place: usize, request_id: Id, request: Request) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let route = &cloud.routes[place];
        if route.guard == Guard::Open {
            let query = Query::read(route, &parts.uri)?;
            let (principal, subject, path) = (None, Subject::Nothing, Vec::new());
            let (spec, if_version, idempotency_key, slot) = (Value::Null, None, None, Slot::Free);
            return Ok(Self {
                place,
                request_id,
                principal,
                subject,
                query,
                parts,
                path,
                spec,
                body: Mutex::new(body),
                if_version,
                idempotency_key,
                slot,
                cloud: cloud.clone(),
            });
        }
        let permit = cloud.requests.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let principal = authenticate(&cloud, &parts.headers).await?;
        let slot = if route.action.is_long() { stream_slot(&cloud, &principal)? } else { Slot::Request(permit) };
        let path = RawPathParams::from_request_parts(&mut parts, &())
            .await
            .map_err(|error| Error::invalid("path", format!("the path cannot be read: {error}")))?;
        let path: Vec<(String, String)> =
            path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query = Query::read(route, &parts.uri)?;
        let if_version = if_match(&parts.headers)?;
        let idempotency_key = if route.mutating { idempotency_key(&parts.headers)? } else { None };
        let mut body = body;
        let mut spec = Value::Null;
        let subject = match route.guard {
            Guard::Open | Guard::Token => Subject::Nothing,
            Guard::Cloud => cloud_wide(&principal, route).map(|()| Subject::Nothing)?,
            Guard::Row => {
                let subject = row(&cloud, route, &principal, &path, idempotency_key.is_some()).await?;
                if route.payload == Payload::Spec {
                    let body = std::mem::take(&mut body);
                    spec = payload::read_spec(&parts.headers, body, &cloud.limits).await?;
                }
                subject
            }
            Guard::InnerScope => inner_scope(&cloud, route, &principal, &path).await?,
            Guard::ScopeQuery => Subject::Scope(tenancy::narrow(&cloud, &principal, &query.scope()).await?),
            Guard::ScopeBody => {
                let new = New::read(&parts.headers, std::mem::take(&mut body), &cloud.limits).await?;
                iam::authorise(&principal, Verb::Write, &new.scope).map_err(|error| scope_error(error, &new.scope))?;
                owner(&cloud, &principal, new.owner.as_ref()).await?;
                Subject::New(new)
            }
        };
        let principal = Some(principal);
        Ok(Self {
            place,
            request_id,
            principal,
            subject,
            query,
            parts,
            path,
            spec,
            body: Mutex::new(body),
            if_version,
            idempotency_key,
            slot,
            cloud: cloud.clone(),
        })
    }

    pub fn route(&self) -> &Route {
        &self.cloud.routes[self.place]
    }

    /// The kind of the route.
    pub fn kind(&self) -> &'static str {
        self.route().kind.unwrap_or_default()
    }

    pub fn principal(&self) -> Result<&Principal, Error> {
        self.principal.as_ref().ok_or_else(|| Error::internal("a route without a guard asks for a principal"))
    }

    /// The row that was let through.
    pub fn row(&self) -> Result<&Row, Error> {
        match &self.subject {
            Subject::Row(row, _) => Ok(row),
            Subject::Gone(id) => Err(Error::not_found(id)),
            _ => Err(Error::internal("a route without a row asks for one")),
        }
    }

    /// The id of the row that was let through, also when it is gone.
    pub fn row_id(&self) -> Result<&Id, Error> {
        match &self.subject {
            Subject::Gone(id) => Ok(id),
            _ => self.row().map(|row| &row.id),
        }
    }

    pub fn seen(&self) -> Result<&Seen, Error> {
        match &self.subject {
            Subject::Scope(seen) => Ok(seen),
            _ => Err(Error::internal("a route without a scope asks for one")),
        }
    }

    /// Who did it, for the log.
    pub fn origin(&self) -> Result<Origin, Error> {
        Ok(Origin {
            actor: Actor { kind: ActorKind::User, id: self.principal()?.id.to_string() },
            request_id: self.request_id.clone(),
            idempotency_key: self.idempotency_key.clone(),
            correlation: None,
            causation: None,
        })
    }
}

/// Who shows the token in these headers.
pub async fn authenticate(cloud: &Cloud, headers: &HeaderMap) -> Result<Principal, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Err(Error::new(Code::Unauthenticated, "a token is needed")
            .hint("send `Authorization: Bearer vt_at_...`")
            .into());
    };
    // The scheme's case does not matter (RFC 9110, section 11.1).
    let text = value.to_str().unwrap_or_default();
    let (scheme, token) = text.split_at_checked(BEARER.len()).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Err(Error::new(Code::Unauthenticated, "the authorization is not a bearer token")
            .hint("send `Authorization: Bearer vt_at_...`")
            .into());
    }
    Ok(iam::authenticate(&cloud.door, token.trim()).await?)
}

fn overloaded() -> Error {
    Error::new(Code::Unavailable, "too many requests at once").hint("ask again a little later").reason("overloaded")
}

fn stream_slot(cloud: &Cloud, principal: &Principal) -> Result<Slot, Error> {
    let permit = cloud.streams.clone().try_acquire_owned().map_err(|_| overloaded())?;
    let counts = cloud.streams_by_token.clone();
    {
        let mut counts = counts.lock();
        let count = counts.entry(principal.id.clone()).or_default();
        if *count >= cloud.limits.streams_per_token_max {
            let message =
                format!("this token has {count} waits, watches, streams and uploads open, and may have no more");
            return Err(Error::new(Code::RateLimited, message).hint("close some, or ask again a little later"));
        }
        *count += 1;
    }
    Ok(Slot::Stream(StreamSlot { token: principal.id.clone(), counts, _permit: permit }))
}

fn verb(route: &Route) -> Verb {
    if route.mutating { Verb::Write } else { Verb::Read }
}

fn cloud_wide(principal: &Principal, route: &Route) -> Result<(), Error> {
    if principal.scope != Scope::CLOUD {
        return Err(Error::new(Code::Denied, "only a token of the whole cloud may do this"));
    }
    iam::authorise(principal, verb(route), &Scope::CLOUD)
}

fn path_id(path: &[(String, String)]) -> Result<Id, Error> {
    let text = path.iter().find(|(name, _)| name == "id").map_or("", |(_, value)| value.as_str());
    text.parse().map_err(|error: model::id::InvalidId| {
        Error::invalid("id", error.to_string()).hint("to find a row by its name, list with `?name=`")
    })
}

async fn row(
    cloud: &Cloud,
    route: &Route,
    principal: &Principal,
    path: &[(String, String)],
    repeatable: bool,
) -> Result<Subject, Error> {
    let id = path_id(path)?;
    let stored = rows::get(&**cloud.door.store(), &id).await?;
    let Some(stored) = stored else {
        // The row may be gone because of this very request, sent before with the same key: its answer is kept, for
        // this token alone.
        let answered = repeatable && matches!(route.action, Action::Set | Action::Delete);
        return if answered { Ok(Subject::Gone(id)) } else { Err(Error::not_found(&id)) };
    };
    if Some(stored.row.kind.as_str()) != route.kind {
        return Err(Error::not_found(&id));
    }
    iam::authorise_row(principal, verb(route), &stored.row)?;
    Ok(Subject::Row(Box::new(stored.row), stored.revision.0))
}

async fn inner_scope(
    cloud: &Cloud,
    route: &Route,
    principal: &Principal,
    path: &[(String, String)],
) -> Result<Subject, Error> {
    let id = path_id(path)?;
    let stored = rows::get(&**cloud.door.store(), &id).await?;
    let stored = stored.filter(|stored| Some(stored.row.kind.as_str()) == route.kind);
    let stored = stored.ok_or_else(|| Error::not_found(&id))?;
    iam::authorise(principal, verb(route), &stored.row.inner_scope()).map_err(|error| match error.code {
        Code::NotFound => Error::not_found(&id),
        _ => error,
    })?;
    Ok(Subject::Row(Box::new(stored.row), stored.revision.0))
}

/// A new row may belong only to a row that the caller may change.
async fn owner(cloud: &Cloud, principal: &Principal, owner: Option<&Id>) -> Result<(), Error> {
    let Some(owner) = owner else { return Ok(()) };
    let missing = || Error { field: Some("owner".to_owned()), ..Error::not_found(owner) };
    let row = cloud.door.get(owner).await?.ok_or_else(missing)?;
    iam::authorise_row(principal, Verb::Write, &row).map_err(|error| match error.code {
        Code::NotFound => missing(),
        _ => error,
    })
}

fn scope_error(error: Error, scope: &Scope) -> Error {
    match error.code {
        Code::NotFound => tenancy::missing(scope),
        _ => error,
    }
}

fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let version = number.parse().map_err(|_| {
        Error::invalid("If-Match", "`If-Match` must be a row's version").hint("use the `version` or `ETag` of the row")
    })?;
    Ok(Some(version))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let fine =
        (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !fine {
        let message =
            format!("`Idempotency-Key` must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable characters without spaces");
        return Err(Error::invalid("Idempotency-Key", message));
    }
    Ok(Some(text.to_owned()))
}
