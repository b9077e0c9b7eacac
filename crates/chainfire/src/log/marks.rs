//! What the log knows beside its entries, and the rules by which it changes.

use openraft::type_config::alias::{LogIdOf, VoteOf};
use serde::{Deserialize, Serialize};

use crate::member::types::Types;

pub type Id = LogIdOf<Types>;
pub type Vote = VoteOf<Types>;

/// Also the end of the log: a mark whose `last` is lower than what came before it cuts off the entries above, one whose
/// `purged` is higher than before drops those up to it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Marks {
    pub vote: Option<Vote>,
    /// Known to be committed, maybe less than what is.
    pub committed: Option<Id>,
    /// Entries up to this one are gone.
    pub purged: Option<Id>,
    /// The newest entry, or `purged` when there is none after it.
    pub last: Option<Id>,
}

/// An entry that would leave a hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    pub next: u64,
}

impl Marks {
    /// The index that the next entry has.
    pub fn next(&self) -> u64 {
        after(self.last.as_ref())
    }

    /// The lowest index that the log may still have.
    pub fn first(&self) -> u64 {
        after(self.purged.as_ref())
    }

    /// An entry follows. An empty log that was never purged begins wherever its first entry says.
    pub fn append(&mut self, id: Id) -> Result<(), Hole> {
        let next = self.next();
        if self.last.is_some() && id.index != next {
            return Err(Hole { next });
        }
        self.last = Some(id);
        Ok(())
    }

    /// Entries above `last` go. What was purged stays so.
    pub fn truncate(&mut self, last: Option<Id>) {
        if after(last.as_ref()) < self.next() {
            self.last = if after(last.as_ref()) <= self.first() { self.purged } else { last };
        }
    }

    /// Entries up to `id` go, also when the log does not reach that far.
    pub fn purge(&mut self, id: Id) {
        if id.index >= self.first() {
            self.purged = Some(id);
            if id.index >= self.next() || self.last.is_some_and(|last| last.index == id.index) {
                self.last = Some(id);
            }
        }
    }
}

pub fn after(id: Option<&Id>) -> u64 {
    // The highest index of all is none that a log reaches; saturating keeps damage from overflowing.
    id.map_or(0, |id| id.index.saturating_add(1))
}
