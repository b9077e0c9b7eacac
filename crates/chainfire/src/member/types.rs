//! The types that Raft is used with.

use std::fmt;

use openraft::impls::{InlineBatch, Vote, leader_id_std};
use openraft::raft::responder;
use openraft::{OptionalSend, RaftTypeConfig, TokioRuntime};
use serde::{Deserialize, Serialize};

use crate::command::{Answers, Proposal};

/// Chosen by hashing peer addresses and cluster token; never 0.
pub type MemberId = u64;

/// What every member knows of every other.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Contact {
    /// Empty until the member has started for the first time.
    pub name: String,
    /// Where the other members reach it, not empty: `http://host:port` or `https://host:port`.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has started.
    pub client_urls: Vec<String>,
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.peer_urls.join(","))
    }
}

/// A member as it stands in the membership.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Seat {
    pub contact: Contact,
    /// It was added as one that votes, and will as soon as it has caught up. Until then it is a learner to Raft alone.
    pub to_vote: bool,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.contact.fmt(f)
    }
}

/// The answers of one entry, for the member that proposed it. They never travel as a part of the log.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    #[serde(skip)]
    pub answers: Answers,
}

/// Calls back with what became of an entry, at the place where that is known, without a task in between.
pub struct Reply<T>(Option<Box<dyn FnOnce(Option<T>) + Send>>);

impl<T> Reply<T> {
    /// `None`: nobody will ever know.
    pub fn new(call: impl FnOnce(Option<T>) + Send + 'static) -> Self {
        Self(Some(Box::new(call)))
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call(None);
        }
    }
}

impl<T: OptionalSend + 'static> responder::Responder<Types, T> for Reply<T> {
    fn on_complete(mut self, result: T) {
        if let Some(call) = self.0.take() {
            call(Some(result));
        }
    }
}

/// Raft as ChainFire uses it: one leader for each term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Types {}

type LeaderId = leader_id_std::LeaderId<u64, MemberId>;
type Payload = openraft::EntryPayload<Proposal, MemberId, Seat>;

impl RaftTypeConfig for Types {
    type D = Proposal;
    type R = Outcome;
    type NodeId = MemberId;
    type Node = Seat;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote<LeaderId>;
    type Payload = Payload;
    type Entry = openraft::Entry<<LeaderId as openraft::vote::RaftLeaderId>::Committed, Payload>;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Reply<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}
