//! What every request needs: the store, the host, who may do what, and the header of the answer.

use std::sync::Arc;
use std::time::Duration;

use etcd::proto::etcdserverpb::ResponseHeader;
use http::HeaderMap;
use parking_lot::RwLock;
use store::{Error, LeaseId, Range, Revision, Store};
use tokio::sync::watch;
use tonic::Status;

use super::auth::rows::Row;
use super::auth::token::Tokens;
use super::auth::{Caller, View};
use super::host::Host;
use super::metrics::Metrics;
use super::monitor::{self, Seen};
use super::options::Options;
use super::refusal::{self, AUTH_OLD_REVISION, INVALID_AUTH_TOKEN, NO_LEADER, NOT_FOR_LEARNER};
use super::watch::Hub;
use crate::command::Refusal;

/// Times that a request is decided anew because system rows moved meanwhile.
pub const TRIES_MAX: usize = 16;

/// Wait for this member to see system rows that the cluster has already.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
const CATCH_UP_STEP: Duration = Duration::from_millis(5);

/// What the other end of a connection showed.
#[derive(Debug, Default)]
pub struct Peer {
    /// Common name of its certificate, when that was asked for and verified.
    pub common_name: Option<Arc<str>>,
}

/// A request, apart from its message.
#[derive(Debug)]
pub struct Call {
    pub headers: HeaderMap,
    pub peer: Arc<Peer>,
    /// Length of the message.
    pub bytes: usize,
}

impl Call {
    /// Refuse rather than wait when there is no leader.
    pub fn requires_leader(&self) -> bool {
        self.headers.get("hasleader").is_some_and(|value| value == "true")
    }

    fn token(&self) -> Option<&str> {
        let value = self.headers.get("token").or_else(|| self.headers.get("authorization"))?;
        let token = value.to_str().unwrap_or_default();
        Some(token.strip_prefix("Bearer ").unwrap_or(token))
    }
}

pub struct Desk {
    pub store: Arc<dyn Store>,
    pub host: Arc<dyn Host>,
    pub options: Options,
    pub tokens: Tokens,
    pub hub: Arc<Hub>,
    pub metrics: Metrics,
    seen: watch::Receiver<Seen>,
    view: RwLock<Arc<View>>,
}

