//! From a path to what answers it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use etcd::proto::etcdserverpb::RangeRequest;
use etcd::proto::health::HealthCheckRequest;
use futures::Stream;
use http::{Request, Response, header};
use prost::Message;
use tonic::{Code, Status};

use super::desk::{Call, Desk, Peer};
use super::grpc::body::Frames;
use super::grpc::frame::{self, Messages, Wire};
use super::grpc::{self, Method, Reply, Shape};
use super::{http as plain, lease, watch};

/// What the call answers. A refusal for the sake of users or permissions counts once this member knows all that was
/// answered before; nothing has been done by then.
macro_rules! settled {
    ($desk:expr, $call:expr) => {{
        let version = $desk.host.system().version;
        let mut answered = $call.await;
        if let Err(refused) = &answered
            && $desk.must_ask_again(refused, version).await
        {
            answered = Box::pin($call).await;
        }
        answered?
    }};
}
pub(super) use settled;

pub async fn answer(desk: Arc<Desk>, peer: Arc<Peer>, request: Request<Wire>) -> Response<Reply> {
    let Some(method) = Method::find(request.uri().path()) else {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        return if grpc { grpc::refusal(&unknown(request.uri().path())) } else { plain::calls(&desk, request).await };
    };
    let (parts, body) = request.into_parts();
    let call = Call { headers: parts.headers, peer, bytes: 0 };
    let answered = self::call(desk, method, call, Messages::new(body)).await;
    answered.map_or_else(|status| grpc::refusal(&status), grpc::response)
}

pub async fn call(desk: Arc<Desk>, method: Method, call: Call, messages: Messages) -> Result<Reply, Status> {
    desk.metrics.started(method);
    let answered = match method {
        Method::Put => put(&desk, call, messages).await,
        Method::Range => range(&desk, call, messages).await,
        Method::Txn => txn(&desk, call, messages).await,
        // Boxed, so that the many rare methods do not make every call's task as large as the largest of them.
        _ => Box::pin(rare(desk.clone(), method, call, messages)).await,
    };
    if method.shape() == Shape::Unary || answered.is_err() {
        desk.metrics.finished(method, &answered);
    }
    if let Ok(reply) = &answered {
        desk.metrics.sent_bytes.add(reply.bytes() as u64);
    }
    answered
}

pub fn unknown(path: &str) -> Status {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (service, method) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if Method::ALL.iter().any(|known| known.service() == service) {
        Status::unimplemented(format!("unknown method {method} for service {service}"))
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    }
}

async fn read<M: Message + Default>(desk: &Desk, call: &mut Call, body: Messages) -> Result<M, Status> {
    let (message, bytes) = body.only().await?;
    call.bytes = bytes;
    desk.metrics.received_bytes.add(bytes as u64);
    desk.check_leader(call).await?;
    Ok(message)
}

fn reply(message: &impl Message) -> Reply {
    Reply::message(frame::encode(message))
}

async fn put(desk: &Desk, mut call: Call, body: Messages) -> Result<Reply, Status> {
    let request = read(desk, &mut call, body).await?;
    desk.check_learner().await?;
    Ok(reply(&settled!(desk, desk.put(&call, &request))))
}

async fn range(desk: &Desk, mut call: Call, body: Messages) -> Result<Reply, Status> {
    let request: RangeRequest = read(desk, &mut call, body).await?;
    if !request.serializable {
        desk.check_learner().await?;
    }
    Ok(reply(&settled!(desk, desk.range(&call, &request))))
}

async fn txn(desk: &Desk, mut call: Call, body: Messages) -> Result<Reply, Status> {
    let request = read(desk, &mut call, body).await?;
    desk.check_learner().await?;
    Ok(reply(&settled!(desk, desk.txn(&call, &request))))
}

