//! From a path to what answers it.

use std::sync::Arc;

use http::{Request, Response, header};
use hyper::body::Incoming;
use prost::Message;
use tonic::Status;

use super::desk::{Call, Desk, Peer};
use super::grpc::frame::{self, Messages};
use super::grpc::{self, Method, Reply};
use super::{http as plain, lease, watch};

pub async fn answer(desk: Arc<Desk>, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Reply> {
    let method = Method::find(request.uri().path());
    let grpc = || {
        request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    };
    let Some(method) = method else {
        return if grpc() {
            grpc::refusal(&unknown(request.uri().path()))
        } else {
            plain::answer(&desk, request).await
        };
    };
    let (parts, body) = request.into_parts();
    let call = Call { headers: parts.headers, peer, bytes: 0 };
    let messages = Messages::new(body);
    let answered = match method {
        Method::Put => put(&desk, call, messages).await,
        Method::Range => range(&desk, call, messages).await,
        Method::Txn => txn(&desk, call, messages).await,
        // Boxed, so that the many rare methods do not make every call's task as large as the largest of them.
        _ => Box::pin(rare(desk, method, call, messages)).await,
    };
    answered.map_or_else(|status| grpc::refusal(&status), grpc::response)
}

fn unknown(path: &str) -> Status {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (service, method) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if Method::ALL.iter().any(|known| known.service() == service) {
        Status::unimplemented(format!("unknown method {method} for service {service}"))
    } else {
        Status::unimplemented(format!("unknown service {service}"))
    }
}

type Body = Messages<Incoming>;

async fn read<M: Message + Default>(desk: &Desk, call: &mut Call, body: Body) -> Result<M, Status> {
    let (message, bytes) = body.only().await?;
    call.bytes = bytes;
    desk.check_leader(call).await?;
    Ok(message)
}

fn reply(message: &impl Message) -> Reply {
    Reply::message(frame::encode(message))
}

async fn put(desk: &Desk, mut call: Call, body: Body) -> Result<Reply, Status> {
    let request = read(desk, &mut call, body).await?;
    Ok(reply(&desk.put(&call, &request).await?))
}

async fn range(desk: &Desk, mut call: Call, body: Body) -> Result<Reply, Status> {
    let request = read(desk, &mut call, body).await?;
    Ok(reply(&desk.range(&call, &request).await?))
}

async fn txn(desk: &Desk, mut call: Call, body: Body) -> Result<Reply, Status> {
    let request = read(desk, &mut call, body).await?;
    Ok(reply(&desk.txn(&call, &request).await?))
}

async fn rare(desk: Arc<Desk>, method: Method, mut call: Call, body: Body) -> Result<Reply, Status> {
    macro_rules! unary {
        ($handler:ident) => {{
            let request = read(&desk, &mut call, body).await?;
            reply(&desk.$handler(&call, request).await?)
        }};
        (& $handler:ident) => {{
            let request = read(&desk, &mut call, body).await?;
            reply(&desk.$handler(&call, &request).await?)
        }};
    }
    Ok(match method {
        Method::Put => unary!(&put),
        Method::Range => unary!(&range),
        Method::Txn => unary!(&txn),
        Method::DeleteRange => unary!(&delete_range),
        Method::Compact => unary!(compact),
        Method::Watch => {
            desk.check_leader(&call).await?;
            Reply::stream(watch::watch(desk, call, body))
        }
        Method::LeaseGrant => unary!(lease_grant),
        Method::LeaseRevoke => unary!(lease_revoke),
        Method::LeaseTimeToLive => unary!(lease_time_to_live),
        Method::LeaseLeases => unary!(lease_leases),
        Method::LeaseKeepAlive => {
            desk.check_leader(&call).await?;
            Reply::stream(lease::keep_alives(desk, call, body))
        }
        _ => return Err(Status::unimplemented(format!("{} is not served", method.name()))),
    })
}
