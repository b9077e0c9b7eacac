//! The Maintenance service.

use std::sync::Arc;

use bytes::Bytes;
use etcd::proto::etcdserverpb::alarm_request::AlarmAction;
use etcd::proto::etcdserverpb::downgrade_request::DowngradeAction;
use etcd::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use sha2::{Digest, Sha256};
use store::Revision;
use tonic::Status;

use super::alarm::Alarm;
use super::desk::{Call, Desk};
use super::grpc::body::Frames;
use super::grpc::frame;
use super::host::{MemberError, SnapshotPieces};
use super::options::Options;
use super::refusal::{
    self, BAD_TRANSFEREE, INVALID_DOWNGRADE_TARGET, NO_DOWNGRADE, NO_LEADER, NOT_LEADER, TOO_MANY_REQUESTS,
    WRONG_DOWNGRADE_VERSION,
};

/// Alarms that may ring at once: a request may name any member.
const ALARMS_MAX: usize = 256;

/// etcd's client takes a snapshot for whole when its length, without the digest, is a multiple of this.
const SNAPSHOT_BLOCK: u64 = 512;

/// Length of the digest that ends a snapshot, SHA-256.
const DIGEST_BYTES: u64 = 32;

impl Desk {
    pub async fn status(&self, call: &Call, _request: StatusRequest) -> Result<StatusResponse, Status> {
        let (view, _) = self.someone(call)?;
        let status = self.host.status().await.map_err(refusal::of)?;
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push(NO_LEADER.1.to_owned());
        }
        errors.extend(view.alarms.iter().map(ToString::to_string));
        errors.extend(status.problems);
        Ok(StatusResponse {
            header: Some(self.newest_header().await?),
            version: self.options.version.clone(),
            db_size: status.db_bytes as i64,
            leader: status.leader.unwrap_or(0),
            raft_index: status.log_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: status.db_bytes_used as i64,
            is_learner: status.learner,
            storage_version: Options::CLUSTER_VERSION.into(),
            db_size_quota: self.options.quota_bytes.unwrap_or(0) as i64,
            downgrade_info: None,
        })
    }

    pub async fn alarm(&self, call: &Call, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        let (view, caller) = self.someone(call)?;
        let kind = AlarmType::try_from(request.alarm).unwrap_or(AlarmType::None);
        let asked = Alarm { member: request.member_id, kind };
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => {
                let wanted = |alarm: &&Alarm| kind == AlarmType::None || alarm.kind == kind;
                view.alarms.iter().filter(wanted).copied().collect()
            }
            Ok(_) if kind == AlarmType::None => Vec::new(),
            Ok(AlarmAction::Activate) => {
                view.is_admin(&caller)?;
                self.ring(asked).await?;
                vec![asked]
            }
            Ok(AlarmAction::Deactivate) => {
                view.is_admin(&caller)?;
                self.disarm(asked).await?.into_iter().collect()
            }
            Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
        };
        let member = |alarm: Alarm| AlarmMember { member_id: alarm.member, alarm: alarm.kind.into() };
        let alarms = alarms.into_iter().map(member).collect();
        Ok(AlarmResponse { header: Some(self.newest_header().await?), alarms })
    }

    /// The alarm rings when this returns, whether or not it did before.
    pub async fn ring(&self, alarm: Alarm) -> Result<(), Status> {
        self.amend(|view| {
            if view.alarms.contains(&alarm) {
                return Ok((Vec::new(), ()));
            }
            if view.alarms.len() >= ALARMS_MAX {
                return Err(TOO_MANY_REQUESTS.into());
            }
            Ok((vec![(alarm.key(), Some(Bytes::new()))], ()))
        })
        .await
    }

    async fn disarm(&self, alarm: Alarm) -> Result<Option<Alarm>, Status> {
        self.amend(|view| {
            let rings = view.alarms.contains(&alarm);
            Ok(if rings { (vec![(alarm.key(), None)], Some(alarm)) } else { (Vec::new(), None) })
        })
        .await
    }

    /// There is nothing to do: space is reclaimed all the time, without stopping anybody.
    pub async fn defragment(&self, call: &Call, _request: DefragmentRequest) -> Result<DefragmentResponse, Status> {
        self.admin(call)?;
        Ok(DefragmentResponse { header: None })
    }

    pub async fn hash(&self, call: &Call, _request: HashRequest) -> Result<HashResponse, Status> {
        self.admin(call)?;
        let answer = self.host.hash(None).await.map_err(refusal::of)?;
        Ok(HashResponse { header: Some(self.header(answer.revision)), hash: answer.hash })
    }

    pub async fn hash_kv(&self, call: &Call, request: HashKvRequest) -> Result<HashKvResponse, Status> {
        self.admin(call)?;
        let asked = (request.revision > 0).then_some(Revision(request.revision as u64));
        let answer = self.host.hash(asked).await.map_err(refusal::of)?;
        let header = if asked.is_some() { self.newest_header().await? } else { self.header(answer.revision) };
        // etcd counts from -1 here.
        let compact_revision = if answer.compacted == Revision::ZERO { -1 } else { answer.compacted.0 as i64 };
        let hash_revision = answer.revision.0 as i64;
        Ok(HashKvResponse { header: Some(header), hash: answer.hash, compact_revision, hash_revision })
    }

    pub async fn move_leader(&self, call: &Call, request: MoveLeaderRequest) -> Result<MoveLeaderResponse, Status> {
        self.admin(call)?;
        let status = self.host.status().await.map_err(refusal::of)?;
        if status.leader != Some(self.host.header().member_id) {
            return Err(NOT_LEADER.into());
        }
        self.host.transfer(request.target_id).await.map_err(|error| match error {
            MemberError::NotFound(_) => BAD_TRANSFEREE.into(),
            error => refusal::of_member(error),
        })?;
        Ok(MoveLeaderResponse { header: None })
    }

    /// There is one version of the data, and none to go back to.
    pub async fn downgrade(&self, call: &Call, request: DowngradeRequest) -> Result<DowngradeResponse, Status> {
        self.admin(call)?;
        let refused = match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Cancel) => NO_DOWNGRADE,
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) if is_version(&request.version) => {
                INVALID_DOWNGRADE_TARGET
            }
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => WRONG_DOWNGRADE_VERSION,
            Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
        };
        Err(refused.into())
    }

    pub async fn snapshot(self: Arc<Self>, call: &Call, _request: SnapshotRequest) -> Result<Frames, Status> {
        self.admin(call)?;
        let pieces = self.host.snapshot().await.map_err(refusal::of)?;
        let sending = Sending { pieces, digest: Sha256::new(), sent: 0, header: self.newest_header().await? };
        Ok(Box::pin(futures::stream::try_unfold(Some(sending), |sending| async {
            let Some(sending) = sending else { return Ok(None) };
            Ok(Some(sending.next().await?))
        })))
    }
}