async fn rare(desk: Arc<Desk>, method: Method, mut call: Call, body: Messages) -> Result<Reply, Status> {
    macro_rules! unary {
        ($handler:ident) => {{
            let request = read(&desk, &mut call, body).await?;
            reply(&settled!(desk, desk.$handler(&call, Clone::clone(&request))))
        }};
        (& $handler:ident) => {{
            let request = read(&desk, &mut call, body).await?;
            reply(&settled!(desk, desk.$handler(&call, &request)))
        }};
    }
    match method {
        Method::Status | Method::Snapshot | Method::HealthCheck | Method::HealthWatch => {}
        _ => desk.check_learner().await?,
    }
    if method.shape() != Shape::Unary {
        desk.check_leader(&call).await?;
        let frames: Frames = match method {
            Method::Watch => watch::watch(desk.clone(), call, body),
            Method::LeaseKeepAlive => lease::keep_alives(desk.clone(), call, body),
            Method::Snapshot => {
                let request = read(&desk, &mut call, body).await?;
                desk.clone().snapshot(&call, request).await?
            }
            Method::Observe => {
                let request = read(&desk, &mut call, body).await?;
                desk.clone().observe(call, request)
            }
            Method::HealthWatch => {
                let request: HealthCheckRequest = read(&desk, &mut call, body).await?;
                desk.clone().health_watch(request)
            }
            _ => return Err(unserved(method)),
        };
        return Ok(Reply::stream(Box::pin(Counted { frames, desk, method, done: false })));
    }
    Ok(match method {
        Method::Put => unary!(&put),
        Method::Range => unary!(&range),
        Method::Txn => unary!(&txn),
        Method::DeleteRange => unary!(&delete_range),
        Method::Compact => unary!(compact),
        Method::LeaseGrant => unary!(lease_grant),
        Method::LeaseRevoke => unary!(lease_revoke),
        Method::LeaseTimeToLive => unary!(lease_time_to_live),
        Method::LeaseLeases => unary!(lease_leases),
        Method::MemberAdd => unary!(member_add),
        Method::MemberRemove => unary!(member_remove),
        Method::MemberUpdate => unary!(member_update),
        Method::MemberPromote => unary!(member_promote),
        Method::MemberList => unary!(member_list),
        Method::Alarm => unary!(alarm),
        Method::Status => unary!(status),
        Method::Defragment => unary!(defragment),
        Method::Hash => unary!(hash),
        Method::HashKv => unary!(hash_kv),
        Method::MoveLeader => unary!(move_leader),
        Method::Downgrade => unary!(downgrade),
        Method::AuthEnable => unary!(auth_enable),
        Method::AuthDisable => unary!(auth_disable),
        Method::AuthStatus => unary!(auth_status),
        Method::Authenticate => unary!(authenticate),
        Method::UserAdd => unary!(user_add),
        Method::UserGet => unary!(user_get),
        Method::UserList => unary!(user_list),
        Method::UserDelete => unary!(user_delete),
        Method::UserChangePassword => unary!(user_change_password),
        Method::UserGrantRole => unary!(user_grant_role),
        Method::UserRevokeRole => unary!(user_revoke_role),
        Method::RoleAdd => unary!(role_add),
        Method::RoleGet => unary!(role_get),
        Method::RoleList => unary!(role_list),
        Method::RoleDelete => unary!(role_delete),
        Method::RoleGrantPermission => unary!(role_grant_permission),
        Method::RoleRevokePermission => unary!(role_revoke_permission),
        Method::Lock => {
            let request = read(&desk, &mut call, body).await?;
            reply(&desk.lock(&call, request).await?)
        }
        Method::Unlock => unary!(unlock),
        Method::Campaign => {
            let request = read(&desk, &mut call, body).await?;
            reply(&desk.campaign(&call, request).await?)
        }
        Method::Proclaim => unary!(proclaim),
        Method::Leader => unary!(leader),
        Method::Resign => unary!(resign),
        Method::HealthCheck => unary!(health_check),
        _ => return Err(unserved(method)),
    })
}

fn unserved(method: Method) -> Status {
    Status::unimplemented(format!("unknown method {} for service {}", method.name(), method.service()))
}

/// A stream that is counted when it ends.
struct Counted {
    frames: Frames,
    desk: Arc<Desk>,
    method: Method,
    done: bool,
}

impl Counted {
    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.done, true) {
            self.desk.metrics.handled(self.method, code);
        }
    }
}

impl Stream for Counted {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.frames.as_mut().poll_next(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.desk.metrics.sent_bytes.add(frame.len() as u64),
            Poll::Ready(Some(Err(status))) => self.end(status.code()),
            Poll::Ready(None) => self.end(Code::Ok),
            Poll::Pending => {}
        }
        polled
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}
