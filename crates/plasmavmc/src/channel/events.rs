//! What happened in the guest, in order and without gaps as long as the reader keeps within the history.

use std::collections::VecDeque;
use std::sync::Arc;

use model::guest::Numbered;
use tokio::sync::broadcast::{self, error::RecvError};

use super::shared::{EVENTS_MAX, Shared};

pub struct Events {
    shared: Arc<Shared>,
    backlog: VecDeque<Numbered>,
    live: broadcast::Receiver<Numbered>,
    next: u64,
}

impl Events {
    pub(super) fn new(shared: &Arc<Shared>, from: u64) -> Self {
        let mut events =
            Self { shared: Arc::clone(shared), backlog: VecDeque::new(), live: shared.live.subscribe(), next: from };
        events.refill();
        events
    }

    fn refill(&mut self) {
        // One lock for history and broadcast: nothing falls between the two.
        let history = self.shared.history.lock();
        self.live = self.shared.live.subscribe();
        self.backlog = history.iter().filter(|event| event.seq >= self.next).cloned().collect();
    }

    /// The next event; `None` when the connection has ended and all its events were given.
    pub async fn next(&mut self) -> Option<Numbered> {
        loop {
            if let Some(event) = self.backlog.pop_front() {
                self.next = event.seq + 1;
                return Some(event);
            }
            let mut closed = self.shared.closed.subscribe();
            tokio::select! {
                biased;
                received = self.live.recv() => match received {
                    Ok(event) if event.seq >= self.next => {
                        self.next = event.seq + 1;
                        return Some(event);
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.refill(),
                    Err(RecvError::Closed) => return None,
                },
                _ = closed.wait_for(Option::is_some) => {
                    // What came together with the end is given before the end is told.
                    self.refill();
                    if self.backlog.is_empty() {
                        return None;
                    }
                }
            }
        }
    }
}

impl Shared {
    pub(super) fn publish(&self, event: Numbered) {
        let mut history = self.history.lock();
        if history.len() >= EVENTS_MAX {
            history.pop_front();
        }
        history.push_back(event.clone());
        let _ = self.live.send(event);
    }
}
