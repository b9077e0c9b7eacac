//! Connections to one backend that wait for their next request.

use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::Upload;
use crate::config::Limits;

pub type Sender = SendRequest<Upload>;

#[derive(Debug, Default)]
pub struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// The latest used last.
    idle: Vec<Idle>,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

impl Pool {
    /// The connection that was used last, if that is no longer ago than `age_max`.
    pub fn take(&self, age_max: Duration, limits: &Limits) -> Option<Sender> {
        let mut state = self.state.lock();
        let now = Instant::now();
        while let Some(idle) = state.idle.pop() {
            let age = now - idle.since;
            if age > limits.pool_idle_timeout || idle.sender.is_closed() {
                continue;
            }
            if age > age_max {
                state.idle.push(idle);
                return None;
            }
            return Some(idle.sender);
        }
        None
    }

    /// Keeps a connection that is ready for another request, unless there are enough or the backend is on its way out.
    pub fn put(&self, sender: Sender, limits: &Limits) {
        let mut state = self.state.lock();
        if !state.closed && state.idle.len() < limits.pool_max && sender.is_ready() {
            state.idle.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Drops all connections and takes no more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.idle = Vec::new();
    }

    pub fn open(&self) {
        self.state.lock().closed = false;
    }

    /// Drops connections that have waited long enough or that the backend has closed.
    pub fn prune(&self, limits: &Limits) {
        let now = Instant::now();
        self.state.lock().idle.retain(|idle| now - idle.since <= limits.pool_idle_timeout && !idle.sender.is_closed());
    }
}
