//! A machine short of memory, without swap, does not fail: it reads its programs from disk over and over, for minutes,
//! before its kernel gives up. This ends the workload earlier.
//!
//! The kernel reports when tasks stood still for half of a second (pressure stall information). That alone may be a busy
//! disk cache, so the workload is ended only when next to nothing can be given back either, three times in a row.
//! (The kernel's own guard against thrashing, `lru_gen/min_ttl_ms`, was tried and kills on plain file copies.)

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::stats::field;

const FILE: &str = "/proc/pressure/memory";
/// Some task stalled for this long of this window, in microseconds.
const TRIGGER: &[u8] = b"some 500000 1000000\0";
/// Free memory and disk cache below this part of the whole are next to nothing. (`MemAvailable` counts slabs that a
/// small machine never gets back.)
const SCARCE_PART: u64 = 16;
const IN_A_ROW: u32 = 3;
/// Reports come at most one a window; further apart they are separate.
const ROW_GAP_MS: u64 = 2_500;

pub struct Pressure {
    file: File,
    row: Row,
}

#[derive(Default)]
struct Row {
    count: u32,
    last_ms: u64,
}

impl Row {
    /// True when it is time to act.
    fn report(&mut self, now_ms: u64, scarce: bool) -> bool {
        if !scarce || now_ms > self.last_ms + ROW_GAP_MS {
            self.count = 0;
        }
        self.last_ms = now_ms;
        if scarce {
            self.count += 1;
        }
        let act = self.count >= IN_A_ROW;
        if act {
            self.count = 0;
        }
        act
    }
}

impl Pressure {
    /// `None` on a kernel that does not report; then the kernel alone decides when memory is out.
    pub fn watch() -> Option<Self> {
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(FILE).ok()?;
        file.write_all(TRIGGER).ok()?;
        Some(Self { file, row: Row::default() })
    }

    /// Raises `PRI` with each report.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// After a report: must the workload end?
    pub fn report(&mut self, now_ms: u64) -> bool {
        self.row.report(now_ms, is_scarce(&fs::read_to_string("/proc/meminfo").unwrap_or_default()))
    }
}

fn is_scarce(meminfo: &str) -> bool {
    let keys = ["MemTotal:", "MemFree:", "Active(file):", "Inactive(file):"];
    match keys.map(|key| field(meminfo, key)) {
        [Some(total), Some(free), Some(active), Some(inactive)] => free + active + inactive < total / SCARCE_PART,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reports_in_a_row_with_nothing_left_count() {
        let mut row = Row::default();
        assert!(!row.report(1_000, true));
        assert!(!row.report(2_000, true));
        assert!(!row.report(3_000, false), "memory was found in between");
        assert!(!row.report(4_000, true));
        assert!(!row.report(5_000, true));
        assert!(!row.report(9_000, true), "too far apart");
        assert!(!row.report(10_000, true));
        assert!(row.report(11_000, true));
        assert!(!row.report(12_000, true), "the next row starts anew");
    }

    #[test]
    fn cache_that_can_be_given_back_is_not_scarcity() {
        let info = |free: u64, file: u64| {
            format!("MemTotal: 1600 kB\nMemFree: {free} kB\nActive(file): {file} kB\nInactive(file): 0 kB\n")
        };
        assert!(is_scarce(&info(50, 49)));
        assert!(!is_scarce(&info(50, 50)));
        assert!(!is_scarce(&info(0, 900)));
        assert!(!is_scarce(""));
    }
}
