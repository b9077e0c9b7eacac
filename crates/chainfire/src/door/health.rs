//! grpc.health.v1: whether this member serves.

use std::sync::Arc;

use etcd::proto::health::health_check_response::ServingStatus;
use etcd::proto::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::Status;

use super::desk::{Call, Desk};
use super::grpc::Method;
use super::grpc::body::Frames;
use super::grpc::frame;

/// Empty for the server as a whole.
fn known(service: &str) -> bool {
    service.is_empty() || Method::ALL.iter().any(|method| method.service() == service)
}

impl Desk {
    fn serving(&self) -> ServingStatus {
        if self.seen().leaderless { ServingStatus::NotServing } else { ServingStatus::Serving }
    }

    pub async fn health_check(&self, _call: &Call, request: HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
        if !known(&request.service) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(HealthCheckResponse { status: self.serving().into() })
    }

    /// Says how it is, and again whenever that changes.
    pub fn health_watch(self: Arc<Self>, request: HealthCheckRequest) -> Frames {
        let known = known(&request.service);
        let changes = self.changes();
        Box::pin(futures::stream::unfold((self, changes, None), move |(desk, mut changes, mut said)| async move {
            loop {
                let status = if known { desk.serving() } else { ServingStatus::ServiceUnknown };
                if said != Some(status) {
                    said = Some(status);
                    let answer = frame::encode(&HealthCheckResponse { status: status.into() });
                    return Some((Ok(answer), (desk, changes, said)));
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        }))
    }
}
