//! What only the leader can answer, asked here or by another member.

use std::sync::Arc;
use std::time::Duration;

use store::lessor::Lessor;
use store::{Error, LeaseStatus};
use tokio::time::{Instant, timeout};

use super::changes::Changes;
use super::leases::Leases;
use super::peer::link::Undone;
use super::peer::wire::{Answered, Denial, Lane, Question};
use super::peers::Peers;
use super::proposer::Proposer;
use super::reads::Reads;
use super::standing::{Route, Standing};
use crate::door::host::{MemberError, MemberFact};
use crate::state::Reader;

/// Between two attempts while there is no leader to be found.
const RETRY: Duration = Duration::from_millis(20);

pub struct Lead {
    pub standing: Arc<Standing>,
    pub peers: Arc<Peers>,
    pub proposer: Arc<Proposer>,
    pub reads: Arc<Reads>,
    pub reader: Reader,
    pub leases: Arc<Leases>,
    pub changes: Arc<Changes>,
    pub limit: Duration,
}

fn faulty(error: Error) -> Answered {
    match error {
        Error::NoLeader => Answered::Denied(Denial::NotLeader),
        error => Answered::Denied(Denial::Fault(error.into())),
    }
}

fn of_members(members: Result<Vec<MemberFact>, MemberError>) -> Answered {
    match members {
        Ok(members) => Answered::Members(members),
        Err(MemberError::Store(error)) => faulty(error),
        Err(error) => Answered::Denied(Denial::Member(error.into())),
    }
}

impl Lead {
    /// As the leader; whoever is not says so.
    pub async fn answer(&self, question: Question) -> Answered {
        if self.standing.route() != Route::Here {
            return Answered::Denied(Denial::NotLeader);
        }
        match question {
            Question::Propose(proposal) => self.proposer.submit_for_peer(proposal).await,
            Question::ReadIndex => match self.reads.index().await {
                Ok(index) => Answered::ReadIndex(index),
                Err(error) => faulty(error),
            },
            // Asked first whether this member still leads: a leader that does not know that it was replaced would keep
            // alive what the next one lets run out.
            Question::KeepAlive(id) => match self.reads.catch_up().await {
                Ok(()) => match self.lessor() {
                    Some(lessor) => lessor.keep_alive(id).map_or_else(faulty, Answered::Lease),
                    None => Answered::Denied(Denial::NotLeader),
                },
                Err(error) => faulty(error),
            },
            Question::TimeToLive(id) => match self.reads.catch_up().await {
                Ok(()) => match self.lessor() {
                    Some(lessor) => {
                        let (lease, left) = match lessor.remaining(id) {
                            Ok(remaining) => remaining,
                            Err(error) => return faulty(error),
                        };
                        match self.reader.lease_keys(id).await {
                            Ok(keys) => Answered::LeaseStatus(LeaseStatus {
                                id,
                                ttl_seconds: lease.ttl_seconds,
                                remaining_seconds: left.as_secs(),
                                keys,
                            }),
                            Err(error) => faulty(error),
                        }
                    }
                    None => Answered::Denied(Denial::NotLeader),
                },
                Err(error) => faulty(error),
            },
            Question::Change(change) => of_members(self.changes.change(change).await),
            Question::Publish { id, name, client_urls } => match self.changes.publish(id, name, client_urls).await {
                Ok(()) => Answered::Done,
                Err(error) => of_members(Err(error)),
            },
            Question::Lead(to) => match self.changes.transfer(to).await {
                Ok(()) => Answered::Done,
                Err(error) => of_members(Err(error)),
            },
            Question::Facts
            | Question::Append { .. }
            | Question::Vote(_)
            | Question::PreVote(_)
            | Question::TransferLeader(_)
            | Question::SnapshotBegin { .. }
            | Question::SnapshotPiece(_)
            | Question::SnapshotEnd
            | Question::Copy
            | Question::CopyPiece => Answered::Denied(Denial::Misplaced),
        }
    }

    /// The deadlines of the term in which this member leads now; `None` when it leads but is not ready for it.
    fn lessor(&self) -> Option<Arc<Lessor>> {
        let leading = self.leases.leading()?;
        (self.standing.leads() == Some(leading.term)).then_some(leading.lessor)
    }

    /// Of whoever leads. What was surely not done is asked again for a while.
    ///
    /// Errors: [`Error::NoLeader`] when it was surely not done, [`Error::TimedOut`] when it may have been.
    pub async fn ask(&self, question: Question) -> Result<Answered, Error> {
        let begun = Instant::now();
        loop {
            let answered = match self.standing.route() {
                Route::Here => {
                    let answer = self.answer(question.clone());
                    Some(timeout(self.limit, answer).await.map_err(|_| Error::TimedOut)?)
                }
                Route::There(leader) => {
                    match self.peers.link(leader, Lane::Talk).call(question.clone(), self.limit).await {
                        Ok(answered) => Some(answered),
                        Err(Undone::NotSent(_)) => None,
                        Err(Undone::Lost(_) | Undone::Late) => return Err(Error::TimedOut),
                    }
                }
                Route::Nobody => None,
            };
            match answered {
                None | Some(Answered::Denied(Denial::NotLeader | Denial::Busy | Denial::NotMember { .. })) => {}
                Some(Answered::Denied(Denial::Fault(fault))) => return Err(fault.into()),
                Some(answered) => return Ok(answered),
            }
            if self.standing.is_forsaken() || begun.elapsed() > self.standing.patience() {
                return Err(Error::NoLeader);
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
