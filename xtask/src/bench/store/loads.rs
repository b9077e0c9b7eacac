//! What is asked of both, and what came of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::cluster::Cluster;
use crate::bench::figures::median;
use crate::run::output;

/// One load with so many clients.
pub struct Load {
    work: &'static str,
    clients: usize,
    /// Few: what is measured is the store, not the number of its sockets.
    connections: usize,
}

const fn load(work: &'static str, clients: usize, connections: usize) -> Load {
    Load { work, clients, connections }
}

pub const LOADS: &[Load] = &[
    load("put", 1, 1),
    load("put", 16, 4),
    load("put", 256, 8),
    load("mixed", 1, 1),
    load("mixed", 16, 4),
    load("mixed", 256, 8),
    load("txn", 1, 1),
    load("txn", 16, 4),
    load("txn", 256, 8),
    load("lease", 1, 1),
    load("lease", 16, 4),
    load("lease", 256, 8),
    load("watch", 16, 4),
];

/// Puts that each of a thousand watchers sees.
const WATCHED_PUTS: u64 = 2000;
const QUICK_WATCHED_PUTS: u64 = 100;
/// The least time of a measured round that is not quick.
const LONG_MS: u64 = 1000;

/// One round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Seen {
    /// Of each figure by itself.
    pub fn median(rounds: &[Seen]) -> Self {
        let of = |field: fn(&Seen) -> f64| median(&mut rounds.iter().map(field).collect::<Vec<_>>());
        Self { per_second: of(|seen| seen.per_second), p50_ms: of(|seen| seen.p50_ms), p99_ms: of(|seen| seen.p99_ms) }
    }

    fn read(answer: &Value, rate: &str) -> Result<Self> {
        let field = |name: &str| answer[name].as_f64().with_context(|| format!("a load says {name}"));
        Ok(Self { per_second: field(rate)?, p50_ms: field("p50_ms")?, p99_ms: field("p99_ms")? })
    }
}

impl Load {
    /// `put_16`, `three_put_16`.
    pub fn name(&self, members: usize) -> String {
        let prefix = if members == 1 { "" } else { "three_" };
        match self.work {
            "watch" => format!("{prefix}watch_1000"),
            work => format!("{prefix}{work}_{}", self.clients),
        }
    }

    pub fn run(&self, vt: &Path, cluster: &Cluster, milliseconds: u64, seed: u64) -> Result<Seen> {
        let (clients, connections) = (self.clients.to_string(), self.connections.to_string());
        let (milliseconds_text, seed) = (milliseconds.to_string(), seed.to_string());
        let mut arguments = vec![self.work, "--clients", &clients, "--connections", &connections, "--seed", &seed];
        let puts = if milliseconds < LONG_MS { QUICK_WATCHED_PUTS } else { WATCHED_PUTS }.to_string();
        if self.work == "watch" {
            arguments.extend(["--watchers", "1000", "--total", &puts]);
            return Seen::read(&ask(vt, cluster, &arguments)?, "events_per_second");
        }
        arguments.extend(["--milliseconds", &milliseconds_text]);
        Seen::read(&ask(vt, cluster, &arguments)?, "calls_per_second")
    }
}

fn ask(vt: &Path, cluster: &Cluster, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(vt);
    command.args(["store", "load"]).args(arguments).args(["--json", "--endpoints", &cluster.endpoints()]);
    Ok(serde_json::from_str(&output(&mut command)?)?)
}

/// `keys` keys that the loads draw from.
pub fn fill(vt: &Path, cluster: &Cluster, keys: u64) -> Result<()> {
    let keys = keys.to_string();
    ask(vt, cluster, &["fill", "--keys", &keys, "--clients", "8", "--connections", "2", "--value-bytes", "100"])
        .map(drop)
}

/// New keys, as the largest load of etcd's own check puts them.
pub fn grow(vt: &Path, cluster: &Cluster, puts: u64) -> Result<Seen> {
    let total = puts.to_string();
    let arguments = ["grow", "--clients", "512", "--connections", "8", "--total", &total];
    let sizes = ["--key-bytes", "256", "--value-bytes", "1024"];
    Seen::read(&ask(vt, cluster, &[&arguments[..], &sizes[..]].concat())?, "calls_per_second")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_has_a_name_of_its_own_and_each_figure_its_median() {
        let mut names: Vec<String> = [1, 3].into_iter().flat_map(|n| LOADS.iter().map(move |l| l.name(n))).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), LOADS.len() * 2);
        let seen = |per_second, p99_ms| Seen { per_second, p50_ms: 1.0, p99_ms };
        let middle = Seen::median(&[seen(1.0, 9.0), seen(3.0, 8.0), seen(2.0, 1.0)]);
        assert!((middle.per_second - 2.0).abs() < 1e-9 && (middle.p99_ms - 8.0).abs() < 1e-9);
    }
}
