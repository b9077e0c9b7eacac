//! The protocol in JSON, over plain HTTP: `POST /v3/kv/range` and so on, as etcd's gateway has it.
//!
//! ```text
//!   {"key":"Zm9v"} ──▶ message ──▶ the same handler as for gRPC ──▶ message ──▶ {"header":{...},"kvs":[...]}
//! ```
//!
//! Bytes are base64, 64-bit numbers are strings, fields bear their names of the protocol, defaults are left out. A stream
//! answers one line for each message: `{"result":{...}}`. The requests of a stream are read to their end first.

use std::sync::{Arc, LazyLock};

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderValue, Method as Verb, Request, Response, StatusCode, header};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use tonic::{Code, Status};

use super::{text, with};
use crate::door::desk::{Call, Desk, Peer};
use crate::door::grpc::body::Frames;
use crate::door::grpc::frame::{self, MESSAGE_BYTES_MAX, Messages, PREFIX_BYTES, Wire};
use crate::door::grpc::{Method, Reply, Shape};
use crate::door::route;

/// Base64 makes four bytes of three.
const BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 3 * 4 + 64 * 1024;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(etcd::proto::DESCRIPTORS).expect("what is checked in is well formed"));

/// `path` after `/v3/`.
fn method(path: &str) -> Option<Method> {
    Some(match path {
        "kv/range" => Method::Range,
        "kv/put" => Method::Put,
        "kv/deleterange" => Method::DeleteRange,
        "kv/txn" => Method::Txn,
        "kv/compaction" => Method::Compact,
        "watch" => Method::Watch,
        "lease/grant" => Method::LeaseGrant,
        "lease/revoke" | "kv/lease/revoke" => Method::LeaseRevoke,
        "lease/keepalive" => Method::LeaseKeepAlive,
        "lease/timetolive" | "kv/lease/timetolive" => Method::LeaseTimeToLive,
        "lease/leases" | "kv/lease/leases" => Method::LeaseLeases,
        "cluster/member/add" => Method::MemberAdd,
        "cluster/member/remove" => Method::MemberRemove,
        "cluster/member/update" => Method::MemberUpdate,
        "cluster/member/list" => Method::MemberList,
        "cluster/member/promote" => Method::MemberPromote,
        "maintenance/alarm" => Method::Alarm,
        "maintenance/status" => Method::Status,
        "maintenance/defragment" => Method::Defragment,
        "maintenance/hash" => Method::Hash,
        "maintenance/hashkv" => Method::HashKv,
        "maintenance/snapshot" => Method::Snapshot,
        "maintenance/transfer-leadership" => Method::MoveLeader,
        "maintenance/downgrade" => Method::Downgrade,
        "auth/enable" => Method::AuthEnable,
        "auth/disable" => Method::AuthDisable,
        "auth/status" => Method::AuthStatus,
        "auth/authenticate" => Method::Authenticate,
        "auth/user/add" => Method::UserAdd,
        "auth/user/get" => Method::UserGet,
        "auth/user/list" => Method::UserList,
        "auth/user/delete" => Method::UserDelete,
        "auth/user/changepw" => Method::UserChangePassword,
        "auth/user/grant" => Method::UserGrantRole,
        "auth/user/revoke" => Method::UserRevokeRole,
        "auth/role/add" => Method::RoleAdd,
        "auth/role/get" => Method::RoleGet,
        "auth/role/list" => Method::RoleList,
        "auth/role/delete" => Method::RoleDelete,
        "auth/role/grant" => Method::RoleGrantPermission,
        "auth/role/revoke" => Method::RoleRevokePermission,
        "lock/lock" => Method::Lock,
        "lock/unlock" => Method::Unlock,
        "election/campaign" => Method::Campaign,
        "election/proclaim" => Method::Proclaim,
        "election/leader" => Method::Leader,
        "election/observe" => Method::Observe,
        "election/resign" => Method::Resign,
        _ => return None,
    })
}

fn described(method: Method) -> Option<MethodDescriptor> {
    POOL.get_service_by_name(method.service())?.methods().find(|described| described.name() == method.name())
}

/// `None` when the path is not of the gateway.
pub async fn answer(desk: &Arc<Desk>, request: Request<Wire>) -> Result<Response<Reply>, Request<Wire>> {
    let Some(method) = request.uri().path().strip_prefix("/v3/").and_then(method) else { return Err(request) };
    let Some(described) = described(method) else { return Err(request) };
    if request.method() != Verb::POST {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"));
    }
    Ok(translate(desk.clone(), method, described, request).await.unwrap_or_else(|status| refused(&status)))
}

