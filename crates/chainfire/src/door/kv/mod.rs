//! The KV service.

pub mod answer;
pub mod ask;
pub mod check;
mod first;

use etcd::proto::etcdserverpb::{
    AlarmType, CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use store::{Revision, Txn, TxnAnswer};
use tonic::Status;

use super::alarm::Alarm;
use super::auth::{Caller, View};
use super::desk::{Call, Desk, TRIES_MAX};
use super::refusal::{self, AUTH_OLD_REVISION, KEY_NOT_FOUND, Known, NO_SPACE};
use crate::command::Refusal;

/// A request that may change something.
enum Change<'r> {
    Put(&'r PutRequest),
    Delete(&'r DeleteRangeRequest),
    Txn(&'r TxnRequest),
}

impl Change<'_> {
    fn txn(&self) -> Txn {
        match self {
            Self::Put(request) => Txn::of([ask::put(request)]),
            Self::Delete(request) => Txn::of([ask::delete(request)]),
            Self::Txn(request) => ask::txn(request),
        }
    }

    fn needs_room(&self) -> bool {
        match self {
            Self::Put(_) => true,
            Self::Delete(_) => false,
            Self::Txn(request) => store::admit::may_put(&ask::txn(request)),
        }
    }
}

impl Desk {
    pub async fn range(&self, call: &Call, request: &RangeRequest) -> Result<RangeResponse, Status> {
        check::range(request)?;
        self.metrics.ranges.add(1);
        for _ in 0..TRIES_MAX {
            let view = self.view();
            let caller = self.caller(&view, call)?;
            view.may_read(&caller, &request.key, &request.range_end)?;
            let answer = self.store.range(ask::range(request)).await.map_err(refusal::of)?;
            if self.stands(&view) {
                let header = self.header(answer.revision);
                return Ok(answer::range(answer, request, header));
            }
        }
        Err(AUTH_OLD_REVISION.into())
    }

    pub async fn put(&self, call: &Call, request: &PutRequest) -> Result<PutResponse, Status> {
        check::put(request)?;
        self.metrics.puts.add(1);
        let mut answer = match self.change(call, &Change::Put(request)).await {
            Ok(answer) => answer,
            // Of two reasons, etcd tells the lease first here, and the key first in a transaction.
            Err(refused) if refused.message() == KEY_NOT_FOUND.1 => {
                if let Some(lease) = ask::lease(request.lease) {
                    self.store.lease_time_to_live(lease).await.map_err(refusal::of)?;
                }
                return Err(refused);
            }
            Err(refused) => return Err(refused),
        };
        Ok(answer::put(answer.answers.pop(), request.prev_kv, self.header(answer.revision)))
    }

    pub async fn delete_range(&self, call: &Call, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        check::delete(request)?;
        self.metrics.deletes.add(1);
        let mut answer = self.change(call, &Change::Delete(request)).await?;
        Ok(answer::delete(answer.answers.pop(), request.prev_kv, self.header(answer.revision)))
    }

    pub async fn txn(&self, call: &Call, request: &TxnRequest) -> Result<TxnResponse, Status> {
        check::txn(request)?;
        if self.view().enabled() || check::size(call.bytes).is_err() {
            // What is malformed is told first; otherwise the store's own look is the first there is.
            store::admit::txn(&ask::txn(request)).map_err(refusal::of)?;
        }
        self.metrics.txns.add(1);
        let answer = if check::reads_only(request) {
            self.read_txn(call, request).await?
        } else {
            self.change(call, &Change::Txn(request)).await?
        };
        let header = self.header(answer.revision);
        Ok(answer::txn(answer, request, header))
    }

    pub async fn compact(&self, call: &Call, request: CompactionRequest) -> Result<CompactionResponse, Status> {
        let view = self.view();
        view.is_admin(&self.caller(&view, call)?)?;
        view.is_sound()?;
        let revision = Revision(u64::try_from(request.revision).unwrap_or(0));
        self.store.compact(revision).await.map_err(refusal::of)?;
        Ok(CompactionResponse { header: Some(self.newest_header().await?) })
    }

    async fn read_txn(&self, call: &Call, request: &TxnRequest) -> Result<TxnAnswer, Status> {
        for _ in 0..TRIES_MAX {
            let view = self.view();
            let caller = self.caller(&view, call)?;
            self.may_txn(&view, &caller, request).await?;
            let answer = self.store.txn(ask::txn(request)).await.map_err(refusal::of)?;
            if self.stands(&view) {
                return Ok(answer);
            }
        }
        Err(AUTH_OLD_REVISION.into())
    }

    /// Decides on the system rows as they are here, and has the state machine refuse it when they have moved since.
    async fn change(&self, call: &Call, change: &Change<'_>) -> Result<TxnAnswer, Status> {
        let _pending = self.metrics.proposals_pending.hold();
        for _ in 0..TRIES_MAX {
            let view = self.view();
            let caller = self.caller(&view, call)?;
            check::size(call.bytes)?;
            self.may_change(&view, &caller, change).await?;
            view.is_sound()?;
            if change.needs_room() {
                self.check_room(&view, call).await?;
            }
            match self.host.guarded(change.txn(), view.version).await {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Store(error)) => {
                    self.metrics.proposals_failed.add(u64::from(!error.is_refusal()));
                    return Err(refusal::of(error));
                }
                Err(Refusal::SystemMoved { version }) => self.catch_up(version).await?,
            }
        }
        Err(AUTH_OLD_REVISION.into())
    }

    /// Rings the alarm when the quota is reached.
    pub async fn check_room(&self, view: &View, call: &Call) -> Result<(), Status> {
        if view.no_space() {
            return Err(NO_SPACE.into());
        }
        if self.options.quota_bytes.is_some_and(|quota| self.seen().db_bytes + call.bytes as u64 >= quota) {
            self.ring(Alarm { member: self.host.header().member_id, kind: AlarmType::Nospace }).await?;
            return Err(NO_SPACE.into());
        }
        Ok(())
    }

    async fn may_change(&self, view: &View, caller: &Caller, change: &Change<'_>) -> Result<(), Status> {
        match change {
            Change::Put(request) => self.may_put(view, caller, request).await,
            Change::Delete(request) => Ok(may_delete(view, caller, request)?),
            Change::Txn(request) => self.may_txn(view, caller, request).await,
        }
    }

    /// Whoever attaches a key to a lease could let the lease's other keys be deleted, so those must be theirs too.
    async fn may_put(&self, view: &View, caller: &Caller, request: &PutRequest) -> Result<(), Status> {
        view.may_write(caller, &request.key, b"")?;
        if request.prev_kv {
            view.may_read(caller, &request.key, b"")?;
        }
        if let Some(lease) = ask::lease(request.lease) {
            self.may_write_leased(view, caller, lease).await?;
        }
        Ok(())
    }

    /// Every branch counts, taken or not: else an answer would tell what the caller may not see.
    async fn may_txn(&self, view: &View, caller: &Caller, request: &TxnRequest) -> Result<(), Status> {
        if view.may_everything(caller) {
            return Ok(());
        }
        let mut left = vec![request];
        while let Some(txn) = left.pop() {
            for compare in &txn.compare {
                view.may_read(caller, &compare.key, &compare.range_end)?;
            }
            for op in txn.success.iter().chain(&txn.failure) {
                use etcd::proto::etcdserverpb::request_op::Request;
                match op.request.as_ref() {
                    Some(Request::RequestRange(range)) => view.may_read(caller, &range.key, &range.range_end)?,
                    Some(Request::RequestPut(put)) => self.may_put(view, caller, put).await?,
                    Some(Request::RequestDeleteRange(delete)) => may_delete(view, caller, delete)?,
                    Some(Request::RequestTxn(nested)) => left.push(nested),
                    None => {}
                }
            }
        }
        Ok(())
    }
}

fn may_delete(view: &View, caller: &Caller, request: &DeleteRangeRequest) -> Result<(), Known> {
    if request.prev_kv {
        view.may_read(caller, &request.key, &request.range_end)?;
    }
    view.may_write(caller, &request.key, &request.range_end)
}
