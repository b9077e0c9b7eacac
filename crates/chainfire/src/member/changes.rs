//! The leader changes who is a member.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use store::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Core;
use super::identity::member_id;
use super::peer::address::Address;
use super::reads::Reads;
use super::roster::{self, Members, Step};
use super::standing::{Route, Standing};
use super::types::{Contact, MemberId};
use crate::door::host::{MemberChange, MemberError, MemberFact};

/// Between two attempts while another change is under way.
const RETRY: Duration = Duration::from_millis(20);

/// Between two looks at who has caught up.
const PROMOTE_EVERY: Duration = Duration::from_millis(200);

pub struct Changes {
    pub core: Core,
    pub standing: Arc<Standing>,
    pub reads: Arc<Reads>,
    pub token: String,
    /// Nobody can reach this member, so there will be no second.
    pub alone: bool,
    pub clock: world::Clock,
    pub limit: Duration,
    /// One change after the other.
    pub one: Mutex<()>,
}

/// A member without an address that can be read would never be reached.
fn check(peer_urls: &[String]) -> Result<(), MemberError> {
    let act = "read the addresses of a member";
    if peer_urls.is_empty() {
        return Err(Error::storage(act, std::io::Error::other("there is none")).into());
    }
    for url in peer_urls {
        url.parse::<Address>().map_err(|error| Error::storage(act, error))?;
    }
    Ok(())
}

impl Changes {
    pub async fn change(&self, change: MemberChange) -> Result<Vec<MemberFact>, MemberError> {
        let mut fresh = 0;
        match &change {
            MemberChange::Add { contact: Contact { peer_urls, .. }, .. } | MemberChange::Update { peer_urls, .. } => {
                check(peer_urls)?;
            }
            MemberChange::Remove(_) | MemberChange::Promote(_) => {}
        }
        if let MemberChange::Add { contact, .. } = &change {
            if self.alone {
                return Err(MemberError::Alone);
            }
            fresh = member_id(&contact.peer_urls, &self.token, Some(self.clock.now_ns()));
        }
        self.settle(|members| roster::decide(members, change.clone(), fresh, |id| self.progress(id)).map(Some)).await
    }

    pub async fn publish(&self, id: MemberId, name: String, client_urls: Vec<String>) -> Result<(), MemberError> {
        let step = |members: &Members| roster::publish(members, id, name.clone(), client_urls.clone());
        self.settle(step).await.map(drop)
    }

    pub async fn transfer(&self, to: MemberId) -> Result<(), MemberError> {
        let membership = self.standing.membership();
        if membership.get_node(&to).is_none() {
            return Err(MemberError::NotFound(to));
        }
        if !membership.voter_ids().any(|voter| voter == to) {
            return Err(MemberError::BadTransferee(to));
        }
        if to == self.standing.me {
            return Ok(());
        }
        let transferred = async {
            let triggered = self.core.trigger().transfer_leader(to).await;
            triggered.map_err(|_| Error::Closed)?;
            while self.standing.leader() != Some(to) {
                tokio::time::sleep(RETRY).await;
            }
            Ok(())
        };
        Ok(timeout(self.limit, transferred).await.unwrap_or(Err(Error::TimedOut))?)
    }

    /// How much of the log a member has, and how much there is.
    fn progress(&self, id: MemberId) -> Option<(u64, u64)> {
        let data = self.standing.data();
        let matched = (*data.replication?.get(&id)?)?;
        Some((matched.index(), data.last_log?.index()))
    }

    /// Makes one step, decided on the members there are when nothing else changes them.
    async fn settle(
        &self,
        decide: impl Fn(&Members) -> Result<Option<Step>, MemberError>,
    ) -> Result<Vec<MemberFact>, MemberError> {
        let settled = async {
            let _one = self.one.lock().await;
            self.reads.catch_up().await?;
            loop {
                if self.standing.route() != Route::Here {
                    return Err(Error::NoLeader.into());
                }
                let members = self.standing.membership();
                let Some(step) = decide(members.membership())? else {
                    return Ok(roster::facts(members.membership()));
                };
                match self.core.change_membership(step, false).await {
                    Ok(written) => {
                        let members = written.membership.as_ref().unwrap_or(members.membership());
                        return Ok(roster::facts(members));
                    }
                    Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                        ChangeMembershipError::InProgress(_),
                    ))) => tokio::time::sleep(RETRY).await,
                    Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                        return Err(Error::NoLeader.into());
                    }
                    Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                        return Err(Error::TimedOut.into());
                    }
                    Err(RaftError::APIError(error)) => {
                        return Err(Error::storage("change the members", error).into());
                    }
                    Err(RaftError::Fatal(_)) => return Err(Error::Closed.into()),
                }
            }
        };
        timeout(self.limit, settled).await.unwrap_or(Err(Error::TimedOut.into()))
    }

    /// Hands the lead to whoever has most of the log, if this member leads and there is somebody.
    pub async fn step_down(&self, limit: Duration) {
        let voters: Vec<MemberId> = self.standing.membership().voter_ids().collect();
        let others = voters.into_iter().filter(|id| *id != self.standing.me);
        let next = others.filter_map(|id| Some((self.progress(id)?.0, id))).max();
        if let Some((_, to)) = next.filter(|_| self.standing.leads().is_some()) {
            let _ = timeout(limit, self.transfer(to)).await;
        }
    }

    /// Gives their votes to those who were added as voters, once they have caught up, and ends what a leader before left
    /// half done.
    pub async fn look_after(self: Arc<Self>) {
        loop {
            tokio::time::sleep(PROMOTE_EVERY).await;
            if self.standing.leads().is_none() {
                continue;
            }
            if self.standing.membership().get_joint_config().len() > 1
                && let Err(error) = self.settle(|members| Ok(roster::unfinished(members))).await
            {
                tracing::debug!(%error, "a change of the members is not finished yet");
            }
            let next = |members: &Members| roster::promotable(members, |id| self.progress(id));
            let Some((id, _)) = next(self.standing.membership().membership()) else { continue };
            let begun = Instant::now();
            match self.settle(|members| Ok(next(members).map(|(_, step)| step))).await {
                Ok(_) => {
                    tracing::info!(member = format_args!("{id:x}"), took = ?begun.elapsed(), "the member votes now");
                }
                Err(error) => tracing::debug!(member = format_args!("{id:x}"), %error, "the member does not vote yet"),
            }
        }
    }
}
