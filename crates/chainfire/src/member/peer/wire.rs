//! What members say to each other.
//!
//! ```text
//!   client:  MAGIC  version u16 LE  Hello            ┐ refused: the reason, then the end
//!   server:  MAGIC  version u16 LE  HelloAnswer      ┘
//!   then frames: questions with an id one way, answers with the id of their question the other way
//! ```
//!
//! Everything after the version is postcard, where the order of fields and variants is the format: a change of any of
//! these types is a new [`VERSION`].

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotMetaOf, VoteOf};
use serde::{Deserialize, Serialize};
use store::{Lease, LeaseId, LeaseStatus};

use super::fault::{Fault, MemberFault, WireRefusal};
use crate::command::{self, Proposal};
use crate::door::host::{MemberChange, MemberFact};
use crate::member::types::{MemberId, Types};

pub const MAGIC: [u8; 8] = *b"chainfir";

pub const VERSION: u16 = 1;

/// What a connection is for. Each peer has one of each kind, so that nothing waits behind something longer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Lane {
    /// Heartbeats, votes, requests passed on.
    Talk,
    /// Entries of the log.
    Log,
    /// Snapshots.
    Bulk,
}

/// Who calls, and whom.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// `None` from one that is about to join and may only ask for [`Question::Facts`].
    pub cluster: Option<u64>,
    pub from: Option<MemberId>,
    /// Refused by anyone else: an address may have been given to another member meanwhile.
    pub to: Option<MemberId>,
    pub lane: Lane,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum HelloAnswer {
    Welcome { cluster: u64, member: MemberId },
    OtherCluster { cluster: u64 },
    OtherMember { member: MemberId },
    Busy,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Question {
    Facts,
    /// Those of one session are taken in order and answered in order. Session 0 is a heartbeat, in no order.
    Append {
        session: u64,
        request: AppendEntriesRequest<Types>,
    },
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    TransferLeader(TransferLeaderRequest<Types>),
    /// Ends what was begun before on this connection.
    SnapshotBegin {
        vote: VoteOf<Types>,
        meta: SnapshotMetaOf<Types>,
    },
    SnapshotPiece(Bytes),
    SnapshotEnd,
    /// Begins a copy of the state as it is now, from whichever member.
    Copy,
    /// The next piece of it.
    CopyPiece,
    /// To the leader, as are all of the following.
    Propose(Proposal),
    ReadIndex,
    KeepAlive(LeaseId),
    TimeToLive(LeaseId),
    Change(MemberChange),
    Publish {
        id: MemberId,
        name: String,
        client_urls: Vec<String>,
    },
    Lead(MemberId),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answered {
    Facts(Facts),
    Append(StreamAppendResult<Types>),
    Vote(VoteResponse<Types>),
    TransferLeader(TransferLeaderResponse<Types>),
    SnapshotTaken,
    SnapshotInstalled(SnapshotResponse<Types>),
    CopyBegun,
    /// Empty after the last.
    CopyPiece(Bytes),
    /// In the order of the requests. All of them are applied where the log is applied up to `index`.
    Proposed {
        index: u64,
        answers: Vec<Result<command::Answer, WireRefusal>>,
    },
    ReadIndex(u64),
    Lease(Lease),
    LeaseStatus(LeaseStatus),
    Members(Vec<MemberFact>),
    Done,
    Denied(Denial),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub cluster: u64,
    /// Who answers.
    pub member: MemberId,
    pub members: Vec<MemberFact>,
    /// Index of the log entry that made these the members, 0 for the first ones.
    pub since: u64,
}

/// Why a question has no answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Denial {
    /// Surely not done: to be asked of the leader.
    NotLeader,
    /// Who asks was no member any more when the log entry of this index was applied.
    NotMember {
        since: u64,
    },
    /// Not done: too much is under way on this connection.
    Busy,
    /// It makes no sense in this place.
    Misplaced,
    Fault(Fault),
    Member(MemberFault),
}
