//! One door to many stores, one for each who is let in.
//!
//! A client signs in as etcd's clients do: its user is the name of a space, its password a token of the cloud. The token
//! it gets back carries both, so that every call is judged anew by the [`Keyring`]: what is revoked is refused at the
//! next call, and nothing has to be remembered. A stream that stays open is judged again and again, and ends when the
//! answer is no. Users, members and upkeep are the cloud's business and refused here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use etcd::proto::etcdserverpb::{AuthenticateRequest, AuthenticateResponse, ResponseHeader};
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode, header};
use parking_lot::Mutex;
use store::Store;
use tonic::Status;

use super::desk::{Desk, Peer};
use super::grpc::body::Frames;
use super::grpc::frame::{self, Messages, Wire};
use super::grpc::{self, Method, Reply, Shape};
use super::options::Options;
use super::refusal::{AUTH_FAILED, INVALID_AUTH_TOKEN, PERMISSION_DENIED, USER_EMPTY};
use super::route;
use super::solo::{Identity, Solo};
use crate::member::types::Contact;

/// Stores with a desk of their own at once; beyond that desks are made anew when they are needed.
const DESKS_MAX: usize = 4096;

/// An open stream outlives the right to it by so much at most, and the time that the answer takes.
const JUDGED_EVERY: Duration = Duration::from_secs(1);

/// Longer ones are not looked at.
const TOKEN_BYTES_MAX: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    Read,
    Write,
}

/// Why somebody stays outside. Whether there is such a space is not told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outside {
    /// No such space, no such token, or the one is not for the other.
    Unknown,
    /// May look and not touch.
    ReadOnly,
    /// Nobody can tell at the moment.
    Unavailable,
}

/// Decides who comes in, on every call.
#[async_trait]
pub trait Keyring: Send + Sync + 'static {
    /// The store called `space`, for who shows `token`.
    async fn enter(&self, space: &str, token: &str, to: Use) -> Result<Arc<dyn Store>, Outside>;
}

pub struct Tenants {
    keyring: Arc<dyn Keyring>,
    options: Options,
    desks: Mutex<HashMap<String, Arc<Desk>>>,
}

struct Shown {
    space: String,
    token: String,
}

fn shown(headers: &HeaderMap) -> Result<Shown, Status> {
    let value = headers.get("token").or_else(|| headers.get(header::AUTHORIZATION)).ok_or(USER_EMPTY)?;
    let text = value.to_str().unwrap_or_default();
    let text = text.strip_prefix("Bearer ").unwrap_or(text);
    if text.len() > TOKEN_BYTES_MAX {
        return Err(INVALID_AUTH_TOKEN.into());
    }
    let plain = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let plain = plain.ok_or(INVALID_AUTH_TOKEN)?;
    let (space, token) = plain.split_once('\0').ok_or(INVALID_AUTH_TOKEN)?;
    Ok(Shown { space: space.to_owned(), token: token.to_owned() })
}

/// What a call does to the keys; `None` for what is no tenant's to do.
fn use_of(method: Method) -> Option<Use> {
    match method {
        Method::Range
        | Method::Watch
        | Method::LeaseTimeToLive
        | Method::LeaseLeases
        | Method::MemberList
        | Method::Status
        | Method::Leader
        | Method::Observe
        | Method::AuthStatus
        | Method::HealthCheck => Some(Use::Read),
        Method::Put
        | Method::DeleteRange
        | Method::Txn
        | Method::Compact
        | Method::LeaseGrant
        | Method::LeaseRevoke
        | Method::LeaseKeepAlive
        | Method::Lock
        | Method::Unlock
        | Method::Campaign
        | Method::Proclaim
        | Method::Resign => Some(Use::Write),
        Method::Authenticate
        | Method::MemberAdd
        | Method::MemberRemove
        | Method::MemberUpdate
        | Method::MemberPromote
        | Method::Alarm
        | Method::Defragment
        | Method::Hash
        | Method::HashKv
        | Method::Snapshot
        | Method::MoveLeader
        | Method::Downgrade
        | Method::AuthEnable
        | Method::AuthDisable
        | Method::UserAdd
        | Method::UserGet
        | Method::UserList
        | Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleGet
        | Method::RoleList
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission
        | Method::HealthWatch => None,
    }
}

