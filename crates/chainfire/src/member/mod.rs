//! One member of a replicated store.

pub mod identity;
pub mod options;
pub mod peer;
pub mod types;

use std::path::PathBuf;

pub use options::Options;

use peer::tls::TlsError;
use types::MemberId;

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
    #[error(transparent)]
    Store(#[from] store::Error),
}
