//! Numbers of the machine, read when asked for.

use std::fs;

use model::guest::Stats;
use rustix::process::Pid;

use crate::clock;

pub fn read(workload: Option<Pid>, exec_sessions: usize) -> Stats {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = |key: &str| field(&memory, key).unwrap_or(0) * 1024;
    let rss = workload.and_then(|pid| {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
        Some(field(&status, "VmRSS:")? * 1024)
    });
    Stats {
        uptime_ms: clock::uptime_ms(),
        memory_total: kilobytes("MemTotal:"),
        memory_available: kilobytes("MemAvailable:"),
        process_rss: rss.unwrap_or(0),
        cpu_ms: cpu_ms(&fs::read_to_string("/proc/stat").unwrap_or_default()),
        exec_sessions: exec_sessions as u32,
    }
}

/// The number after `key` at the start of a line.
pub fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.split_ascii_whitespace().next()?.parse().ok())
}

/// All but idle and waiting, from ticks of 10 ms.
fn cpu_ms(stat: &str) -> u64 {
    let Some(line) = stat.lines().find(|line| line.starts_with("cpu ")) else {
        return 0;
    };
    let ticks: Vec<u64> = line.split_ascii_whitespace().skip(1).map(|word| word.parse().unwrap_or(0)).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum::<u64>();
    busy * 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        assert_eq!(field("MemTotal:  12 kB\nMemFree: 3 kB\n", "MemFree:"), Some(3));
        assert_eq!(field("", "MemFree:"), None);
        assert_eq!(cpu_ms("cpu  1 2 3 100 50 4 5 0\ncpu0 9\n"), 150);
        let stats = read(Some(rustix::process::getpid()), 2);
        assert!(stats.memory_total > 0 && stats.process_rss > 0);
    }
}