/// `3.5` or `3.5.0`.
fn is_version(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    (2..=3).contains(&parts.len()) && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

/// A snapshot on its way: its pieces, zeros up to a whole block, and the digest of both.
struct Sending {
    pieces: SnapshotPieces,
    digest: Sha256,
    sent: u64,
    header: etcd::proto::etcdserverpb::ResponseHeader,
}

impl Sending {
    async fn next(mut self) -> Result<(Bytes, Option<Self>), Status> {
        let blob = match self.pieces.recv().await {
            Some(piece) => piece.map_err(refusal::of)?,
            None if !self.sent.is_multiple_of(SNAPSHOT_BLOCK) => {
                Bytes::from(vec![0; (SNAPSHOT_BLOCK - self.sent % SNAPSHOT_BLOCK) as usize])
            }
            None => {
                let blob = Bytes::copy_from_slice(&self.digest.finalize());
                let last = SnapshotResponse { header: Some(self.header), blob, ..SnapshotResponse::default() };
                return Ok((frame::encode(&last), None));
            }
        };
        self.digest.update(&blob);
        self.sent += blob.len() as u64;
        let answer = SnapshotResponse {
            header: Some(self.header),
            // How much there is shows only at the end; the digest at least is still to come.
            remaining_bytes: DIGEST_BYTES,
            blob,
            version: Options::CLUSTER_VERSION.into(),
        };
        Ok((frame::encode(&answer), Some(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_two_numbers_or_three() {
        for (text, expected) in [("3.4", true), ("3.4.0", true), ("3", false), ("v3.4", false), ("3.x", false)] {
            assert_eq!(is_version(text), expected, "{text}");
        }
    }
}
