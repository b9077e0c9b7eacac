//! A member as a store.

use async_trait::async_trait;
use store::{
    Error, Lease, LeaseId, LeaseStatus, Op, Range, RangeAnswer, Revision, Status, Store, Txn, TxnAnswer, WatchRequest,
    Watcher, admit,
};

use super::Member;
use super::peer::wire::{Answered, Question};
use crate::command::{Answer, Refusal, Request};

/// Whether the caller is content with what this member has.
fn serializable(txn: &Txn) -> bool {
    let content = |op: &Op| match op {
        Op::Range(range) => range.serializable,
        Op::Txn(nested) => serializable(nested),
        Op::Put { .. } | Op::Delete { .. } => false,
    };
    let mut ops = txn.then.iter().chain(&txn.otherwise).peekable();
    ops.peek().is_some() && ops.all(content)
}

/// Without a guard there is nothing else that a refusal could be.
fn without_guard(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Store(error) => error,
        Refusal::SystemMoved { version } => {
            Error::storage("settle a request", std::io::Error::other(format!("the system rows are at {version}")))
        }
    }
}

/// An answer to another question than the one that was asked.
pub(super) fn astray(answered: &Answered) -> Error {
    Error::storage("ask the leader", std::io::Error::other(format!("it answered {answered:?}")))
}

impl Member {
    pub(super) async fn settle(&self, txn: Txn, guard: Option<u64>) -> Result<TxnAnswer, Refusal> {
        admit::txn(&txn).map_err(Refusal::Store)?;
        let inner = &self.inner;
        inner.alive().map_err(Refusal::Store)?;
        if admit::reads_only(&txn) {
            if !serializable(&txn) {
                inner.reads.catch_up().await.map_err(Refusal::Store)?;
            }
            let version = inner.reader.system().version;
            if guard.is_some_and(|guard| guard < version) {
                return Err(Refusal::SystemMoved { version });
            }
            return inner.reader.txn(txn).await.map_err(Refusal::Store);
        }
        match inner.proposer.submit(Request::Txn { txn, guard }).await? {
            Answer::Txn(answer) => Ok(answer),
            other => unreachable!("a transaction is answered as one: {other:?}"),
        }
    }
}

#[async_trait]
impl Store for Member {
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        admit::range(&range)?;
        self.inner.alive()?;
        if !range.serializable {
            self.inner.reads.catch_up().await?;
        }
        self.inner.reader.range(range).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        self.settle(txn, None).await.map_err(without_guard)
    }

    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error> {
        admit::watch(&watch)?;
        self.inner.alive()?;
        self.inner.reader.watch(watch)
    }

    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        let ttl_seconds = admit::lease(ttl_seconds, id)?;
        self.inner.alive()?;
        match self.inner.proposer.submit(Request::Grant { ttl_seconds, id }).await.map_err(without_guard)? {
            Answer::Grant(lease) => Ok(lease),
            other => unreachable!("a grant is answered as one: {other:?}"),
        }
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.inner.alive()?;
        match self.inner.lead.ask(Question::KeepAlive(id)).await? {
            Answered::Lease(lease) => Ok(lease),
            other => Err(astray(&other)),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        self.inner.alive()?;
        match self.inner.proposer.submit(Request::Revoke(id)).await.map_err(without_guard)? {
            Answer::Revoke(revision) => Ok(revision),
            other => unreachable!("a revoke is answered as one: {other:?}"),
        }
    }

    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        self.inner.alive()?;
        match self.inner.lead.ask(Question::TimeToLive(id)).await? {
            Answered::LeaseStatus(status) => Ok(status),
            other => Err(astray(&other)),
        }
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.inner.alive()?;
        self.inner.reads.catch_up().await?;
        Ok(self.inner.reader.leases().into_iter().map(|lease| lease.id).collect())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.alive()?;
        match self.inner.proposer.submit(Request::Compact(revision)).await.map_err(without_guard)? {
            Answer::Compact => Ok(()),
            other => unreachable!("a compaction is answered as one: {other:?}"),
        }
    }

    async fn status(&self) -> Result<Status, Error> {
        self.inner.alive()?;
        self.inner.reads.catch_up().await?;
        let state = self.inner.reader.status();
        let log = self.inner.log.facts();
        Ok(Status {
            revision: state.revision,
            compacted: state.compacted,
            db_bytes: state.disk_bytes + log.disk_bytes,
            engine: "chainfire",
        })
    }
}
