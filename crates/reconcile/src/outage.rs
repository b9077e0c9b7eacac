//! Is the store there? One place that knows, so that nobody has to find out by failing.
//!
//! ```text
//!   a turn, the scheduler, a request ── suspect ──▶ the follower of rows reads all rows again
//!   a look now and then that is not answered ────▶   it cannot:  away, since when and why; tried again until it can
//!                                                    it can:     there; turns that waited go on with rows that are up to date
//! ```

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// The store does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// Milliseconds since the Unix epoch.
    pub since_ms: u64,
    pub why: String,
}

/// Clones share it.
#[derive(Clone, Debug)]
pub struct Outage {
    state: watch::Sender<Option<Away>>,
    suspicion: Arc<Notify>,
}

impl Outage {
    pub(crate) fn new() -> Self {
        Self { state: watch::Sender::new(None), suspicion: Arc::default() }
    }

    /// `None` while the store answers.
    pub fn away(&self) -> Option<Away> {
        self.state.borrow().clone()
    }

    /// Follows the answers of [`Outage::away`].
    pub fn follow(&self) -> watch::Receiver<Option<Away>> {
        self.state.subscribe()
    }

    /// Someone was not answered: it is looked into.
    pub fn suspect(&self) {
        self.suspicion.notify_one();
    }

    pub(crate) async fn suspected(&self) {
        self.suspicion.notified().await;
    }

    /// True when this is news: it was there until now.
    pub(crate) fn began(&self, since_ms: u64, why: &str) -> bool {
        self.state.send_if_modified(|state| {
            let news = state.is_none();
            if news {
                *state = Some(Away { since_ms, why: why.to_owned() });
            } else if let Some(away) = state {
                why.clone_into(&mut away.why);
            }
            news
        })
    }

    /// What is over now.
    pub(crate) fn ended(&self) -> Option<Away> {
        self.away().inspect(|_| drop(self.state.send_replace(None)))
    }
}
