//! One backend while it is in force or draining, and the count of what is in flight to it.
//!
//! ```text
//!   serving --removed, count > 0--> draining --count 0 or limit--> gone (cut)
//!      ^                                |
//!      +------- listed again -----------+
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use world::Clock;

use crate::config::Limits;
use crate::health::Health;
use crate::http::pool::Pool;

/// Who wants to know that something about a backend changed.
#[derive(Debug)]
pub struct Bell {
    /// Wakes the housekeeper: a draining backend is empty.
    pub emptied: Notify,
    /// Counts changes of the status; readers see that it moved, not what moved.
    pub changes: watch::Sender<u64>,
}

impl Bell {
    pub fn ring(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[derive(Debug)]
pub struct Backend {
    pub route: String,
    pub id: String,
    pub addr: SocketAddr,
    /// Unused HTTP connections to it.
    pub pool: Pool,
    /// Ends everything that still speaks to it.
    pub cut: CancellationToken,
    active: AtomicUsize,
    /// When it last had nothing in flight any more, by the engine's clock.
    rested: Mutex<Duration>,
    draining: AtomicBool,
    health: Mutex<Health>,
}

impl Backend {
    pub fn new(route: &str, id: &str, addr: SocketAddr, now: Duration) -> Self {
        Self {
            route: route.into(),
            id: id.into(),
            addr,
            pool: Pool::default(),
            cut: CancellationToken::new(),
            active: AtomicUsize::new(0),
            rested: Mutex::new(now),
            draining: AtomicBool::new(false),
            health: Mutex::default(),
        }
    }

    /// Requests and connections in flight.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }

    /// For how long nothing has been in flight to it; `None` while something is.
    pub fn idle(&self, now: Duration) -> Option<Duration> {
        let rested = *self.rested.lock();
        // The count is read after the time: a flight that ends in between makes it look idle since then, not before.
        (self.active() == 0).then(|| now.saturating_sub(rested))
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// No longer listed: unused connections go, the others finish.
    pub fn retire(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.pool.close();
    }

    /// Listed again before it was empty.
    pub fn revive(&self) {
        self.draining.store(false, Ordering::SeqCst);
        self.pool.open();
    }

    pub fn admit(&self, now: Duration, limits: &Limits) -> bool {
        self.health.lock().admit(now, limits)
    }

    pub fn avoided_until(&self) -> Option<Duration> {
        self.health.lock().avoided_until()
    }
}

/// One request or connection in flight to a backend; dropping it ends the count.
#[derive(Debug)]
pub struct Flight {
    backend: Arc<Backend>,
    bell: Arc<Bell>,
    clock: Clock,
}

impl Flight {
    pub fn start(backend: Arc<Backend>, bell: Arc<Bell>, clock: Clock) -> Self {
        backend.active.fetch_add(1, Ordering::SeqCst);
        Self { backend, bell, clock }
    }

    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    pub fn succeeded(&self) {
        if self.backend.health.lock().succeeded() {
            tracing::info!(route = %self.backend.route, backend = %self.backend.id, "backend answers again");
            self.bell.ring();
        }
    }

    pub fn failed(&self, now: Duration, limits: &Limits, reason: &dyn std::fmt::Display) {
        if self.backend.health.lock().failed(now, limits) {
            let Backend { route, id, addr, .. } = &*self.backend;
            tracing::warn!(%route, backend = %id, %addr, %reason, "backend failed and is avoided for a while");
            self.bell.ring();
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        *self.backend.rested.lock() = self.clock.monotonic();
        // Count first, flag second; `retire` then a read of the count is the other order. So one of the two sees it.
        if self.backend.active.fetch_sub(1, Ordering::SeqCst) == 1 && self.backend.is_draining() {
            self.bell.emptied.notify_one();
        }
    }
}
