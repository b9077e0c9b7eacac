//! Whether a backend that failed is avoided, and for how long. Pure: the caller brings the time.
//!
//! ```text
//!            failure                    cooldown over: one request tries
//!   well ------------> cooling(1 s) ------------------------------------> trying
//!    ^                    ^                                                 |  |
//!    |                    +---------------- failure (cooldown doubles) -----+  |
//!    +---------------------------------------------------- success ------------+
//! ```

use std::time::Duration;

use crate::config::Limits;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// Failures without a success between them.
    failures: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Well,
    Cooling {
        until: Duration,
    },
    /// One request is trying; the others stay away until it has ended or `until` has passed.
    Trying {
        until: Duration,
    },
}

impl Health {
    /// Whether a request may go here now. The first to ask after a cooldown is the one that tries.
    pub fn admit(&mut self, now: Duration, limits: &Limits) -> bool {
        match self.state {
            State::Well => true,
            State::Cooling { until } | State::Trying { until } if until > now => false,
            State::Cooling { .. } | State::Trying { .. } => {
                self.state = State::Trying { until: now + limits.connect_timeout };
                true
            }
        }
    }

    /// A backend answered. Returns whether that changed anything.
    pub fn succeeded(&mut self) -> bool {
        let changed = self.state != State::Well;
        *self = Self::default();
        changed
    }

    /// A backend failed. Of many that fail together only the first counts. Returns whether that changed anything.
    pub fn failed(&mut self, now: Duration, limits: &Limits) -> bool {
        if let State::Cooling { until } = self.state
            && until > now
        {
            return false;
        }
        let doubled = 2_u32.saturating_pow(self.failures.min(31));
        let cooldown = limits.cooldown_min.saturating_mul(doubled).min(limits.cooldown_max);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Cooling { until: now + cooldown };
        true
    }

    /// Until when it is avoided, on the clock of `now`; `None` when it is well.
    pub fn avoided_until(&self) -> Option<Duration> {
        match self.state {
            State::Well => None,
            State::Cooling { until } | State::Trying { until } => Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn cooldown_doubles_to_its_limit_and_success_resets_it() {
        let limits = Limits::default();
        let mut health = Health::default();
        let mut now = s(100);
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300] {
            assert!(health.admit(now, &limits));
            assert!(health.failed(now, &limits));
            assert_eq!(health.avoided_until(), Some(now + s(expected)));
            assert!(!health.admit(now + s(expected - 1) + Duration::from_millis(999), &limits));
            now += s(expected);
        }
        assert!(health.admit(now, &limits));
        assert!(health.succeeded());
        assert!(!health.succeeded());
        assert_eq!(health.avoided_until(), None);
        health.failed(now, &limits);
        assert_eq!(health.avoided_until(), Some(now + s(1)));
    }

    #[test]
    fn failures_that_come_together_count_once() {
        let limits = Limits::default();
        let mut health = Health::default();
        assert!(health.failed(s(0), &limits));
        for _ in 0..100 {
            assert!(!health.failed(Duration::from_millis(1), &limits));
        }
        assert_eq!(health.avoided_until(), Some(s(1)));
    }

    #[test]
    fn one_request_tries_and_the_others_stay_away() {
        let limits = Limits::default();
        let mut health = Health::default();
        health.failed(s(0), &limits);
        assert!(health.admit(s(1), &limits));
        assert!(!health.admit(s(1), &limits));
        assert!(!health.admit(s(2), &limits));
        // The one that tried was never heard of again.
        assert!(health.admit(s(3), &limits));
        assert!(health.failed(s(3), &limits));
        assert_eq!(health.avoided_until(), Some(s(5)));
    }
}
