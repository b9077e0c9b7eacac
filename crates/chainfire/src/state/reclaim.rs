//! Giving back the space of compacted history, a bounded step at a time.
//!
//! The log says what to look at: an event at or below the compacted revision superseded what its key had before, so that
//! can go, and a delete below it can go itself. The log below the compacted revision goes as well; its entries at it
//! stay, for watches from there. What is reclaimed can be read no more, so members may do it at different times: no
//! answer and no hash tells.

use std::sync::Arc;

use lsm_tree::Slice;
use store::{Error, EventKind, Revision};

use super::book::{Book, View};
use super::keys;
use crate::record;

/// Events that one step takes at most, give or take one entry of the log.
const STEP_EVENTS_MAX: usize = 1024;

/// How far it has come. Starting over does no harm.
#[derive(Clone, Copy, Debug)]
pub struct Reclaim {
    next: (Revision, u32),
    /// Up to which compacted revision everything was given back.
    done: Revision,
}

impl Reclaim {
    /// Of a state that was just opened.
    pub fn resume(oldest: Option<Revision>, compacted: Revision) -> Self {
        let pending = oldest.is_some_and(|oldest| oldest < compacted);
        Self { next: (Revision::ZERO, 0), done: if pending { Revision::ZERO } else { compacted } }
    }
}

/// Takes one step; answers whether there is more to do.
pub fn step(book: &Arc<Book>) -> Result<bool, Error> {
    let mut reclaim = book.reclaim.lock();
    let view = View::of(book.clone());
    let compacted = view.marks.compacted;
    if reclaim.done >= compacted {
        return Ok(false);
    }
    let (next, gone) = view.read(|look| {
        let mut gone: Vec<Slice> = Vec::new();
        let (mut events, mut next) = (0, None);
        let from = keys::log(reclaim.next.0, reclaim.next.1);
        let to = keys::log(compacted.next(), 0);
        for item in look.disk.range(&from, &to, look.at) {
            let (key, sealed) = item?;
            let (revision, chunk) = keys::log_of(&key)?;
            if events >= STEP_EVENTS_MAX {
                next = Some((revision, chunk));
                break;
            }
            let changes = record::trace(revision, &sealed)?;
            events += changes.len();
            for change in changes {
                let past = |revision, kind| Slice::from(keys::past(&change.key, revision, kind));
                if change.before != Revision::ZERO {
                    gone.push(past(change.before, keys::ROW));
                }
                if change.kind == EventKind::Delete && revision < compacted {
                    gone.push(past(revision, keys::ROW));
                    gone.push(past(revision, keys::GONE));
                }
            }
            if revision < compacted {
                gone.push(key);
            }
        }
        Ok((next, gone))
    })?;
    drop(view);
    if !gone.is_empty() {
        book.write(|draft| {
            for key in gone {
                draft.remove(key);
            }
            Ok(())
        })?;
    }
    match next {
        Some(next) => reclaim.next = next,
        None => {
            // Entries at the compacted revision stay, so the next compaction looks at them again.
            reclaim.next = (compacted, 0);
            reclaim.done = compacted;
        }
    }
    Ok(next.is_some())
}
