//! When leases run out. Which leases exist is the store's rows to say; this holds only their deadlines.
//!
//! ```text
//!   granted ──▶ alive ──(deadline)──▶ ending ──▶ removed, after its keys were deleted
//!                ▲ │
//!   keep alive ──┘ └──▶ removed (revoked)
//! ```
//!
//! A lease that is ending can no longer be kept alive, so nobody is told "alive" about keys that are going away.
//! Deadlines are not stored: after a restart every lease has its full time again. Late is allowed, early never.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Error, Lease, LeaseId};

/// Wait before another try to delete the keys of a lease when the store could not.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct Lessor {
    held: Mutex<Held>,
    sooner: Notify,
}

#[derive(Default)]
struct Held {
    leases: HashMap<LeaseId, Term>,
    /// Every alive lease, and every ending one that waits for another try.
    due: BTreeSet<(Instant, LeaseId)>,
}

struct Term {
    ttl_seconds: u64,
    deadline: Instant,
    ending: bool,
}

impl Lessor {
    /// Replaces a lease of the same id.
    pub fn insert(&self, lease: Lease) {
        let deadline = Instant::now() + Duration::from_secs(lease.ttl_seconds);
        let mut held = self.held.lock();
        let term = Term { ttl_seconds: lease.ttl_seconds, deadline, ending: false };
        if let Some(old) = held.leases.insert(lease.id, term) {
            held.due.remove(&(old.deadline, lease.id));
        }
        held.due.insert((deadline, lease.id));
        drop(held);
        self.sooner.notify_one();
    }

    pub fn remove(&self, id: LeaseId) {
        let mut held = self.held.lock();
        if let Some(term) = held.leases.remove(&id) {
            held.due.remove(&(term.deadline, id));
        }
    }

    pub fn keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        let now = Instant::now();
        let held = &mut *self.held.lock();
        let term = held.leases.get_mut(&id).filter(|term| !term.ending && term.deadline > now);
        let term = term.ok_or(Error::LeaseNotFound { id })?;
        held.due.remove(&(term.deadline, id));
        term.deadline = now + Duration::from_secs(term.ttl_seconds);
        held.due.insert((term.deadline, id));
        Ok(Lease { id, ttl_seconds: term.ttl_seconds })
    }

    /// The lease and what is left of it.
    pub fn remaining(&self, id: LeaseId) -> Result<(Lease, Duration), Error> {
        let held = self.held.lock();
        let term = held.leases.get(&id).filter(|term| !term.ending).ok_or(Error::LeaseNotFound { id })?;
        let left = term.deadline.saturating_duration_since(Instant::now());
        Ok((Lease { id, ttl_seconds: term.ttl_seconds }, left))
    }

    /// Waits for a lease to run out and marks it as ending. The caller revokes it, then calls [`Lessor::remove`], or
    /// [`Lessor::retry`] when that failed. Sleeps without a timer while there is no lease.
    pub async fn run_out(&self) -> LeaseId {
        loop {
            let next = {
                let held = &mut *self.held.lock();
                match held.due.first().copied() {
                    Some((deadline, id)) if deadline <= Instant::now() => {
                        held.due.pop_first();
                        if let Some(term) = held.leases.get_mut(&id) {
                            term.ending = true;
                            return id;
                        }
                        continue;
                    }
                    next => next,
                }
            };
            match next {
                None => self.sooner.notified().await,
                Some((deadline, _)) => tokio::select! {
                    () = tokio::time::sleep_until(deadline) => {}
                    () = self.sooner.notified() => {}
                },
            }
        }
    }

    pub fn retry(&self, id: LeaseId) {
        let held = &mut *self.held.lock();
        if let Some(term) = held.leases.get_mut(&id) {
            term.deadline = Instant::now() + RETRY;
            held.due.insert((term.deadline, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LeaseId = LeaseId(7);

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_after_its_last_sign_of_life() {
        let lessor = Lessor::default();
        lessor.insert(Lease { id: ID, ttl_seconds: 10 });
        let start = Instant::now();
        tokio::time::advance(Duration::from_secs(9)).await;
        lessor.keep_alive(ID).unwrap();
        assert_eq!(lessor.run_out().await, ID);
        assert!(start.elapsed() >= Duration::from_secs(19));
        assert!(matches!(lessor.keep_alive(ID), Err(Error::LeaseNotFound { .. })));
        lessor.retry(ID);
        assert!(matches!(lessor.keep_alive(ID), Err(Error::LeaseNotFound { .. })), "ending stays ending");
        assert_eq!(lessor.run_out().await, ID);
        lessor.remove(ID);
        assert!(matches!(lessor.remaining(ID), Err(Error::LeaseNotFound { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_lease_is_seen_while_waiting_for_a_longer_one() {
        let lessor = std::sync::Arc::new(Lessor::default());
        lessor.insert(Lease { id: ID, ttl_seconds: 1000 });
        let waiting = tokio::spawn({
            let lessor = lessor.clone();
            async move { lessor.run_out().await }
        });
        tokio::task::yield_now().await;
        lessor.insert(Lease { id: LeaseId(8), ttl_seconds: 1 });
        assert_eq!(waiting.await.unwrap(), LeaseId(8));
    }
}
