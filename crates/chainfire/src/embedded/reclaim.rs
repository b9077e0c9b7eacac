//! Giving back the space of compacted history, a bounded step at a time.
//!
//! The log says what to look at: an event at or below the compacted revision superseded whatever its key had before,
//! so that can go, and a delete below it can go itself. Taken oldest first, each entry of the log has a constant amount
//! to remove. The log below the compacted revision goes as well; its entries at it stay, for watches from there.

use store::{Error, EventKind, Revision};

use super::fault::Fault;
use super::tables::{Draft, GONE, ROW};
use crate::record;
use redb::ReadableTable;

/// Events that one step takes at most, give or take one entry of the log.
const STEP_EVENTS_MAX: usize = 1024;

/// How far it has come. Starting over does no harm.
#[derive(Clone, Copy, Default, Debug)]
pub struct Reclaim {
    next: (u64, u32),
    pending: bool,
}

impl Reclaim {
    /// Of a database that was just opened.
    pub fn resume(oldest: Option<Revision>, compacted: Revision) -> Self {
        Self { next: (0, 0), pending: oldest.is_some_and(|oldest| oldest < compacted) }
    }

    pub fn start(&mut self) {
        *self = Self { next: (0, 0), pending: true };
    }

    pub fn pending(&self) -> bool {
        self.pending
    }

    /// Answers the state after the step, to be kept when the transaction was committed.
    pub fn step(&self, draft: &mut Draft<'_>) -> Result<Self, Error> {
        let compacted = draft.compacted;
        let mut taken = Vec::new();
        let mut events = 0;
        let mut done = true;
        for entry in draft.log.range(self.next..(compacted.0 + 1, 0)).fault("read the log")? {
            if events >= STEP_EVENTS_MAX {
                done = false;
                break;
            }
            let (at, chunk) = entry.fault("read the log")?;
            let at = at.value();
            let changes = record::changed(Revision(at.0), chunk.value())?;
            events += changes.len();
            taken.push((at, changes));
        }
        let mut next = self.next;
        for (at, changes) in taken {
            for change in changes {
                forget_before(draft, &change.key, at.0)?;
                if change.kind == EventKind::Delete && at.0 < compacted.0 {
                    draft.history.remove((&change.key[..], at.0, ROW)).fault("shorten the history")?;
                    draft.history.remove((&change.key[..], at.0, GONE)).fault("shorten the history")?;
                }
            }
            if at.0 < compacted.0 {
                draft.log.remove(at).fault("shorten the log")?;
            }
            next = (at.0, at.1 + 1);
        }
        Ok(Self { next, pending: !done })
    }
}

/// Removes what the key was before `revision`: one entry or two, as older ones went before.
fn forget_before(draft: &mut Draft<'_>, key: &[u8], revision: u64) -> Result<(), Error> {
    loop {
        let oldest = {
            let mut older = draft.history.range((key, 0, 0)..(key, revision, 0)).fault("read the history")?;
            match older.next() {
                None => return Ok(()),
                Some(entry) => {
                    let (found, _) = entry.fault("read the history")?;
                    let (_, revision, kind) = found.value();
                    (revision, kind)
                }
            }
        };
        draft.history.remove((key, oldest.0, oldest.1)).fault("shorten the history")?;
    }
}
