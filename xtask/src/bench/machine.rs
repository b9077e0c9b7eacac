//! What the kernel knows of processes: a machine of the cloud, and the cloud itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// One running machine: how its process was started, and its root image.
pub struct Sample {
    arguments: Vec<String>,
    pub root_image: PathBuf,
}

impl Sample {
    /// The first machine below `data`.
    pub fn read(data: &Path) -> Result<Self> {
        for entry in fs::read_dir(data.join("vms"))? {
            let Ok(text) = fs::read_to_string(entry?.path().join("machine.json")) else { continue };
            let record: Value = serde_json::from_str(&text)?;
            let (Some(pid), Some(image)) = (record["run"]["pid"].as_u64(), record["spec"]["root_image"].as_str())
            else {
                continue;
            };
            let line = fs::read(format!("/proc/{pid}/cmdline")).context("a machine's command line")?;
            let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
            return Ok(Self { arguments: words.collect(), root_image: image.into() });
        }
        anyhow::bail!("no machine runs below {}", data.display())
    }

    /// The word after `flag` on the machine's command line.
    pub fn after(&self, flag: &str) -> Result<&str> {
        let at = self.arguments.iter().position(|word| word == flag);
        let value = at.and_then(|at| self.arguments.get(at + 1));
        value.map(String::as_str).with_context(|| format!("the machine was started without {flag}"))
    }

    pub fn accelerator(&self) -> &str {
        self.after("-accel").map_or("unknown", |value| value.split(',').next().unwrap_or(value))
    }
}

/// Seconds of CPU that a process has used, in user and kernel mode.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("the cloud's process")?;
    // The name in parentheses may hold anything; fields 14 and 15 count from behind it.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |index: usize| rest.split_whitespace().nth(index).and_then(|word| word.parse::<f64>().ok());
    let ticks = field(11).zip(field(12)).context("utime and stime")?;
    // SAFETY: sysconf(3) takes a number and returns one.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok((ticks.0 + ticks.1) / per_second as f64)
}

/// Resident memory of a process, in units of 1,000,000 bytes.
pub fn resident_mb(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).context("the cloud's process")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().context("VmRSS")?;
    Ok(kib * 1024.0 / 1e6)
}

/// The proportional memory of the machines below `data`, in units of 1,000,000 bytes, on average: what several share counts
/// for each of them in part.
pub fn proportional_mb(data: &Path) -> Result<f64> {
    let (mut total, mut count) = (0.0, 0.0);
    for entry in fs::read_dir(data.join("vms"))? {
        let Ok(text) = fs::read_to_string(entry?.path().join("machine.json")) else { continue };
        let record: Value = serde_json::from_str(&text)?;
        let Some(pid) = record["run"]["pid"].as_u64() else { continue };
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("a machine's memory")?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("Pss")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse().context("Pss")?;
        total += kib * 1024.0 / 1e6;
        count += 1.0;
    }
    Ok(total / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured() {
        let own = std::process::id();
        assert!(resident_mb(own).unwrap() > 0.1);
        assert!(cpu_seconds(own).unwrap() >= 0.0);
    }
}