impl Desk {
    pub fn new(options: Options, store: Arc<dyn Store>, host: Arc<dyn Host>) -> Self {
        let view = RwLock::new(Arc::new(View::new(&host.system())));
        let tokens = Tokens::new(options.token_ttl, options.clock.clone());
        let (sender, seen) = watch::channel(Seen::default());
        tokio::spawn(monitor::look(host.clone(), sender));
        let hub = Hub::new(store.clone());
        Self { store, host, options, tokens, hub, metrics: Metrics::default(), seen, view }
    }

    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }

    /// Tells whenever something else is seen.
    pub fn changes(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    /// The system rows as they are here now.
    pub fn view(&self) -> Arc<View> {
        let system = self.host.system();
        {
            let view = self.view.read();
            if view.version == system.version {
                return view.clone();
            }
        }
        let new = Arc::new(View::new(&system));
        let mut view = self.view.write();
        if view.version < new.version {
            *view = new.clone();
        }
        new
    }

    /// Whether what was decided on `view` would be decided the same way now.
    pub fn stands(&self, view: &View) -> bool {
        self.host.system().version == view.version || self.view().judges_as(view)
    }

    pub fn caller(&self, view: &View, call: &Call) -> Result<Caller, Status> {
        if !view.enabled() {
            return Ok(Caller::Anyone);
        }
        if let Some(token) = call.token() {
            let user = self.tokens.whose(view, token).ok_or(INVALID_AUTH_TOKEN)?;
            return Ok(Caller::User(user));
        }
        Ok(call.peer.common_name.clone().map_or(Caller::Nobody, Caller::User))
    }

    /// Waits until this member has everything that was answered anywhere before this call.
    pub async fn be_up_to_date(&self) -> Result<(), Status> {
        self.store.range(Range::key(vec![0]).count_only()).await.map(drop).map_err(refusal::of)
    }

    /// Whether a refusal for the sake of users or permissions, decided on system rows of `version` or later, has to be
    /// decided anew: what was lacking here may have been granted at another member just before.
    pub async fn must_ask_again(&self, refused: &Status, version: u64) -> bool {
        // Who cannot find out stays with what is known here.
        refusal::is_about_users(refused) && self.be_up_to_date().await.is_ok() && self.host.system().version != version
    }

    /// Waits until this member's system rows are at `version` or past it.
    pub async fn catch_up(&self, version: u64) -> Result<(), Status> {
        let mut waited = Duration::ZERO;
        while self.host.system().version < version {
            if waited >= CATCH_UP_MAX {
                return Err(AUTH_OLD_REVISION.into());
            }
            tokio::time::sleep(CATCH_UP_STEP).await;
            waited += CATCH_UP_STEP;
        }
        Ok(())
    }

    /// All keys of the lease must be the caller's to write.
    pub async fn may_write_leased(&self, view: &View, caller: &Caller, lease: LeaseId) -> Result<(), Status> {
        if view.may_everything(caller) {
            return Ok(());
        }
        match self.store.lease_time_to_live(lease).await {
            Ok(status) => Ok(status.keys.iter().try_for_each(|key| view.may_write(caller, key, b""))?),
            // Whoever uses it will be told.
            Err(Error::LeaseNotFound { .. }) => Ok(()),
            Err(error) => Err(refusal::of(error)),
        }
    }

    /// A call that would rather be refused than wait for a leader.
    pub async fn check_leader(&self, call: &Call) -> Result<(), Status> {
        if call.requires_leader() {
            let status = self.host.status().await.map_err(refusal::of)?;
            if status.leader.is_none() {
                return Err(NO_LEADER.into());
            }
        }
        Ok(())
    }

    /// A learner answers little: what it has may be far behind.
    pub async fn check_learner(&self) -> Result<(), Status> {
        // What was seen may be of before it was promoted.
        if self.seen().learner && self.host.status().await.is_ok_and(|status| status.learner) {
            return Err(NOT_FOR_LEARNER.into());
        }
        Ok(())
    }

    /// Authentication is off, or the caller is somebody.
    pub fn someone(&self, call: &Call) -> Result<(Arc<View>, Caller), Status> {
        let view = self.view();
        let caller = self.caller(&view, call)?;
        caller.is_someone()?;
        Ok((view, caller))
    }

    /// Authentication is off, or the caller is root.
    pub fn admin(&self, call: &Call) -> Result<(), Status> {
        let view = self.view();
        Ok(view.is_admin(&self.caller(&view, call)?)?)
    }

    /// Changes system rows: `make` says from those that are there which rows become what, none for no change, and what
    /// to answer. It may be asked again when somebody else was first.
    pub async fn amend<T>(&self, mut make: impl FnMut(&View) -> Result<(Vec<Row>, T), Status>) -> Result<T, Status> {
        for _ in 0..TRIES_MAX {
            let view = self.view();
            let (rows, answer) = make(&view)?;
            if rows.is_empty() {
                return Ok(answer);
            }
            match self.host.system_change(view.version, rows).await {
                Ok(_) => return Ok(answer),
                Err(Refusal::Store(error)) => return Err(refusal::of(error)),
                Err(Refusal::SystemMoved { version }) => self.catch_up(version).await?,
            }
        }
        Err(AUTH_OLD_REVISION.into())
    }

    pub fn header(&self, revision: Revision) -> ResponseHeader {
        let header = self.host.header();
        ResponseHeader {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: revision.0 as i64,
            raft_term: header.term,
        }
    }

    /// With the newest revision that this member has.
    pub async fn newest_header(&self) -> Result<ResponseHeader, Status> {
        let status = self.store.status().await.map_err(refusal::of)?;
        Ok(self.header(status.revision))
    }
}
