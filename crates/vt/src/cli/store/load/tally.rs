//! How long calls took, in buckets that grow with what they hold.

use std::time::Duration;

/// Buckets for each doubling: a quantile is off by at most 1 in 64.
const PARTS: u64 = 64;
/// Beyond, everything counts as this: 2^40 microseconds are 12 days.
const DOUBLINGS: u64 = 40;

#[derive(Clone)]
pub struct Tally {
    counts: Vec<u64>,
    count: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { counts: vec![0; (PARTS * DOUBLINGS) as usize], count: 0 }
    }
}

fn bucket(us: u64) -> usize {
    if us < PARTS {
        return us as usize;
    }
    let doubling = u64::from(us.ilog2() - PARTS.ilog2());
    let part = (us >> doubling) - PARTS;
    ((doubling + 1) * PARTS + part).min(PARTS * DOUBLINGS - 1) as usize
}

/// The middle of a bucket, in microseconds.
fn middle(bucket: usize) -> f64 {
    let (doubling, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    if doubling == 0 {
        return part as f64 + 0.5;
    }
    (PARTS + part) as f64 * (1_u64 << (doubling - 1)) as f64 + (1_u64 << (doubling - 1)) as f64 / 2.0
}

impl Tally {
    pub fn add(&mut self, took: Duration) {
        self.counts[bucket(took.as_micros() as u64)] += 1;
        self.count += 1;
    }

    pub fn merge(&mut self, other: &Tally) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.count += other.count;
    }

    pub const fn count(&self) -> u64 {
        self.count
    }

    /// In milliseconds: so many of all took no longer.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return middle(at) / 1000.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close_to_the_truth() {
        let mut tally = Tally::default();
        for us in 1..=100_000 {
            tally.add(Duration::from_micros(us));
        }
        for (share, ms) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = tally.quantile_ms(share);
            assert!((found - ms).abs() < ms / 32.0, "{share}: {found}");
        }
        assert!(Tally::default().quantile_ms(0.5).abs() < f64::EPSILON);
        let mut other = Tally::default();
        other.add(Duration::from_secs(100_000_000));
        tally.merge(&other);
        assert_eq!(tally.count(), 100_001);
    }

    #[test]
    fn buckets_do_not_go_back() {
        let mut last = 0;
        for us in (0..2_000_000).step_by(7) {
            assert!(bucket(us) >= last);
            last = bucket(us);
        }
    }
}
