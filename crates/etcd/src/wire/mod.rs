//! The store's words as etcd's messages and back. Pure.

pub(crate) mod answer;
pub(crate) mod ask;
pub(crate) mod event;

/// An answer that no etcd gives.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Strange {
    #[error("the answer has no {0}")]
    Lacks(&'static str),
    #[error("the answer does not fit what was asked")]
    Other,
    #[error("the endpoints lead to different clusters, {first:x} and {now:x}")]
    Cluster { first: u64, now: u64 },
}
