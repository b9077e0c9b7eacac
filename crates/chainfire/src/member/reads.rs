//! Reads that see everything that was answered before them.
//!
//! The leader makes sure that it still leads, by asking a quorum, and tells how far the log was committed; whoever has
//! applied that much may answer. All reads that wait share one such round; those that come while it is under way share
//! the next.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::RaftError;
use parking_lot::Mutex;
use store::Error;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::Core;
use super::peer::wire::{Answered, Lane, Question};
use super::peers::Peers;
use super::standing::{Route, Standing};
use crate::state::Reader;

/// Between two attempts while there is no leader to be found.
const RETRY: Duration = Duration::from_millis(20);

/// Reads that wait.
const WAITING_MAX: usize = 256 * 1024;

pub struct Reads {
    core: Core,
    standing: Arc<Standing>,
    peers: Arc<Peers>,
    reader: Reader,
    limit: Duration,
    gate: Mutex<Gate>,
}

#[derive(Default)]
struct Gate {
    running: bool,
    waiting: Vec<oneshot::Sender<Result<u64, Error>>>,
    closed: bool,
}

impl Reads {
    pub fn new(core: Core, standing: Arc<Standing>, peers: Arc<Peers>, reader: Reader, limit: Duration) -> Arc<Self> {
        Arc::new(Self { core, standing, peers, reader, limit, gate: Mutex::default() })
    }

    /// Waits until the state here has everything that was answered, anywhere, before this was called.
    ///
    /// Errors: [`Error::NoLeader`], [`Error::TimedOut`], [`Error::Overloaded`], [`Error::Closed`].
    pub async fn catch_up(self: &Arc<Self>) -> Result<(), Error> {
        if self.standing.is_alone() {
            return Ok(());
        }
        let caught_up = async {
            let index = self.index().await?;
            self.reader.wait_applied(index).await.map(drop)
        };
        timeout(self.limit, caught_up).await.unwrap_or(Err(Error::TimedOut))
    }

    /// Of the entry of the log that has to be applied.
    pub async fn index(self: &Arc<Self>) -> Result<u64, Error> {
        if self.standing.is_forsaken() {
            return Err(Error::NoLeader);
        }
        let answer = {
            let gate = &mut *self.gate.lock();
            if gate.closed {
                return Err(Error::Closed);
            }
            if gate.waiting.len() >= WAITING_MAX {
                return Err(Error::Overloaded);
            }
            let (waiting, answer) = oneshot::channel();
            gate.waiting.push(waiting);
            if !gate.running {
                gate.running = true;
                tokio::spawn(self.clone().run());
            }
            answer
        };
        answer.await.unwrap_or(Err(Error::Closed))
    }

    pub fn close(&self) {
        let gate = &mut *self.gate.lock();
        gate.closed = true;
        gate.waiting.clear();
    }

    /// Rounds, as long as anybody waits for one.
    async fn run(self: Arc<Self>) {
        loop {
            let waiting = {
                let gate = &mut *self.gate.lock();
                if gate.waiting.is_empty() {
                    gate.running = false;
                    return;
                }
                std::mem::take(&mut gate.waiting)
            };
            let index = self.round().await;
            for waiting in waiting {
                let _ = waiting.send(index.clone());
            }
        }
    }

    async fn round(&self) -> Result<u64, Error> {
        let begun = Instant::now();
        loop {
            match self.standing.route() {
                Route::Here => match self.core.get_read_linearizer(ReadPolicy::ReadIndex).await {
                    Ok(linearizer) => return Ok(linearizer.read_log_id().index()),
                    Err(RaftError::Fatal(_)) => return Err(Error::Closed),
                    Err(RaftError::APIError(_)) => {}
                },
                Route::There(leader) => {
                    let link = self.peers.link(leader, Lane::Talk);
                    // Asking twice does no harm, so a leader that is slow to answer is not waited for long.
                    let limit = self.standing.patience();
                    if let Ok(Answered::ReadIndex(index)) = link.call(Question::ReadIndex, limit).await {
                        return Ok(index);
                    }
                }
                Route::Nobody => {}
            }
            if self.standing.is_forsaken() || begun.elapsed() > self.standing.patience() {
                return Err(Error::NoLeader);
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}
