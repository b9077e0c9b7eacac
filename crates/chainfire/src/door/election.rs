//! The Election service.

use std::sync::Arc;

use bytes::Bytes;
use etcd::proto::etcdserverpb::{ResponseHeader, TxnRequest};
use etcd::proto::mvccpb;
use etcd::proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use store::{EventKind, Range, RangeEnd, Revision, WatchEvent, WatchRequest, Watcher};
use tonic::Status;

use super::desk::{Call, Desk};
use super::grpc::body::Frames;
use super::grpc::frame;
use super::kv::answer::key_value;
use super::lock::ranged;
use super::refusal::{self, STOPPED};
use super::turns::{self, Place};

fn missing_leader() -> Status {
    Status::unknown("\"leader\" field must be provided")
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

impl Desk {
    /// Waits to be the leader. A caller who gives up, or whose connection ends, is no candidate any more.
    pub async fn campaign(self: Arc<Self>, call: &Call, request: CampaignRequest) -> Result<CampaignResponse, Status> {
        let lease = self.session(call, request.lease).await?;
        let key = turns::key(&request.name, lease);
        let put = turns::put(key.clone(), request.value.clone(), lease);
        let txn = turns::txn(turns::made_at(key.clone(), 0), vec![put], vec![turns::get(key.clone())]);
        let answer = self.txn(call, &txn).await?;
        let place = Place::new(self.clone(), key.clone());
        let mut rev = answer.header.unwrap_or_default().revision;
        if let Some(own) = ranged(&answer, 0).and_then(|range| range.kvs.first()) {
            rev = own.create_revision;
            if own.value != request.value {
                self.say(call, key.clone(), rev, request.value.clone(), lease).await?;
            }
        }
        self.wait_for_turn(call, &request.name, rev).await?;
        place.keep();
        let leader = LeaderKey { name: request.name, key, rev, lease };
        Ok(CampaignResponse { header: answer.header, leader: Some(leader) })
    }

    /// Another value for a key that is still the same candidate's.
    async fn say(
        &self,
        call: &Call,
        key: Bytes,
        rev: i64,
        value: Bytes,
        lease: i64,
    ) -> Result<Option<ResponseHeader>, Status> {
        let put = turns::put(key.clone(), value, lease);
        let answer = self.txn(call, &turns::txn(turns::made_at(key, rev), vec![put], Vec::new())).await?;
        if answer.succeeded { Ok(answer.header) } else { Err(not_leader()) }
    }

    pub async fn proclaim(&self, call: &Call, request: ProclaimRequest) -> Result<ProclaimResponse, Status> {
        let leader = request.leader.ok_or_else(missing_leader)?;
        let lease = self.session(call, leader.lease).await?;
        Ok(ProclaimResponse { header: self.say(call, leader.key, leader.rev, request.value, lease).await? })
    }

    pub async fn resign(&self, call: &Call, request: ResignRequest) -> Result<ResignResponse, Status> {
        let leader = request.leader.ok_or_else(missing_leader)?;
        let delete = turns::delete(leader.key.clone());
        let txn: TxnRequest = turns::txn(turns::made_at(leader.key, leader.rev), vec![delete], Vec::new());
        Ok(ResignResponse { header: self.txn(call, &txn).await?.header })
    }

    pub async fn leader(&self, call: &Call, request: LeaderRequest) -> Result<LeaderResponse, Status> {
        let mut range = self.range(call, &turns::first(&request.name)).await?;
        let kv = range.kvs.pop().ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(LeaderResponse { header: range.header, kv: Some(kv) })
    }

    /// Tells who leads and what they say, and again whenever that changes.
    pub fn observe(self: Arc<Self>, call: Call, request: LeaderRequest) -> Frames {
        let observer = Observer { desk: self, call, name: request.name, follows: Follows::Nobody };
        Box::pin(futures::stream::try_unfold(observer, |mut observer| async {
            let answer = observer.next().await?;
            Ok(Some((frame::encode(&answer), observer)))
        }))
    }
}

struct Observer {
    desk: Arc<Desk>,
    call: Call,
    name: Bytes,
    follows: Follows,
}

enum Follows {
    Nobody,
    /// A leader, and what was not told yet.
    Leader(Watcher, Vec<WatchEvent>),
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        loop {
            let Follows::Leader(watcher, left) = &mut self.follows else {
                return self.find().await;
            };
            if left.is_empty() {
                *left = events(watcher).await?;
                left.reverse();
            }
            match left.pop() {
                Some(event) if event.kind == EventKind::Put => return Ok(self.told(key_value(event.kv))),
                Some(_) => self.follows = Follows::Nobody,
                None => {}
            }
        }
    }

    /// The leader, when there is one, and from then on what they say.
    async fn find(&mut self) -> Result<LeaderResponse, Status> {
        let range = self.desk.range(&self.call, &turns::first(&self.name)).await?;
        let at = Revision(range.header.unwrap_or_default().revision as u64);
        let (kv, at) = match range.kvs.into_iter().next() {
            Some(kv) => (kv, at),
            None => self.first_put(at).await?,
        };
        let watch =
            WatchRequest { start: kv.key.clone(), end: RangeEnd::Single, from: Some(at.next()), previous: false };
        let watcher = self.desk.store.watch(watch).await.map_err(refusal::of)?;
        self.follows = Follows::Leader(watcher, Vec::new());
        Ok(LeaderResponse { header: Some(self.desk.header(at)), kv: Some(kv) })
    }

    async fn first_put(&mut self, from: Revision) -> Result<(mvccpb::KeyValue, Revision), Status> {
        let Range { start, end, .. } = Range::prefix([&self.name[..], b"/"].concat());
        let watch = WatchRequest { start, end, from: Some(from), previous: false };
        let mut watcher = self.desk.store.watch(watch).await.map_err(refusal::of)?;
        loop {
            let put = events(&mut watcher).await?.into_iter().find(|event| event.kind == EventKind::Put);
            if let Some(event) = put {
                let at = event.kv.mod_revision;
                return Ok((key_value(event.kv), at));
            }
        }
    }

    fn told(&self, kv: mvccpb::KeyValue) -> LeaderResponse {
        let header = self.desk.header(Revision(kv.mod_revision as u64));
        LeaderResponse { header: Some(header), kv: Some(kv) }
    }
}

async fn events(watcher: &mut Watcher) -> Result<Vec<WatchEvent>, Status> {
    Ok(watcher.next().await.map_err(refusal::of)?.ok_or(STOPPED)?.events)
}
