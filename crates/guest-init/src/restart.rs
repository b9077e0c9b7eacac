//! What follows an exit of the workload. Pure: data in, decision out.

use model::guest::{Exit, Restart, RestartPolicy};

/// A run this long was no crash; the count starts over.
pub const STABLE_MS: u64 = 60_000;
/// The longest wait, unless the first one is longer already.
const BACKOFF_MAX_MS: u64 = 30_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Restart {
        /// From 1, in a row.
        attempt: u32,
        delay_ms: u64,
        crash_loop: bool,
    },
    /// Ended well and stays ended.
    Complete,
    /// Ended badly and stays ended.
    GiveUp,
}

/// `in_a_row` is the number of restarts since the last stable run; the caller sets it to the decision's `attempt`.
pub fn decide(restart: &Restart, in_a_row: u32, exit: Exit, ran_ms: u64) -> Decision {
    let in_a_row = if ran_ms >= STABLE_MS { 0 } else { in_a_row };
    let again = || {
        let attempt = in_a_row.saturating_add(1);
        Decision::Restart {
            attempt,
            delay_ms: delay_ms(restart.backoff_seconds, in_a_row),
            crash_loop: attempt > restart.max_retries,
        }
    };
    match (restart.policy, exit.success()) {
        (RestartPolicy::Always, _) => again(),
        (RestartPolicy::OnFailure | RestartPolicy::Never, true) => Decision::Complete,
        (RestartPolicy::OnFailure, false) if in_a_row < restart.max_retries => again(),
        (RestartPolicy::OnFailure | RestartPolicy::Never, false) => Decision::GiveUp,
    }
}

fn delay_ms(backoff_seconds: u32, in_a_row: u32) -> u64 {
    let first = u64::from(backoff_seconds) * 1000;
    let doubled = first.saturating_mul(1u64.checked_shl(in_a_row.min(63)).unwrap_or(u64::MAX));
    doubled.min(BACKOFF_MAX_MS.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit { code: Some(code), signal: None, oom: false }
    }

    fn again(attempt: u32, delay_ms: u64, crash_loop: bool) -> Decision {
        Decision::Restart { attempt, delay_ms, crash_loop }
    }

    #[test]
    fn every_policy_meets_every_exit() {
        use RestartPolicy::{Always, Never, OnFailure};
        let killed = Exit { code: None, signal: Some(9), oom: true };
        // policy, restarts in a row, exit, ran for -> decision; max_retries 3, backoff 2 s
        let table = [
            (Always, 0, exit(0), 5, again(1, 2_000, false)),
            (Always, 0, exit(1), 5, again(1, 2_000, false)),
            (Always, 1, exit(1), 5, again(2, 4_000, false)),
            (Always, 2, exit(1), 5, again(3, 8_000, false)),
            (Always, 3, exit(1), 5, again(4, 16_000, true)),
            (Always, 9, killed, 5, again(10, 30_000, true)),
            (Always, 9, exit(1), STABLE_MS, again(1, 2_000, false)),
            (Always, u32::MAX, exit(1), 5, again(u32::MAX, 30_000, true)),
            (OnFailure, 0, exit(0), 5, Decision::Complete),
            (OnFailure, 3, exit(0), 5, Decision::Complete),
            (OnFailure, 0, exit(1), 5, again(1, 2_000, false)),
            (OnFailure, 2, killed, 5, again(3, 8_000, false)),
            (OnFailure, 3, exit(1), 5, Decision::GiveUp),
            (OnFailure, 3, exit(1), STABLE_MS, again(1, 2_000, false)),
            (Never, 0, exit(0), 5, Decision::Complete),
            (Never, 0, exit(1), 5, Decision::GiveUp),
            (Never, 0, killed, STABLE_MS, Decision::GiveUp),
        ];
        for (policy, in_a_row, exit, ran_ms, wanted) in table {
            let restart = Restart { policy, max_retries: 3, backoff_seconds: 2 };
            assert_eq!(decide(&restart, in_a_row, exit, ran_ms), wanted, "{policy:?} {in_a_row} {exit:?} {ran_ms}");
        }
    }

    #[test]
    fn a_long_first_wait_is_kept() {
        assert_eq!(delay_ms(0, 5), 0);
        assert_eq!(delay_ms(120, 5), 120_000);
        assert_eq!(delay_ms(u32::MAX, 63), u64::from(u32::MAX) * 1000);
    }
}
