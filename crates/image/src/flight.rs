//! One build per digest, however many ask for it.
//!
//! ```text
//! ensure --+                      +--> outcome to each
//! ensure --+--> Flight --> task --+
//! ensure --+      |               +--> progress to each
//!                 +-- the last one gone: the task ends and its files go
//! ```

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Set when nobody waits any more; threads that cannot be interrupted look at it.
pub type Cancelled = Arc<AtomicBool>;

/// A build under way, or just done. Held by those who wait.
pub struct Flight<T> {
    progress: watch::Receiver<Progress>,
    outcome: watch::Receiver<Option<Result<()>>>,
    /// What was built, for the waiters to clone. Beside the outcome, so that it goes with the last of them and not
    /// with the task, which may linger for a moment.
    built: Arc<Mutex<Option<T>>>,
    cancelled: Cancelled,
    task: AbortHandle,
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.task.abort();
        drop(self.built.lock().take());
    }
}

/// Builds by digest.
pub struct Flights<T> {
    by_digest: Mutex<HashMap<Digest, Weak<Flight<T>>>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { by_digest: Mutex::new(HashMap::new()) }
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// Joins the build of `digest`, or starts one with `work`. A build that failed is not joined.
    pub fn join<W, F>(&self, digest: Digest, work: W) -> Arc<Flight<T>>
    where
        W: FnOnce(watch::Sender<Progress>, Cancelled) -> F,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut by_digest = self.by_digest.lock();
        let running = by_digest.get(&digest).and_then(Weak::upgrade);
        if let Some(flight) = running.filter(|flight| !matches!(&*flight.outcome.borrow(), Some(Err(_)))) {
            return flight;
        }
        by_digest.retain(|_, flight| flight.strong_count() > 0);
        let (progress_sender, progress) = watch::channel(Progress::start());
        let (outcome_sender, outcome) = watch::channel(None);
        let built = Arc::new(Mutex::new(None));
        let slot = Arc::downgrade(&built);
        let cancelled = Cancelled::default();
        let future = work(progress_sender, cancelled.clone());
        let task = tokio::spawn(async move {
            let result = future.await.map(|value| {
                if let Some(slot) = slot.upgrade() {
                    *slot.lock() = Some(value);
                }
            });
            outcome_sender.send_replace(Some(result));
        });
        let flight = Arc::new(Flight { progress, outcome, built, cancelled, task: task.abort_handle() });
        by_digest.insert(digest, Arc::downgrade(&flight));
        flight
    }
}

impl<T: Clone> Flight<T> {
    /// Waits for the outcome and passes progress on to `watcher`.
    pub async fn wait(&self, watcher: Option<&watch::Sender<Progress>>) -> Result<T> {
        let mut outcome = self.outcome.clone();
        let mut progress = self.progress.clone();
        let mut has_progress = true;
        loop {
            if let Some(result) = outcome.borrow_and_update().clone() {
                result?;
                return self.built.lock().clone().ok_or_else(given_up);
            }
            tokio::select! {
                changed = outcome.changed() => if changed.is_err() && outcome.borrow().is_none() {
                    return Err(given_up());
                },
                changed = progress.changed(), if has_progress => {
                    has_progress = changed.is_ok();
                    if let Some(watcher) = watcher {
                        watcher.send_replace(*progress.borrow_and_update());
                    }
                }
            }
        }
    }
}

fn given_up() -> Error {
    Error::Cancelled { what: "the build of a root image".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_build_is_shared_until_it_fails_and_ends_with_its_last_waiter() {
        let flights = Flights::<u32>::default();
        let digest = Digest::of(b"image");
        let fail = |_, _| async { Err(Error::Cancelled { what: "it".into() }) };
        let failed = flights.join(digest, fail);
        failed.wait(None).await.unwrap_err();
        // Somebody still holds the failed one.
        let second = flights.join(digest, |_, _| async { Ok(7) });
        assert_eq!(second.wait(None).await.unwrap(), 7);
        let third = flights.join(digest, |_, _| async { Ok(8) });
        assert_eq!(third.wait(None).await.unwrap(), 7);
        let (sender, flag) = tokio::sync::oneshot::channel();
        let endless = flights.join(Digest::of(b"other"), |_, cancelled: Cancelled| async move {
            let _ = sender.send(cancelled);
            std::future::pending().await
        });
        let cancelled = flag.await.unwrap();
        drop(endless);
        assert!(cancelled.load(Ordering::Relaxed));
    }
}
