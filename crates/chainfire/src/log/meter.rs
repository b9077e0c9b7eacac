//! Counts of what the disk was asked for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in seconds, those of etcd's `etcd_disk_wal_fsync_duration_seconds`.
pub const BOUNDS_SECONDS: [f64; 14] =
    [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];

/// Grows only; each number by itself is exact, together they may be a flush apart.
#[derive(Default)]
pub struct Meter {
    /// By the lowest bound that is not exceeded, the last for what exceeds all.
    syncs: [AtomicU64; BOUNDS_SECONDS.len() + 1],
    sync_ns: AtomicU64,
    written_bytes: AtomicU64,
    entries: AtomicU64,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Measures {
    /// Bound in seconds and how many syncs took at most that long, ascending.
    pub sync_seconds: Vec<(f64, u64)>,
    pub sync_seconds_sum: f64,
    pub syncs: u64,
    /// Bytes handed to the disk, heads and marks counted in.
    pub written_bytes: u64,
    /// Entries written.
    pub entries: u64,
}

impl Meter {
    pub fn sync(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS_SECONDS.partition_point(|bound| *bound < seconds);
        self.syncs[bucket].fetch_add(1, Ordering::Relaxed);
        self.sync_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn write(&self, bytes: usize, entries: usize) {
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.entries.fetch_add(entries as u64, Ordering::Relaxed);
    }

    pub fn read(&self) -> Measures {
        let counts = self.syncs.each_ref().map(|count| count.load(Ordering::Relaxed));
        let mut syncs = 0;
        let sync_seconds = BOUNDS_SECONDS.iter().zip(counts).map(|(bound, count)| {
            syncs += count;
            (*bound, syncs)
        });
        let sync_seconds = sync_seconds.collect();
        Measures {
            sync_seconds,
            sync_seconds_sum: self.sync_ns.load(Ordering::Relaxed) as f64 / 1e9,
            syncs: syncs + counts[BOUNDS_SECONDS.len()],
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            entries: self.entries.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_counts_in_every_bucket_that_is_long_enough() {
        let meter = Meter::default();
        for ms in [1, 3, 9000] {
            meter.sync(Duration::from_millis(ms));
        }
        let measures = meter.read();
        assert_eq!(measures.sync_seconds[..4], [(0.001, 1), (0.002, 1), (0.004, 2), (0.008, 2)]);
        assert_eq!(measures.sync_seconds[13], (8.192, 2));
        assert_eq!((measures.syncs, measures.sync_seconds_sum), (3, 9.004));
    }
}
