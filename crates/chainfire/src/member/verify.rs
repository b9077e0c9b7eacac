//! A look at a member's folder while nobody serves it: everything is read, and every checksum looked at.

use std::path::Path;

use store::{Error, Revision};

use super::{OpenError, Place, identity::Identity};
use crate::state::LeaseHook;

/// What is in a sound folder.
#[derive(Clone, Debug)]
pub struct Verified {
    pub identity: Identity,
    /// Entries of the log that are there: from the first up to `log_next`, without it.
    pub log_first: u64,
    pub log_next: u64,
    /// The last entry that is in the state.
    pub applied: u64,
    pub revision: Revision,
    pub compacted: Revision,
    /// Over the rows as of `revision` and what is left of history: equal on every member that has come as far.
    pub hash: u32,
    /// Of a whole copy, which was read to its end.
    pub copy_bytes: u64,
}

/// Reads log and state as a start would, and then all of the state. What a start would repair by itself, such as an
/// entry that was being written when the power went, is repaired.
///
/// Errors: [`Error::Corrupt`] and the others of [`super::Member::open`]; [`Error::Locked`] while it is served.
pub async fn verify(dir: &Path) -> Result<Verified, OpenError> {
    let taken = Place::Folder(dir.to_path_buf()).take().await?;
    let none = || OpenError::Settings(format!("{} holds no member", dir.display()));
    let identity = taken.identity().await?.ok_or_else(none)?;
    let log = taken.log(identity.cluster).await?;
    let facts = log.facts();
    let state = taken.state(LeaseHook(std::sync::Arc::new(|_| {}))).await?;
    let reader = state.reader();
    let applied = reader.status().applied.map_or(0, |id| id.index);
    if let Some(purged) = facts.marks.purged.filter(|purged| purged.index > applied) {
        let reason = format!("the log begins after entry {}, and the state has {applied} only", purged.index);
        return Err(Error::Corrupt { path: dir.to_path_buf(), reason }.into());
    }
    let hash = reader.hash(None).await?;
    let mut pieces = reader.export();
    let mut copy_bytes = 0;
    while let Some(piece) = pieces.recv().await {
        copy_bytes += piece?.len() as u64;
    }
    let closed = log.close().await;
    match closed {
        Ok(()) | Err(Error::Closed) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Verified {
        identity,
        log_first: facts.first,
        log_next: facts.next,
        applied,
        revision: hash.revision,
        compacted: hash.compacted,
        hash: hash.hash,
        copy_bytes,
    })
}
