//! Answers in the history's own numbers, without what may differ.
//!
//! All that is taken out of answers before they are compared, because two etcds that play the same history differ in it:
//!
//! - cluster and member ids and the raft term of headers, as long as they are there and stay the same ([`crate::frame`]);
//! - revisions from before the history ([`crate::frame`]) and ids of leases that the server chose;
//! - the order of leases in a list, which is the order in which they run out, and of a lease's keys, which is random;
//! - the seconds that a lease has left, within [`LEFT_SLACK_SECONDS`];
//! - hashes of the database, which are about etcd's file format, its sizes, names and addresses;
//! - deletes at the compacted revision, for a watch that begins there ([`crate::streams`]): etcd 3.4 forgets them in the
//!   background;
//! - tokens;
//! - of a list of members more than the first;
//! - the header of an answer about alarms, and how errors of users are worded that etcd lets out as they are inside
//!   ([`refused`]);
//! - the hash of the compacted revision itself;
//! - what ChainFire refuses and etcd 3.4 does not: `make_auth` leaves it out, or root does it (`call_as_root` in `play`);
//! - the order of equal rows of a sort by something else than the key, above [`STABLE_ROWS`] rows.

use std::fmt::Debug;

use etcd::proto::etcdserverpb as pb;
use etcd::proto::mvccpb::KeyValue;
use pb::range_request::SortTarget;
use pb::request_op::Request;
use pb::response_op::Response;
use tonic::{Code, Status};

use crate::frame::Frame;

/// Go's sort is an insertion sort, which keeps the order of equal rows, up to so many rows (go1.19, sort/zsortfunc.go).
const STABLE_ROWS: i64 = 12;

/// How long a history may take between a grant and a look at the time left.
pub const LEFT_SLACK_SECONDS: i64 = 120;

pub trait Inward: Debug {
    fn inward(&mut self, frame: &mut Frame);
}

macro_rules! header_alone {
    ($($answer:ident)*) => { $(
        impl Inward for pb::$answer {
            fn inward(&mut self, frame: &mut Frame) {
                frame.header_in(&mut self.header);
            }
        }
    )* };
}

header_alone! {
    CompactionResponse LeaseRevokeResponse DefragmentResponse
    AuthEnableResponse AuthDisableResponse AuthUserAddResponse AuthUserGetResponse AuthUserListResponse
    AuthUserDeleteResponse AuthUserChangePasswordResponse AuthUserGrantRoleResponse AuthUserRevokeRoleResponse
    AuthRoleAddResponse AuthRoleGetResponse AuthRoleListResponse AuthRoleDeleteResponse
    AuthRoleGrantPermissionResponse AuthRoleRevokePermissionResponse
}

impl Inward for pb::RangeResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        frame.rows_in(&mut self.kvs);
    }
}

impl Inward for pb::PutResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        if let Some(row) = &mut self.prev_kv {
            frame.row_in(row);
        }
    }
}

impl Inward for pb::DeleteRangeResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        frame.rows_in(&mut self.prev_kvs);
    }
}

impl Inward for pb::TxnResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        for response in &mut self.responses {
            match &mut response.response {
                Some(Response::ResponseRange(answer)) => answer.inward(frame),
                Some(Response::ResponsePut(answer)) => answer.inward(frame),
                Some(Response::ResponseDeleteRange(answer)) => answer.inward(frame),
                Some(Response::ResponseTxn(answer)) => answer.inward(frame),
                None => {}
            }
        }
    }
}

impl Inward for pb::LeaseGrantResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        self.id = frame.lease_in(self.id);
    }
}

impl Inward for pb::LeaseKeepAliveResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        self.id = frame.lease_in(self.id);
    }
}

impl Inward for pb::LeaseTimeToLiveResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        self.id = frame.lease_in(self.id);
        self.keys.sort();
        if (0..=LEFT_SLACK_SECONDS).contains(&(self.granted_ttl - self.ttl)) && self.ttl > 0 {
            self.ttl = self.granted_ttl;
        }
    }
}

impl Inward for pb::LeaseLeasesResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        for lease in &mut self.leases {
            lease.id = frame.lease_in(lease.id);
        }
        self.leases.sort_by_key(|lease| lease.id);
    }
}

