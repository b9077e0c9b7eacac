//! The guest's clocks. PID 1 has no other crate to ask.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

fn nanos(id: ClockId) -> u64 {
    let now = clock_gettime(id);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Milliseconds that only go forward; every deadline is one of these.
pub fn monotonic_ms() -> u64 {
    nanos(ClockId::Monotonic) / 1_000_000
}

/// Milliseconds since the kernel started, time asleep included.
pub fn uptime_ms() -> u64 {
    nanos(ClockId::Boottime) / 1_000_000
}

/// Nanoseconds since the Unix epoch, as far as the host has told.
pub fn realtime_ns() -> u64 {
    nanos(ClockId::Realtime)
}

pub fn set_realtime(unix_ns: u64) -> rustix::io::Result<()> {
    let seconds = i64::try_from(unix_ns / 1_000_000_000).unwrap_or(i64::MAX);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: (unix_ns % 1_000_000_000) as _ })
}

/// Sleeps; only for steps where nothing else can be done meanwhile.
pub fn nap(ms: u64) {
    let time = Timespec { tv_sec: (ms / 1000) as _, tv_nsec: (ms % 1000 * 1_000_000) as _ };
    let _ = rustix::thread::nanosleep(&time);
}
