//! The Lease service.

use std::sync::Arc;

use bytes::Bytes;
use etcd::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use store::{Error, LeaseId};
use tonic::Status;

use super::desk::{Call, Desk};
use super::grpc::body::Frames;
use super::grpc::frame::{self, Messages};
use super::refusal::{self, NO_LEADER};
use super::route::settled;

/// Ids drawn before giving up; each is free with overwhelming probability.
const DRAWS_MAX: usize = 8;

impl Desk {
    pub async fn lease_grant(&self, call: &Call, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        let (view, _) = self.someone(call)?;
        view.is_sound()?;
        self.check_room(&view, call).await?;
        let ttl = u64::try_from(request.ttl).unwrap_or(0).max(self.options.lease_ttl_seconds_min);
        let mut granted = Err(Error::Overloaded);
        for _ in 0..DRAWS_MAX {
            let id = if request.id == 0 { (world::random::number() >> 1).max(1) as i64 } else { request.id };
            granted = self.store.lease_grant(ttl, Some(LeaseId(id))).await;
            if request.id != 0 || !matches!(granted, Err(Error::LeaseExists { .. })) {
                break;
            }
        }
        let lease = granted.map_err(refusal::of)?;
        let header = Some(self.newest_header().await?);
        Ok(LeaseGrantResponse { header, id: lease.id.0, ttl: lease.ttl_seconds as i64, error: String::new() })
    }

    pub async fn lease_revoke(&self, call: &Call, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
        let (view, caller) = self.someone(call)?;
        view.is_sound()?;
        self.may_write_leased(&view, &caller, LeaseId(request.id)).await?;
        let revision = self.store.lease_revoke(LeaseId(request.id)).await.map_err(refusal::of)?;
        Ok(LeaseRevokeResponse { header: Some(self.header(revision)) })
    }

    pub async fn lease_time_to_live(
        &self,
        call: &Call,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let (view, caller) = self.someone(call)?;
        let id = LeaseId(request.id);
        let mut answer = LeaseTimeToLiveResponse { id: id.0, ttl: -1, ..LeaseTimeToLiveResponse::default() };
        match self.store.lease_time_to_live(id).await {
            Ok(status) => {
                answer.ttl = status.remaining_seconds as i64;
                answer.granted_ttl = status.ttl_seconds as i64;
                if request.keys {
                    if !view.may_everything(&caller) {
                        status.keys.iter().try_for_each(|key| view.may_read(&caller, key, b""))?;
                    }
                    answer.keys = status.keys;
                }
            }
            Err(Error::LeaseNotFound { .. }) => {}
            Err(error) => return Err(refusal::of(error)),
        }
        answer.header = Some(self.newest_header().await?);
        Ok(answer)
    }

    pub async fn lease_leases(&self, call: &Call, _request: LeaseLeasesRequest) -> Result<LeaseLeasesResponse, Status> {
        let (view, caller) = self.someone(call)?;
        let leases = self.store.leases().await.map_err(refusal::of)?;
        if !view.may_everything(&caller) {
            for id in &leases {
                match self.store.lease_time_to_live(*id).await {
                    Ok(status) => status.keys.iter().try_for_each(|key| view.may_read(&caller, key, b""))?,
                    Err(Error::LeaseNotFound { .. }) => {}
                    Err(error) => return Err(refusal::of(error)),
                }
            }
        }
        let header = Some(self.newest_header().await?);
        Ok(LeaseLeasesResponse { header, leases: leases.into_iter().map(|id| LeaseStatus { id: id.0 }).collect() })
    }

    async fn keep_alive(&self, call: &Call, request: LeaseKeepAliveRequest) -> Result<LeaseKeepAliveResponse, Status> {
        let (view, caller) = self.someone(call)?;
        self.may_write_leased(&view, &caller, LeaseId(request.id)).await?;
        // From before: a client must not read that its lease was alive at a revision at which it was revoked.
        let header = Some(self.newest_header().await?);
        let ttl = match self.store.lease_keep_alive(LeaseId(request.id)).await {
            Ok(lease) => lease.ttl_seconds as i64,
            Err(Error::LeaseNotFound { .. }) => 0,
            Err(error) => return Err(refusal::of(error)),
        };
        Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
    }
}

/// Answers one sign of life after the other, in the order in which they come.
pub fn keep_alives(desk: Arc<Desk>, call: Call, requests: Messages) -> Frames {
    let changes = desk.changes();
    Box::pin(futures::stream::try_unfold((desk, call, requests, changes), |state| async {
        let (desk, call, mut requests, mut changes) = state;
        let must_have_leader = call.requires_leader();
        let lost = async {
            if changes.wait_for(|seen| seen.leaderless && must_have_leader).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let answer = tokio::select! {
            answer = next(&desk, &call, &mut requests) => answer?,
            () = lost => return Err(NO_LEADER.into()),
        };
        Ok(answer.map(|answer| (answer, (desk, call, requests, changes))))
    }))
}

async fn next(desk: &Desk, call: &Call, requests: &mut Messages) -> Result<Option<Bytes>, Status> {
    let Some((request, _)) = requests.next().await? else { return Ok(None) };
    Ok(Some(frame::encode(&settled!(desk, desk.keep_alive(call, request)))))
}
