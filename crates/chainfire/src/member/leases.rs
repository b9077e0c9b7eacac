//! When leases run out: the leader's to know, and nobody else's.
//!
//! ```text
//!   another leads ──▶ this one leads, has applied all that was before it: every lease has its full time again
//!        ▲                    │ granted, revoked: as the state says when it applies them
//!        └────────────────────┘ run out: proposed as Revoke, like any request
//! ```
//!
//! A lease ends early for nobody: whoever was told that it lives was told so by a leader that had a quorum behind it
//! after being asked, and a leader that comes after that one begins counting later.

use std::sync::Arc;

use parking_lot::Mutex;
use store::Lease;
use store::lessor::Lessor;
use tokio::sync::watch;

use crate::state::LeaseChange;

/// The deadlines of one term.
#[derive(Clone)]
pub struct Leading {
    pub term: u64,
    pub lessor: Arc<Lessor>,
}

pub struct Leases {
    /// Held while the lists of leases and of deadlines are compared, so that no change falls between.
    order: Mutex<()>,
    leading: watch::Sender<Option<Leading>>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { order: Mutex::new(()), leading: watch::Sender::new(None) }
    }
}

impl Leases {
    /// Called by the state, in order.
    pub fn changed(&self, changes: &[LeaseChange]) {
        let _order = self.order.lock();
        let leading = self.leading.borrow();
        let Some(Leading { lessor, .. }) = &*leading else { return };
        for change in changes {
            match change {
                LeaseChange::Granted(lease) => lessor.insert(*lease),
                LeaseChange::Revoked(id) => lessor.remove(*id),
                LeaseChange::Replaced(leases) => lessor.replace(leases.clone()),
            }
        }
    }

    /// `leases` lists all there are.
    pub fn lead(&self, term: u64, leases: impl FnOnce() -> Vec<Lease>) {
        let _order = self.order.lock();
        let lessor = Arc::new(Lessor::default());
        lessor.replace(leases());
        self.leading.send_replace(Some(Leading { term, lessor }));
    }

    pub fn follow(&self) {
        let _order = self.order.lock();
        self.leading.send_if_modified(|leading| leading.take().is_some());
    }

    pub fn leading(&self) -> Option<Leading> {
        self.leading.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Option<Leading>> {
        self.leading.subscribe()
    }
}
