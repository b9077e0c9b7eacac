//! The types that Raft is used with.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::command::{Answers, Proposal};

/// Chosen by hashing name, peer addresses and cluster token; never 0.
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

/// The answers of one entry, for the member that proposed it. They never travel as a part of the log.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    #[serde(skip)]
    pub answers: Answers,
}

openraft::declare_raft_types!(
    /// Raft as ChainFire uses it: one leader for each term.
    pub Types:
        D = Proposal,
        R = Outcome,
        NodeId = MemberId,
        Node = Contact,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, MemberId>,
        AsyncRuntime = openraft::TokioRuntime,
);
