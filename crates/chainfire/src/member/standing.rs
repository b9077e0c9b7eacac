//! Who leads, as this member knows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::{RaftDataMetrics, RaftServerMetrics};
use openraft::type_config::alias::{StoredMembershipOf, WatchReceiverOf};
use openraft::vote::RaftLeaderId;
use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Core;
use super::types::{MemberId, Types};

/// Without a leader for so many elections, nobody has to wait to be told.
const PATIENCE_ELECTIONS: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// This member leads.
    Here,
    There(MemberId),
    /// Not known, or not heard of for a while.
    Nobody,
}

pub struct Standing {
    pub me: MemberId,
    server: WatchReceiverOf<Types, RaftServerMetrics<Types>>,
    data: WatchReceiverOf<Types, RaftDataMetrics<Types>>,
    /// When a leader was heard of last, or the leader changed.
    heard: Mutex<Instant>,
    /// The term in which this member leads and has applied everything from before it; 0 for none.
    settled: AtomicU64,
    patience: Duration,
}

impl Standing {
    pub fn new(me: MemberId, core: &Core, election: Duration) -> Self {
        Self {
            me,
            server: core.server_metrics(),
            data: core.data_metrics(),
            heard: Mutex::new(Instant::now()),
            settled: AtomicU64::new(0),
            patience: election * PATIENCE_ELECTIONS,
        }
    }

    pub fn server(&self) -> WatchReceiverOf<Types, RaftServerMetrics<Types>> {
        self.server.clone()
    }

    pub fn data(&self) -> RaftDataMetrics<Types> {
        self.data.borrow_watched().clone()
    }

    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// A leader said something, or there is another one.
    pub fn hear(&self) {
        *self.heard.lock() = Instant::now();
    }

    pub fn leader(&self) -> Option<MemberId> {
        self.server.borrow_watched().current_leader
    }

    pub fn term(&self) -> u64 {
        self.server.borrow_watched().vote.leader_id.term()
    }

    /// The membership that counts now, committed or not.
    pub fn membership(&self) -> StoredMembershipOf<Types> {
        let server = self.server.borrow_watched();
        StoredMembershipOf::<Types>::new(
            *server.membership_config.log_id(),
            server.membership_config.membership().clone(),
        )
    }

    /// The membership that a quorum has agreed on.
    pub fn committed(&self) -> StoredMembershipOf<Types> {
        let server = self.server.borrow_watched();
        let committed = &server.committed_membership_config;
        StoredMembershipOf::<Types>::new(*committed.log_id(), committed.membership().clone())
    }

    /// Of the entry of the log after which `id` is no member; `None` when it is one, or nothing was agreed on yet.
    pub fn expelled(&self, id: MemberId) -> Option<u64> {
        let server = self.server.borrow_watched();
        let committed = &server.committed_membership_config;
        let since = committed.log_id().as_ref()?.index;
        let known = committed.get_node(&id).is_some() || server.membership_config.get_node(&id).is_some();
        (!known).then_some(since)
    }

    pub fn route(&self) -> Route {
        match self.leader() {
            Some(leader) if leader == self.me => {
                let acked = self.data.borrow_watched().last_quorum_acked;
                let silent = acked.is_some_and(|acked| acked.elapsed() > self.patience);
                if silent && !self.votes_alone() { Route::Nobody } else { Route::Here }
            }
            Some(leader) if self.heard.lock().elapsed() <= self.patience => Route::There(leader),
            Some(_) | None => Route::Nobody,
        }
    }

    /// There has been no leader for so long that waiting for one makes no sense.
    pub fn is_forsaken(&self) -> bool {
        self.route() == Route::Nobody && self.heard.lock().elapsed() > self.patience
    }

    /// Leads, or did so until a moment ago.
    pub fn leads(&self) -> Option<u64> {
        let server = self.server.borrow_watched();
        let leads = server.state == ServerState::Leader && server.current_leader == Some(self.me);
        leads.then(|| server.vote.leader_id.term())
    }

    pub fn settle(&self, term: u64) {
        self.settled.store(term, Ordering::Release);
    }

    /// This member is the only one with a vote, and has everything: nobody else could know better.
    pub fn is_alone(&self) -> bool {
        let settled = self.settled.load(Ordering::Acquire);
        if settled == 0 {
            return false;
        }
        self.leads() == Some(settled) && self.votes_alone()
    }

    /// While the voters change, those from before count: until the change is complete nothing goes on without them.
    pub fn votes(&self) -> bool {
        let server = self.server.borrow_watched();
        let before = server.membership_config.membership().get_joint_config().first();
        before.is_some_and(|voters| voters.contains(&self.me))
    }

    fn votes_alone(&self) -> bool {
        let server = self.server.borrow_watched();
        let mut voters = server.membership_config.membership().voter_ids();
        voters.next() == Some(self.me) && voters.next().is_none()
    }
}
