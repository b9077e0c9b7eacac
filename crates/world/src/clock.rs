//! Wall and monotonic time, real or simulated.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A source of time. Cheap to clone; clones of a simulated clock share its time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    simulated: Option<Arc<Simulated>>,
}

#[derive(Debug)]
struct Simulated {
    now_ns: Mutex<u64>,
    moved: Notify,
}

impl Clock {
    /// The machine's own clock.
    pub fn real() -> Self {
        Self { simulated: None }
    }

    /// A clock that stands at `start_ns` nanoseconds after the Unix epoch until [`Clock::advance`] moves it.
    pub fn simulated(start_ns: u64) -> Self {
        Self { simulated: Some(Arc::new(Simulated { now_ns: Mutex::new(start_ns), moved: Notify::new() })) }
    }

    /// Wall time in nanoseconds since the Unix epoch. A machine clock before 1970 reads as 0.
    pub fn now_ns(&self) -> u64 {
        match &self.simulated {
            Some(simulated) => *simulated.now_ns.lock(),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as u64),
        }
    }

    /// Wall time in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ns() / 1_000_000
    }

    /// Wall time as a timestamp for people.
    pub fn timestamp(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(self.now_ns())).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// Monotonic time since an arbitrary point of this process.
    pub fn monotonic(&self) -> Duration {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        match &self.simulated {
            Some(simulated) => Duration::from_nanos(*simulated.now_ns.lock()),
            None => START.get_or_init(Instant::now).elapsed(),
        }
    }

    /// Sleeps for `duration`; on a simulated clock until [`Clock::advance`] has moved it that far.
    pub async fn sleep(&self, duration: Duration) {
        let Some(simulated) = &self.simulated else {
            tokio::time::sleep(duration).await;
            return;
        };
        let until = *simulated.now_ns.lock() + duration.as_nanos() as u64;
        loop {
            let moved = simulated.moved.notified();
            tokio::pin!(moved);
            // Registered before the look, so that an advance between the two is not missed.
            moved.as_mut().enable();
            if *simulated.now_ns.lock() >= until {
                return;
            }
            moved.await;
        }
    }

    /// Moves a simulated clock forward and wakes its sleepers. A real clock does not move: no effect.
    pub fn advance(&self, by: Duration) {
        if let Some(simulated) = &self.simulated {
            *simulated.now_ns.lock() += by.as_nanos() as u64;
            simulated.moved.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_simulated_sleep_ends_when_the_clock_has_moved_far_enough() {
        let clock = Clock::simulated(1_000);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep(Duration::from_secs(5)).await;
                clock.now_ns()
            }
        });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(4));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        assert_eq!(sleeper.await.unwrap(), 5_000_001_000);
    }
}
