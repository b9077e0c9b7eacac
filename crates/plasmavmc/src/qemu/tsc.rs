//! The rate of the host's time stamp counter.
//!
//! Under software emulation the guest reads the host's counter, and a kernel without a reference clock must be told
//! how fast it counts.

use std::time::Duration;

use world::Clock;

/// The error of the two readings, about a microsecond, is small against this.
const MEASURE: Duration = Duration::from_millis(50);

/// Counts per millisecond, measured once per process.
pub async fn tsc_khz() -> u64 {
    static RATE: tokio::sync::OnceCell<u64> = tokio::sync::OnceCell::const_new();
    *RATE.get_or_init(measure).await
}

async fn measure() -> u64 {
    let clock = Clock::real();
    // Best of three: a reading that was interrupted half way gives a wrong rate.
    let mut rates = Vec::new();
    for _ in 0..3 {
        let (time, count) = (clock.monotonic(), counter());
        tokio::time::sleep(MEASURE).await;
        let (time, count) = (clock.monotonic().saturating_sub(time), counter().wrapping_sub(count));
        rates.push((u128::from(count) * 1_000_000 / time.as_nanos().max(1)) as u64);
    }
    rates.sort_unstable();
    rates[1]
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and user space may use it unless it was forbidden by
    // prctl(2), which nothing here does.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    Clock::real().monotonic().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rate_is_a_processors() {
        let rate = tsc_khz().await;
        assert!((500_000..10_000_000).contains(&rate), "{rate} kHz");
        assert_eq!(rate, tsc_khz().await);
    }
}
