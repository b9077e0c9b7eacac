//! One member of a replicated store.
//!
//! ```text
//!   Store, Host ──▶ proposer ──▶ Raft ──▶ log ──▶ (quorum) ──▶ state ──▶ answers, watches
//!              ├──▶ reads: a quorum confirms the leader, then the state here answers
//!              └──▶ lead: leases, membership; of this member or of the one that leads
//!   peers ◀──▶ peer::link, peer::serve: the members' own protocol
//! ```
//!
//! Tasks: Raft's own; one for each link and two for each connection between members; one each that follows leadership,
//! ends leases, promotes learners, publishes the name, looks at the disk, keeps the log short. Threads are the log's and
//! the state's alone. All time is tokio's.

mod changes;
mod host;
pub mod identity;
mod joining;
mod lead;
mod leadership;
mod leases;
mod open;
pub mod options;
pub mod peer;
mod peers;
pub mod place;
mod proposer;
mod reads;
mod rebuild;
mod replicate;
pub mod restore;
mod room;
mod roster;
mod service;
mod standing;
mod store;
pub mod types;
pub mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::store::Error;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use options::{InitialState, Options};
pub use place::{Place, Simulated};

use self::identity::Identity;
use self::lead::Lead;
use self::leases::Leases;
use self::peer::tls::TlsError;
use self::peers::Peers;
use self::place::Taken;
use self::proposer::Proposer;
use self::reads::Reads;
use self::room::Room;
use self::standing::Standing;
use self::types::{MemberId, Types};
use crate::log::{Log, Measures};
use crate::state::{Reader, State};

/// For another member to take the lead when the one that leads is closed.
const STEP_DOWN_LIMIT: Duration = Duration::from_secs(1);

type Core = openraft::Raft<Types, State>;

/// Why a member does not open. Nothing was changed, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Settings(String),
    #[error("TLS between members: {0}")]
    Tls(#[from] TlsError),
    #[error("{} belongs to member {name} at {peer_urls}", .dir.display())]
    OtherMember { dir: PathBuf, name: String, peer_urls: String },
    #[error("{} was begun with the cluster token {theirs:?}, and is opened with {asked:?}", .dir.display())]
    OtherToken { dir: PathBuf, theirs: String, asked: String },
    #[error("this would be a member of cluster {own:x}, and {peer} belongs to cluster {theirs:x}")]
    OtherCluster { own: u64, theirs: u64, peer: String },
    #[error("none of the cluster's members answers: {0}")]
    NobodyAnswers(String),
    #[error("the cluster has no member at {peer_urls}; add it first")]
    NotAdded { peer_urls: String },
    #[error(
        "member {member:x} has been started before, and its data is not in {}; to go on without it, remove the member, \
         add it again, and start it with the initial cluster state \"existing\"", .dir.display()
    )]
    DataGone { dir: PathBuf, member: MemberId },
    #[error("the port for other members cannot be opened at {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] Error),
}

/// Why a member is no more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Ended {
    #[error("the member was closed")]
    Closed,
    #[error("the member was removed from the cluster; its data is of no use any more")]
    Removed,
    #[error("the member cannot go on: {0}")]
    Failed(String),
}

/// One member, open. Dropping it ends it as [`Member::abort`] does; [`Member::close`] ends it well.
pub struct Member {
    inner: Arc<Inner>,
    tasks: Mutex<JoinSet<()>>,
}

struct Inner {
    identity: Arc<Identity>,
    core: Core,
    log: Log,
    reader: Reader,
    standing: Arc<Standing>,
    peers: Arc<Peers>,
    proposer: Arc<Proposer>,
    reads: Arc<Reads>,
    room: Arc<Room>,
    leases: Arc<Leases>,
    lead: Arc<Lead>,
    ended: watch::Sender<Option<Ended>>,
    /// Nothing is written any more.
    closed: AtomicBool,
    _taken: Taken,
}

impl Inner {
    fn alive(&self) -> Result<(), Error> {
        if self.ended.borrow().is_none() { Ok(()) } else { Err(Error::Closed) }
    }

    /// The first reason stays.
    fn end(&self, why: Ended) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(why);
            first
        });
        self.proposer.close();
        self.reads.close();
    }
}

impl Member {
    /// Waits until the member has ended, and says why.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.inner.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or(Ended::Closed),
            Err(_) => Ended::Closed,
        }
    }

    pub fn id(&self) -> MemberId {
        self.inner.identity.member
    }

    /// What the log asked of the disk.
    pub fn measures(&self) -> Measures {
        self.inner.log.measures()
    }

    /// Hands the lead to another, takes nothing more, and ends when what was taken is on disk. Watchers end when they
    /// have taken everything.
    pub async fn close(&self) -> Result<(), Error> {
        if self.inner.alive().is_ok() {
            self.inner.lead.changes.step_down(STEP_DOWN_LIMIT).await;
        }
        self.inner.end(Ended::Closed);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        self.inner.peers.keep_only(|_| false);
        // Fails only when Raft has ended by itself before.
        let _ = self.inner.core.shutdown().await;
        // So that the next start need not read the log. It can, when the disk does not take it.
        if let Err(error) = self.inner.reader.flush().await {
            tracing::warn!(%error, "the state stays behind the log until the next start");
        }
        let closed = self.inner.log.close().await;
        self.inner.closed.store(true, Ordering::Release);
        match closed {
            Ok(()) | Err(Error::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Member {
    /// Ends at once, as a crash would: what is under way is not waited for.
    pub fn abort(&self) {
        if self.inner.closed.load(Ordering::Acquire) {
            return;
        }
        self.inner.end(Ended::Closed);
        self.tasks.lock().abort_all();
        self.inner.peers.keep_only(|_| false);
        let inner = self.inner.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The place stays taken until nobody writes there any more.
            runtime.spawn(async move {
                let _ = inner.core.shutdown().await;
                let _ = inner.log.close().await;
            });
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.abort();
    }
}
