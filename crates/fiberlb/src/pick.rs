//! Which backend gets the next request: round robin over those that are well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::backend::Backend;
use crate::config::Limits;

/// The next backend that this request has not tried. Where all of those are avoided, the one whose cooldown ends
/// first is taken all the same: a doubtful answer is better than none.
pub fn pick(
    backends: &[Arc<Backend>],
    cursor: &AtomicUsize,
    tried: &[Arc<Backend>],
    now: Duration,
    limits: &Limits,
) -> Option<Arc<Backend>> {
    if backends.is_empty() {
        return None;
    }
    let start = cursor.fetch_add(1, Ordering::Relaxed) % backends.len();
    let (before, after) = backends.split_at(start);
    let untried = || after.iter().chain(before).filter(|backend| !tried.iter().any(|one| Arc::ptr_eq(one, backend)));
    untried()
        .find(|backend| backend.admit(now, limits))
        .or_else(|| untried().min_by_key(|backend| backend.avoided_until()))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Bell, Flight};

    fn backends(count: usize) -> Vec<Arc<Backend>> {
        (0..count)
            .map(|n| Arc::new(Backend::new("r", &n.to_string(), ([127, 0, 0, 1], 1).into(), Duration::ZERO)))
            .collect()
    }

    fn fail(backend: &Arc<Backend>, now: Duration, limits: &Limits) {
        let bell = Arc::new(Bell { emptied: tokio::sync::Notify::new(), changes: tokio::sync::watch::Sender::new(0) });
        Flight::start(Arc::clone(backend), bell, world::Clock::real()).failed(now, limits, &"test");
    }

    #[test]
    fn everyone_gets_the_same_share() {
        let (backends, cursor, limits) = (backends(3), AtomicUsize::new(0), Limits::default());
        let picked: String =
            (0..6).map(|_| pick(&backends, &cursor, &[], Duration::ZERO, &limits).unwrap().id.clone()).collect();
        assert_eq!(picked, "012012");
    }

    #[test]
    fn the_failed_is_avoided_but_never_the_last() {
        let (backends, cursor, limits) = (backends(2), AtomicUsize::new(0), Limits::default());
        let now = Duration::from_secs(9);
        fail(&backends[0], now, &limits);
        for _ in 0..4 {
            assert_eq!(pick(&backends, &cursor, &[], now, &limits).unwrap().id, "1");
        }
        fail(&backends[1], now + Duration::from_millis(1), &limits);
        assert_eq!(pick(&backends, &cursor, &[], now, &limits).unwrap().id, "0");
        // What this request has tried is not tried again.
        assert_eq!(pick(&backends, &cursor, &backends[..1], now, &limits).unwrap().id, "1");
        assert!(pick(&backends, &cursor, &backends, now, &limits).is_none());
        assert!(pick(&[], &cursor, &[], now, &limits).is_none());
    }
}
