//! A member as the host of the door.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use store::{Error, Revision, Txn, TxnAnswer};

use super::peer::wire::{Answered, Denial, Question};
use super::store::astray;
use super::types::MemberId;
use super::{Member, roster};
use crate::command::{Answer, Refusal, Request};
use crate::door::host::{
    HashAnswer, Header, Host, HostStatus, MemberChange, MemberError, MemberFact, SnapshotPieces, System,
};
use crate::log::Measures;

fn denied(answered: Answered) -> MemberError {
    match answered {
        Answered::Denied(Denial::Member(fault)) => fault.into(),
        other => astray(&other).into(),
    }
}

#[async_trait]
impl Host for Member {
    fn header(&self) -> Header {
        let inner = &self.inner;
        Header { cluster_id: inner.identity.cluster, member_id: inner.identity.member, term: inner.standing.term() }
    }

    async fn status(&self) -> Result<HostStatus, Error> {
        let inner = &self.inner;
        inner.alive()?;
        let (state, log) = (inner.reader.status(), inner.log.facts());
        let mut problems = Vec::new();
        problems.extend(state.problem.as_ref().map(ToString::to_string));
        problems.extend(log.failed);
        if inner.room.is_tight() {
            problems.push("the disk is nearly full".to_owned());
        }
        let unreached = inner.peers.book.troubles();
        problems.extend(unreached.into_iter().map(|(id, why)| format!("member {id:x} is not reached: {why}")));
        Ok(HostStatus {
            leader: inner.standing.leader(),
            term: inner.standing.term(),
            log_index: log.next.saturating_sub(1),
            applied_index: state.applied.map_or(0, |id| id.index),
            learner: !inner.standing.votes(),
            db_bytes: state.disk_bytes + log.disk_bytes,
            db_bytes_used: state.row_bytes,
            problems,
        })
    }

    async fn members(&self, serializable: bool) -> Result<Vec<MemberFact>, Error> {
        self.inner.alive()?;
        if !serializable {
            self.inner.reads.catch_up().await?;
        }
        Ok(roster::facts(self.inner.standing.membership().membership()))
    }

    async fn change(&self, change: MemberChange) -> Result<Vec<MemberFact>, MemberError> {
        self.inner.alive()?;
        match self.inner.lead.ask(Question::Change(change)).await? {
            Answered::Members(members) => Ok(members),
            other => Err(denied(other)),
        }
    }

    async fn transfer(&self, to: MemberId) -> Result<(), MemberError> {
        self.inner.alive()?;
        match self.inner.lead.ask(Question::Lead(to)).await? {
            Answered::Done => Ok(()),
            other => Err(denied(other)),
        }
    }

    fn system(&self) -> Arc<System> {
        self.inner.reader.system()
    }

    async fn system_change(&self, expected: u64, rows: Vec<(Bytes, Option<Bytes>)>) -> Result<u64, Refusal> {
        self.inner.alive().map_err(Refusal::Store)?;
        match self.inner.proposer.submit(Request::System { expected, rows }).await? {
            Answer::System(version) => Ok(version),
            other => unreachable!("a change of system rows is answered as one: {other:?}"),
        }
    }

    async fn guarded(&self, txn: Txn, guard: u64) -> Result<TxnAnswer, Refusal> {
        self.settle(txn, Some(guard)).await
    }

    async fn hash(&self, revision: Option<Revision>) -> Result<HashAnswer, Error> {
        self.inner.alive()?;
        self.inner.reader.hash(revision).await
    }

    fn measures(&self) -> Option<Measures> {
        Some(Member::measures(self))
    }

    async fn snapshot(&self) -> Result<SnapshotPieces, Error> {
        self.inner.alive()?;
        self.inner.reads.catch_up().await?;
        Ok(self.inner.reader.export())
    }
}
