//! Limits that every engine keeps. Where etcd has the same limit, the number is etcd's default.

/// Longest key.
pub const KEY_BYTES_MAX: usize = 4 * 1024;

/// Keys, values and compared values of one transaction together.
pub const REQUEST_BYTES_MAX: usize = 1536 * 1024;

/// Comparisons, and operations in each branch, of one transaction. A nested transaction has what its parent left over.
pub const TXN_OPS_MAX: usize = 128;

/// A lease granted for less lives this long.
pub const LEASE_TTL_SECONDS_MIN: u64 = 1;

/// Longest lease, about 285 years.
pub const LEASE_TTL_SECONDS_MAX: u64 = 9_000_000_000;

/// Recent revisions that stay in memory for watchers.
pub const FEED_BATCHES_MAX: usize = 4096;

/// Bytes of keys and values that these may hold together.
pub const FEED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Revisions that a watcher reads from history in one go.
pub const HISTORY_BATCHES_MAX: usize = 256;

/// Bytes after which such a read stops early.
pub const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;
