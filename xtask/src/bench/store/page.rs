//! What was measured: as a table, as JSON, as a section of docs/benchmarks.md.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::loads::Seen;
use crate::bench::figures::{PAGE, commit};
use crate::run::{self, output};

/// Ours over etcd's.
const THROUGHPUT_MIN: f64 = 2.0;
const LATENCY_MAX: f64 = 0.5;
const MEMORY_MAX: f64 = 0.5;
const RESTART_MAX: f64 = 0.5;

/// One load on both.
pub struct Row {
    pub name: String,
    pub etcd: Seen,
    pub own: Seen,
}

pub struct Page {
    etcd: String,
    quick: bool,
    pub rows: Vec<Row>,
    /// Puts, and what was resident after them, in units of 1,000,000 bytes: etcd's, ours.
    pub memory: Option<(u64, [f64; 2])>,
    /// Keys, and seconds: etcd's, ours.
    pub restart: Option<(u64, [f64; 2])>,
}

fn mark(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

impl Row {
    fn throughput(&self) -> f64 {
        self.own.per_second / self.etcd.per_second
    }

    fn p99(&self) -> f64 {
        self.own.p99_ms / self.etcd.p99_ms
    }

    pub fn line(&self) -> String {
        let one = |seen: &Seen| format!("{:>9.0}/s {:>7.2} / {:>7.2} ms", seen.per_second, seen.p50_ms, seen.p99_ms);
        format!(
            "{:<18} etcd {}   ours {}   {:>5.2}x {:<6} p99 {:>5.2}x {}",
            self.name,
            one(&self.etcd),
            one(&self.own),
            self.throughput(),
            mark(self.throughput() >= THROUGHPUT_MIN),
            self.p99(),
            mark(self.p99() <= LATENCY_MAX),
        )
    }
}

impl Page {
    pub fn new(etcd: &str, quick: bool) -> Self {
        Self { etcd: etcd.to_owned(), quick, rows: Vec::new(), memory: None, restart: None }
    }

    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(&self.to_json()?)?);
            return Ok(());
        }
        for row in &self.rows {
            println!("{}", row.line());
        }
        if let Some((puts, [etcd, own])) = self.memory {
            let ratio = own / etcd;
            println!(
                "memory after {puts} puts: etcd {etcd:.0} MB, ours {own:.0} MB, {ratio:.2}x {}",
                mark(ratio <= MEMORY_MAX)
            );
        }
        if let Some((keys, [etcd, own])) = self.restart {
            let ratio = own / etcd;
            println!(
                "restart with {keys} keys: etcd {etcd:.2} s, ours {own:.2} s, {ratio:.2}x {}",
                mark(ratio <= RESTART_MAX)
            );
        }
        println!(
            "etcd {}; goals: throughput at least {THROUGHPUT_MIN}, p99, memory and restart at most {LATENCY_MAX} of etcd's",
            self.etcd
        );
        Ok(())
    }

    fn to_json(&self) -> Result<Value> {
        let round = |value: f64| json!((value * 1000.0).round() / 1000.0);
        let (mut all, mut goals) = (Map::new(), Map::new());
        for row in &self.rows {
            for (name, value, goal) in
                [("throughput", row.throughput(), THROUGHPUT_MIN), ("p99", row.p99(), LATENCY_MAX)]
            {
                let name = format!("{}_{name}_over_etcd", row.name);
                goals.insert(name.clone(), json!(goal));
                all.insert(name, round(value));
            }
            for (who, seen) in [("etcd", &row.etcd), ("ours", &row.own)] {
                for (name, value) in [("per_second", seen.per_second), ("p50_ms", seen.p50_ms), ("p99_ms", seen.p99_ms)]
                {
                    all.insert(format!("{}_{who}_{name}", row.name), round(value));
                }
            }
        }
        let pairs = [("memory_resident", "mb", self.memory), ("restart", "seconds", self.restart)];
        for (name, unit, pair) in pairs {
            if let Some((_, [etcd, own])) = pair {
                let ratio = format!("{name}_over_etcd");
                goals.insert(ratio.clone(), json!(LATENCY_MAX));
                all.insert(ratio, round(own / etcd));
                all.insert(format!("{name}_etcd_{unit}"), round(etcd));
                all.insert(format!("{name}_ours_{unit}"), round(own));
            }
        }
        all.insert("goals".to_owned(), Value::Object(goals));
        all.insert("etcd".to_owned(), json!(self.etcd));
        all.insert("commit".to_owned(), json!(commit()?));
        Ok(Value::Object(all))
    }

    fn section(&self) -> Result<String> {
        let date = output(Command::new("date").args(["-u", "+%F"]))?;
        let quick = if self.quick { " --quick" } else { "" };
        let mut text = format!(
            "\n### {}, commit {}, etcd {}: `cargo xtask bench store{quick} --write`\n\n\
             | load | etcd /s | ours /s | ours over etcd | etcd p50 / p99 ms | ours p50 / p99 ms | p99 over etcd |\n\
             |---|---|---|---|---|---|---|\n",
            date.trim(),
            commit()?,
            self.etcd
        );
        for row in &self.rows {
            let Row { name, etcd, own, .. } = row;
            let _ = writeln!(
                text,
                "| {name} | {:.0} | {:.0} | **{:.2}** | {:.2} / {:.2} | {:.2} / {:.2} | **{:.2}** |",
                etcd.per_second,
                own.per_second,
                row.throughput(),
                etcd.p50_ms,
                etcd.p99_ms,
                own.p50_ms,
                own.p99_ms,
                row.p99()
            );
        }
        text.push('\n');
        if let Some((puts, [etcd, own])) = self.memory {
            let _ = writeln!(
                text,
                "Resident after {puts} puts of 256 + 1,024 bytes: etcd {etcd:.0} MB, ours {own:.0} MB: **{:.2}**.",
                own / etcd
            );
        }
        if let Some((keys, [etcd, own])) = self.restart {
            let _ =
                writeln!(text, "Restart with {keys} keys: etcd {etcd:.2} s, ours {own:.2} s: **{:.2}**.", own / etcd);
        }
        Ok(text)
    }

    /// Adds a section at the end of the page.
    pub fn write(&self) -> Result<()> {
        let path = run::root().join(PAGE);
        let page = std::fs::read_to_string(&path).context(PAGE)?;
        std::fs::write(&path, format!("{}\n{}", page.trim_end(), self.section()?)).context(PAGE)
    }
}