async fn translate(
    desk: Arc<Desk>,
    method: Method,
    described: MethodDescriptor,
    request: Request<Wire>,
) -> Result<Response<Reply>, Status> {
    let (parts, body) = request.into_parts();
    let body = whole(body).await?;
    let unary = method.shape() == Shape::Unary;
    let messages = messages(&described.input(), &body, method.shape() != Shape::BidiStream)?;
    // A certificate says who talks to the door, not who a request in JSON is from; etcd's gateway holds the same.
    let call = Call { headers: parts.headers, peer: Arc::new(Peer::default()), bytes: 0 };
    let reply = route::call(desk, method, call, Messages::new(Wire::Whole(messages))).await?;
    let output = described.output();
    if unary {
        let message = reply.into_message().unwrap_or_default();
        return Ok(with(StatusCode::OK, "application/json", json(&output, message)?));
    }
    let mut response = Response::new(Reply::lines(lines(output, reply.into_stream())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn whole(body: Wire) -> Result<Bytes, Status> {
    use hyper::body::Body;
    let mut body = std::pin::pin!(body);
    let mut bytes = BytesMut::new();
    while let Some(piece) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let piece = piece.map_err(|error| Status::cancelled(error.to_string()))?;
        if let Ok(data) = piece.into_data() {
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err(crate::door::refusal::REQUEST_TOO_LARGE.into());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// The messages in a body, framed. A body without any counts as one message without fields, where `one` is expected.
fn messages(kind: &MessageDescriptor, body: &[u8], one: bool) -> Result<Bytes, Status> {
    let mut framed = BytesMut::new();
    let mut left = body.trim_ascii();
    if left.is_empty() && one {
        left = b"{}";
    }
    let mut count = 0;
    while !left.is_empty() {
        let mut deserializer = serde_json::Deserializer::from_slice(left).into_iter::<serde_json::Value>();
        let value = deserializer.next().transpose().map_err(|error| malformed(&error))?.unwrap_or_default();
        left = left[deserializer.byte_offset()..].trim_ascii();
        let message = DynamicMessage::deserialize(kind.clone(), value).map_err(|error| malformed(&error))?;
        framed.extend_from_slice(&frame::encode(&message));
        count += 1;
        if one && count > 1 {
            return Err(Status::invalid_argument("one message is expected"));
        }
    }
    Ok(framed.freeze())
}

fn malformed(error: &serde_json::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

fn json(kind: &MessageDescriptor, message: Bytes) -> Result<String, Status> {
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(true);
    let fault = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
    let message = DynamicMessage::decode(kind.clone(), message).map_err(|error| fault(&error))?;
    let value =
        message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| fault(&error))?;
    Ok(value.to_string())
}

/// Each message as a line, the error that ends it as the last.
fn lines(kind: MessageDescriptor, frames: Frames) -> Frames {
    let line = move |frame: Result<Bytes, Status>| {
        let told = frame.and_then(|frame| results(&kind, frame));
        Ok(Bytes::from(told.unwrap_or_else(|status| format!("{{\"error\":{}}}\n", fault(&status)))))
    };
    Box::pin(frames.map(line))
}

fn results(kind: &MessageDescriptor, mut frame: Bytes) -> Result<String, Status> {
    let mut lines = String::new();
    while frame.len() >= PREFIX_BYTES {
        frame.advance(1);
        let bytes = frame.get_u32() as usize;
        let message = frame.split_to(bytes.min(frame.len()));
        lines.extend(["{\"result\":", &json(kind, message)?, "}\n"]);
    }
    Ok(lines)
}

fn fault(status: &Status) -> serde_json::Value {
    serde_json::json!({ "error": status.message(), "code": status.code() as i32, "message": status.message() })
}

fn refused(status: &Status) -> Response<Reply> {
    let code = match status.code() {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        // As etcd 3.4 has it; later gateways say 400.
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    };
    with(code, "application/json", fault(status).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_to_a_method_that_is_described() {
        for method in Method::ALL.iter().filter(|method| !method.service().starts_with("grpc.")) {
            assert!(described(*method).is_some(), "{method:?}");
        }
    }

    #[test]
    fn messages_are_read_one_after_the_other() {
        let kind = described(Method::Watch).unwrap().input();
        let create = r#" {"create_request":{"key":"Zm9v"}} {"progressRequest":{}} "#;
        assert_eq!(messages(&kind, create.as_bytes(), false).unwrap().len(), 5 + 7 + 5 + 2);
        assert!(messages(&kind, create.as_bytes(), true).is_err());
        assert!(messages(&kind, br#"{"nothing":1}"#, true).is_err());
        assert!(messages(&kind, b"{", true).is_err());
        assert_eq!(messages(&kind, b"", true).unwrap().len(), 5);
        assert!(messages(&kind, b"", false).unwrap().is_empty());
    }
}