impl Inward for pb::HashKvResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        self.hash = 0;
        self.compact_revision = frame.revision_in(self.compact_revision);
        // Not in version 3.4.
        self.hash_revision = 0;
    }
}

impl Inward for pb::MemberListResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        self.members.truncate(1);
        for member in &mut self.members {
            *member = pb::Member { is_learner: member.is_learner, ..pb::Member::default() };
        }
    }
}

impl Inward for pb::AlarmResponse {
    fn inward(&mut self, _frame: &mut Frame) {
        // Version 3.4 gives none to a look at the alarms.
        self.header = None;
    }
}

impl Inward for pb::StatusResponse {
    fn inward(&mut self, frame: &mut Frame) {
        let mut header = self.header.take();
        frame.header_in(&mut header);
        *self = Self { header, is_learner: self.is_learner, errors: self.errors.clone(), ..Self::default() };
    }
}

impl Inward for pb::AuthenticateResponse {
    fn inward(&mut self, frame: &mut Frame) {
        frame.header_in(&mut self.header);
        self.token = if self.token.is_empty() { String::new() } else { "some".to_owned() };
    }
}

/// Version 3.4 lets some errors of users out as they are inside; ChainFire gives them the code and the words that the other
/// calls have.
pub fn refused(status: &Status) -> String {
    let (code, message) = match (status.code(), status.message()) {
        (Code::Unknown, "auth: permission denied") => (Code::PermissionDenied, "etcdserver: permission denied"),
        (Code::Unknown, "auth: user name is empty") => (Code::InvalidArgument, "etcdserver: user name is empty"),
        // It would tell strangers who has no password.
        (Code::Unknown, "auth: authentication failed, password was given for no password user") => {
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
        }
        (Code::Unknown, "auth: invalid auth token") => (Code::Unauthenticated, "etcdserver: invalid auth token"),
        (code, message) => (code, message),
    };
    format!("{code:?}: {message}")
}

/// Puts rows that the sort left equal into key order, where their order says nothing.
pub fn settle_ties(range: &pb::RangeRequest, answer: &mut pb::RangeResponse) {
    let target = SortTarget::try_from(range.sort_target).unwrap_or(SortTarget::Key);
    if target == SortTarget::Key || answer.count <= STABLE_ROWS {
        return;
    }
    let by = |row: &KeyValue| match target {
        SortTarget::Key => row.key.to_vec(),
        SortTarget::Version => row.version.to_be_bytes().to_vec(),
        SortTarget::Create => row.create_revision.to_be_bytes().to_vec(),
        SortTarget::Mod => row.mod_revision.to_be_bytes().to_vec(),
        // Of keys alone nobody can tell what they were sorted by.
        SortTarget::Value if range.keys_only => Vec::new(),
        SortTarget::Value => row.value.to_vec(),
    };
    // Runs of equal rows, numbered: equal rows apart from each other stay apart, so that a wrong order shows.
    let mut runs: Vec<usize> = Vec::with_capacity(answer.kvs.len());
    for (at, row) in answer.kvs.iter().enumerate() {
        let run = runs.last().map_or(0, |run| if by(row) == by(&answer.kvs[at - 1]) { *run } else { run + 1 });
        runs.push(run);
    }
    let last = runs.last().copied();
    let mut rows: Vec<_> = runs.into_iter().zip(answer.kvs.drain(..)).collect();
    rows.sort_by(|(a, one), (b, other)| (a, &one.key).cmp(&(b, &other.key)));
    for (at, row) in &mut rows {
        // Which of the equal rows the limit lets through says nothing either.
        if answer.more && Some(*at) == last {
            *row = KeyValue::default();
        }
    }
    answer.kvs = rows.into_iter().map(|(_, row)| row).collect();
}

/// As [`settle_ties`], for the ranges of a transaction.
pub fn settle_ties_of_txn(txn: &pb::TxnRequest, answer: &mut pb::TxnResponse) {
    let ops = if answer.succeeded { &txn.success } else { &txn.failure };
    for (op, answer) in ops.iter().zip(&mut answer.responses) {
        match (&op.request, &mut answer.response) {
            (Some(Request::RequestRange(range)), Some(Response::ResponseRange(answer))) => settle_ties(range, answer),
            (Some(Request::RequestTxn(txn)), Some(Response::ResponseTxn(answer))) => settle_ties_of_txn(txn, answer),
            _ => {}
        }
    }
}
