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

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Error, Lease, LeaseId};

/// Wait before another try to delete the keys of a lease when the store could not.
const RETRY: Duration = Duration::from_secs(5);

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

enum Due {
    Now(LeaseId),
    At(Instant),
    Never,
}

struct Term {
    ttl_seconds: u64,
    deadline: Instant,
    ending: bool,
}

impl Lessor {
    /// Replaces a lease of the same id.
    pub fn insert(&self, lease: Lease) {
        self.insert_at(lease, Instant::now());
    }

    fn insert_at(&self, lease: Lease, now: Instant) {
        let deadline = now + Duration::from_secs(lease.ttl_seconds);
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

    /// Makes these the leases there are. Those already known keep their deadlines.
    pub fn replace(&self, leases: Vec<Lease>) {
        let known: HashSet<LeaseId> = leases.iter().map(|lease| lease.id).collect();
        let held = &mut *self.held.lock();
        let Held { leases: terms, due } = held;
        terms.retain(|id, term| {
            let stays = known.contains(id);
            if !stays {
                due.remove(&(term.deadline, *id));
            }
            stays
        });
        let now = Instant::now();
        for lease in leases {
            terms.entry(lease.id).or_insert_with(|| {
                let deadline = now + Duration::from_secs(lease.ttl_seconds);
                due.insert((deadline, lease.id));
                Term { ttl_seconds: lease.ttl_seconds, deadline, ending: false }
            });
        }
        self.sooner.notify_one();
    }

    pub fn keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.keep_alive_at(id, Instant::now())
    }

    fn keep_alive_at(&self, id: LeaseId, now: Instant) -> Result<Lease, Error> {
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
            match self.end_at(Instant::now()) {
                Due::Now(id) => return id,
                Due::Never => self.sooner.notified().await,
                Due::At(deadline) => tokio::select! {
                    () = tokio::time::sleep_until(deadline) => {}
                    () = self.sooner.notified() => {}
                },
            }
        }
    }

    /// Ends the lease that is due the longest.
    fn end_at(&self, now: Instant) -> Due {
        let held = &mut *self.held.lock();
        match held.due.first().copied() {
            None => Due::Never,
            Some((deadline, _)) if deadline > now => Due::At(deadline),
            Some((_, id)) => {
                held.due.pop_first();
                held.leases.get_mut(&id).expect("only leases that are held are due").ending = true;
                Due::Now(id)
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

    #[test]
    fn a_lease_ends_its_time_after_the_last_sign_of_life_and_not_before() {
        let lessor = Lessor::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        lessor.insert_at(Lease { id: ID, ttl_seconds: 10 }, start);
        lessor.keep_alive_at(ID, at(9)).unwrap();
        assert!(matches!(lessor.end_at(at(18)), Due::At(due) if due == at(19)));
        assert!(matches!(lessor.keep_alive_at(ID, at(19)), Err(Error::LeaseNotFound { .. })), "too late");
        assert!(matches!(lessor.end_at(at(19)), Due::Now(ID)));
        assert!(matches!(lessor.end_at(at(19)), Due::Never));
        lessor.retry(ID);
        assert!(matches!(lessor.keep_alive_at(ID, start), Err(Error::LeaseNotFound { .. })), "ending stays ending");
        assert!(matches!(lessor.end_at(at(100)), Due::Now(ID)));
        lessor.remove(ID);
        assert!(matches!(lessor.remaining(ID), Err(Error::LeaseNotFound { .. })));
    }

    #[test]
    fn replacing_keeps_the_deadlines_of_those_that_stay() {
        let lessor = Lessor::default();
        let start = Instant::now();
        lessor.insert_at(Lease { id: ID, ttl_seconds: 1 }, start);
        lessor.insert_at(Lease { id: LeaseId(8), ttl_seconds: 2 }, start);
        lessor.replace(vec![Lease { id: ID, ttl_seconds: 1 }, Lease { id: LeaseId(9), ttl_seconds: 9000 }]);
        assert!(matches!(lessor.end_at(start + Duration::from_secs(5)), Due::Now(ID)));
        assert!(matches!(lessor.end_at(start + Duration::from_secs(5)), Due::At(_)));
        lessor.remaining(LeaseId(9)).unwrap();
        assert!(lessor.remaining(LeaseId(8)).is_err());
    }

    #[tokio::test]
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