impl Tenants {
    pub fn new(options: Options, keyring: Arc<dyn Keyring>) -> Self {
        Self { keyring, options, desks: Mutex::default() }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub async fn answer(&self, peer: Arc<Peer>, request: Request<Wire>) -> Response<Reply> {
        let Some(method) = Method::find(request.uri().path()) else {
            let kind = request.headers().get(header::CONTENT_TYPE);
            let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            return if grpc { grpc::refusal(&route::unknown(request.uri().path())) } else { nothing() };
        };
        if method == Method::Authenticate {
            let answered = self.authenticate(Messages::new(request.into_body())).await;
            return answered.map_or_else(|status| grpc::refusal(&status), grpc::response);
        }
        let (visit, desk) = match self.desk(method, request.headers()).await {
            Ok(allowed) => allowed,
            Err(status) => return grpc::refusal(&status),
        };
        let answer = route::answer(desk, peer, request).await;
        if method.shape() == Shape::Unary {
            return answer;
        }
        let keyring = self.keyring.clone();
        answer.map(|reply| reply.map_stream(|frames| while_allowed(frames, keyring, visit)))
    }

    async fn authenticate(&self, body: Messages) -> Result<Reply, Status> {
        let (AuthenticateRequest { name, password }, _) = body.only().await?;
        if name.is_empty() {
            return Err(USER_EMPTY.into());
        }
        match self.keyring.enter(&name, &password, Use::Read).await {
            Ok(_) => {}
            Err(Outside::Unavailable) => return Err(Status::unavailable("the store is away")),
            Err(Outside::Unknown | Outside::ReadOnly) => return Err(AUTH_FAILED.into()),
        }
        let token = URL_SAFE_NO_PAD.encode(format!("{name}\0{password}"));
        let answer = AuthenticateResponse { header: Some(ResponseHeader::default()), token };
        Ok(Reply::message(frame::encode(&answer)))
    }

    async fn desk(&self, method: Method, headers: &HeaderMap) -> Result<(Visit, Arc<Desk>), Status> {
        let to = use_of(method).ok_or(PERMISSION_DENIED)?;
        let visit = Visit { shown: shown(headers)?, to };
        let store = visit.judge(&*self.keyring).await.map_err(refusal)?;
        let space = visit.shown.space.clone();
        let mut desks = self.desks.lock();
        if let Some(desk) = desks.get(&space).filter(|desk| Arc::ptr_eq(&desk.store, &store)) {
            return Ok((visit, desk.clone()));
        }
        if desks.len() >= DESKS_MAX {
            desks.clear();
        }
        let host = Solo::new(store.clone(), identity(&space));
        let desk = Arc::new(Desk::new(self.options.clone(), store, Arc::new(host)));
        desks.insert(space, desk.clone());
        Ok((visit, desk))
    }
}

/// Who is in, and what for.
struct Visit {
    shown: Shown,
    to: Use,
}

impl Visit {
    async fn judge(&self, keyring: &dyn Keyring) -> Result<Arc<dyn Store>, Outside> {
        keyring.enter(&self.shown.space, &self.shown.token, self.to).await
    }
}

fn refusal(outside: Outside) -> Status {
    match outside {
        Outside::Unknown => INVALID_AUTH_TOKEN.into(),
        Outside::ReadOnly => PERMISSION_DENIED.into(),
        Outside::Unavailable => Status::unavailable("the store is away"),
    }
}

/// The stream, until its visitor may no more.
fn while_allowed(frames: Frames, keyring: Arc<dyn Keyring>, visit: Visit) -> Frames {
    let refused = async move {
        loop {
            tokio::time::sleep(JUDGED_EVERY).await;
            match visit.judge(&*keyring).await {
                // Nobody took anything away; the stream has its own ways to end.
                Ok(_) | Err(Outside::Unavailable) => {}
                Err(outside) => return refusal(outside),
            }
        }
    };
    Box::pin(futures::stream::unfold(Some((frames, Box::pin(refused))), |open| async {
        let (mut frames, mut refused) = open?;
        tokio::select! {
            biased;
            status = &mut refused => Some((Err(status), None)),
            next = frames.next() => Some((next?, Some((frames, refused)))),
        }
    }))
}

/// The same for a space wherever it is served.
fn identity(space: &str) -> Identity {
    let number = |what: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, format!("{what} {space}").as_bytes());
        let first: [u8; 8] = digest.as_ref()[..8].try_into().expect("a digest has 32 bytes");
        u64::from_be_bytes(first)
    };
    let contact = Contact { name: space.to_owned(), ..Contact::default() };
    Identity { cluster_id: number("cluster"), member_id: number("member"), contact }
}

/// Health and metrics of the whole are no tenant's to see.
fn nothing() -> Response<Reply> {
    let mut response = Response::new(Reply::plain(Bytes::new()));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
