//! Names that mean the same on both sides.
//!
//! Two servers play the same history from different revisions on and choose different ids. A history is therefore written,
//! and its answers are compared, in numbers of its own:
//!
//! - revisions as if the store had been new at the history's start: 1 is the newest revision then;
//! - leases that the server named are `CHOSEN`, `CHOSEN + 1`, ... in the order in which they were granted;
//! - in requests, `NEWEST + n` is `n` past the newest revision that this history has seen.

use etcd::proto::etcdserverpb::{
    Compare, RangeRequest, RequestOp, ResponseHeader, TxnRequest, compare::TargetUnion, request_op::Request,
};
use etcd::proto::mvccpb::{Event, KeyValue};

/// Names the newest revision in requests; far from every literal revision.
pub const NEWEST: i64 = 1 << 40;
/// How far a request may be from [`NEWEST`].
pub const NEWEST_REACH: i64 = 1 << 20;
/// Names the first lease whose id the server chose.
pub const CHOSEN: i64 = 1 << 50;
/// So many may be granted in one history.
pub const CHOSEN_MAX: i64 = 1 << 10;
/// A lease nobody granted, sent for a lease that is not there (yet).
const NEVER_GRANTED: i64 = 0x0bad_1ea5_e000;

/// What one side's numbers mean.
#[derive(Default)]
pub struct Frame {
    /// The newest revision when the history began.
    base: i64,
    /// The newest revision seen.
    newest: i64,
    /// What lies below has been given up.
    compacted: i64,
    /// Ids the server chose, in order.
    chosen: Vec<i64>,
    /// Cluster and member, from the first header.
    server: Option<(u64, u64)>,
}

impl Frame {
    pub fn new(base: i64) -> Self {
        Self { base, newest: base, compacted: base, ..Self::default() }
    }

    /// What a request means by `revision`, for this server.
    pub fn revision_out(&self, revision: i64) -> i64 {
        if (NEWEST - NEWEST_REACH..=NEWEST + NEWEST_REACH).contains(&revision) {
            self.newest + (revision - NEWEST)
        } else if revision > 0 {
            self.base + revision - 1
        } else {
            revision
        }
    }

    /// What this server means by `revision`, in the history's numbers.
    pub fn revision_in(&self, revision: i64) -> i64 {
        match revision {
            0 => 0,
            // Not to be taken for "none".
            _ if revision < self.base => revision - self.base - 1,
            _ => revision - self.base + 1,
        }
    }

    pub fn lease_out(&self, lease: i64) -> i64 {
        match usize::try_from(lease - CHOSEN) {
            Ok(at) if (at as i64) < CHOSEN_MAX => self.chosen.get(at).copied().unwrap_or(NEVER_GRANTED + at as i64),
            _ => lease,
        }
    }

    pub fn lease_in(&self, lease: i64) -> i64 {
        let chosen = self.chosen.iter().position(|id| *id == lease);
        chosen.map_or(lease, |at| CHOSEN + at as i64)
    }

    /// A lease that was granted under an id of the server's choice.
    pub fn lease_chosen(&mut self, lease: i64) {
        self.chosen.push(lease);
    }

    pub fn compacted_at(&mut self, revision: i64) {
        self.compacted = revision;
    }

    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    pub fn header_in(&mut self, header: &mut Option<ResponseHeader>) {
        let Some(header) = header else { return };
        self.newest = self.newest.max(header.revision);
        header.revision = self.revision_in(header.revision);
        // Ids and terms differ; that they are there, and always the same, does not.
        if header.cluster_id != 0 || header.member_id != 0 {
            let server = *self.server.get_or_insert((header.cluster_id, header.member_id));
            header.cluster_id = if header.cluster_id == server.0 { 1 } else { header.cluster_id };
            header.member_id = if header.member_id == server.1 { 1 } else { header.member_id };
        }
        header.raft_term = header.raft_term.min(1);
    }

    pub fn row_in(&self, row: &mut KeyValue) {
        row.create_revision = self.revision_in(row.create_revision);
        row.mod_revision = self.revision_in(row.mod_revision);
        row.lease = self.lease_in(row.lease);
    }

    pub fn rows_in(&self, rows: &mut [KeyValue]) {
        for row in rows {
            self.row_in(row);
        }
    }

    pub fn event_in(&self, event: &mut Event) {
        if let Some(row) = &mut event.kv {
            self.row_in(row);
        }
        if let Some(row) = &mut event.prev_kv {
            self.row_in(row);
        }
    }

    pub fn range_out(&self, range: &mut RangeRequest) {
        for revision in [
            &mut range.revision,
            &mut range.min_mod_revision,
            &mut range.max_mod_revision,
            &mut range.min_create_revision,
            &mut range.max_create_revision,
        ] {
            *revision = self.revision_out(*revision);
        }
    }

    pub fn txn_out(&self, txn: &mut TxnRequest) {
        for compare in &mut txn.compare {
            self.compare_out(compare);
        }
        for RequestOp { request } in txn.success.iter_mut().chain(&mut txn.failure) {
            match request {
                Some(Request::RequestRange(range)) => self.range_out(range),
                Some(Request::RequestPut(put)) => put.lease = self.lease_out(put.lease),
                Some(Request::RequestTxn(nested)) => self.txn_out(nested),
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
    }

    fn compare_out(&self, compare: &mut Compare) {
        match &mut compare.target_union {
            Some(TargetUnion::CreateRevision(revision) | TargetUnion::ModRevision(revision)) => {
                *revision = self.revision_out(*revision);
            }
            Some(TargetUnion::Lease(lease)) => *lease = self.lease_out(*lease),
            Some(TargetUnion::Version(_) | TargetUnion::Value(_)) | None => {}
        }
    }
}
