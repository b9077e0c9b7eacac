//! The store, measured beside etcd: the same disk, the same run, the same client, in turns.
//!
//! ```text
//! cluster   one or three members of either, on loopback
//! loads     what is asked of both, and what came of it
//! page      as a table, as JSON, as a section of docs/benchmarks.md
//! ```
//!
//! Client and members share the machine, so the client does as little as it can for each call (`vt store load`).

mod cluster;
mod loads;
mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::figures::median;
use super::machine::resident_mb;
use crate::run::{self, cargo, output, show};
use crate::{interrupt, packages};
use cluster::{Cluster, Kind};
use loads::{LOADS, Load, Seen};
use page::{Page, Row};

/// What the command line said.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub json: bool,
    pub write: bool,
    /// One short round: whether it works, and roughly how fast.
    pub quick: bool,
    /// Instead of the etcd on PATH.
    pub etcd: Option<PathBuf>,
    /// Instead of building one.
    pub vt: Option<PathBuf>,
    /// Only loads whose name holds this.
    pub only: Option<String>,
}

/// Odd, so that the median is one of them.
const ROUNDS: usize = 3;
const MILLISECONDS: u64 = 1800;
const QUICK_MILLISECONDS: u64 = 600;
/// The volume of `etcdctl check perf --load=xl`, as far as an etcd on a small disk comes in its minute: puts of new keys
/// of 256 bytes with values of 1,024.
const GROW_PUTS: u64 = 150_000;
const QUICK_GROW_PUTS: u64 = 15_000;
const RESTART_KEYS: u64 = 1_000_000;
const QUICK_RESTART_KEYS: u64 = 100_000;
const RESTARTS: usize = 3;
/// After a load, before memory is read.
const SETTLE: Duration = Duration::from_secs(2);

pub fn store(options: &Options) -> Result<()> {
    // On standard output only the figures, so that a program can read them.
    let say = |text: &str| eprintln!("{text}");
    packages::ensure(&[packages::STORE])?;
    let vt = match &options.vt {
        Some(vt) => vt.clone(),
        None => {
            say("building vt");
            show(cargo(&["build", "--release", "--locked", "--package", "vt"]).stdout(std::io::stderr()))?;
            run::target().join("release/vt")
        }
    };
    interrupt::listen();
    let folder = run::target().join("bench-store");
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder)?;
    let etcd = options.etcd.clone().unwrap_or_else(|| "etcd".into());
    let bench = Bench { vt, etcd, folder, options, began: Instant::now(), say: &say };
    let mut page = Page::new(&bench.version()?, options.quick);
    let measured = bench.measure(&mut page);
    fs::remove_dir_all(&bench.folder).ok();
    measured?;
    say(&format!("took {}", run::show_elapsed(bench.began)));
    page.print(options.json)?;
    if options.write { page.write() } else { Ok(()) }
}

struct Bench<'a> {
    vt: PathBuf,
    etcd: PathBuf,
    folder: PathBuf,
    options: &'a Options,
    began: Instant,
    say: &'a dyn Fn(&str),
}

impl Bench<'_> {
    fn version(&self) -> Result<String> {
        let text = output(std::process::Command::new(&self.etcd).arg("--version"))?;
        let line = text.lines().next().unwrap_or_default();
        Ok(line.trim_start_matches("etcd Version: ").trim().to_owned())
    }

    fn start(&self, kind: Kind, members: usize, name: &str) -> Result<Cluster> {
        Cluster::start(
            kind,
            self.program(kind),
            &self.vt,
            members,
            &self.folder.join(format!("{name}-{}", kind.name())),
        )
    }

    fn program(&self, kind: Kind) -> &Path {
        match kind {
            Kind::Etcd => &self.etcd,
            Kind::Own => &self.vt,
        }
    }

    fn wanted(&self, name: &str) -> bool {
        self.options.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    fn measure(&self, page: &mut Page) -> Result<()> {
        for members in [1, 3] {
            self.loads(members, page)?;
        }
        if self.wanted("memory") {
            self.memory(page)?;
        }
        if self.wanted("restart") {
            self.restart(page)?;
        }
        Ok(())
    }

    /// Every load on both, in turns.
    fn loads(&self, members: usize, page: &mut Page) -> Result<()> {
        let wanted: Vec<&Load> = LOADS.iter().filter(|load| self.wanted(&load.name(members))).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        (self.say)(&format!("{members} member{}", if members == 1 { "" } else { "s" }));
        let name = format!("loads-{members}");
        let clusters = [self.start(Kind::Etcd, members, &name)?, self.start(Kind::Own, members, &name)?];
        for cluster in &clusters {
            loads::fill(&self.vt, cluster, 10_000)?;
        }
        let (rounds, ms) = if self.options.quick { (1, QUICK_MILLISECONDS) } else { (ROUNDS, MILLISECONDS) };
        for load in wanted {
            let mut seen = [Vec::new(), Vec::new()];
            for round in 0..rounds {
                for (cluster, seen) in clusters.iter().zip(&mut seen) {
                    interrupt::check()?;
                    seen.push(load.run(&self.vt, cluster, ms, round as u64 + 1)?);
                }
            }
            let [etcd, own] = seen.map(|rounds| Seen::median(&rounds));
            let row = Row { name: load.name(members), etcd, own };
            (self.say)(&format!("  {}", row.line()));
            page.rows.push(row);
        }
        for cluster in clusters {
            cluster.stop()?;
        }
        Ok(())
    }

    /// What each member has in memory after a large load.
    fn memory(&self, page: &mut Page) -> Result<()> {
        let puts = if self.options.quick { QUICK_GROW_PUTS } else { GROW_PUTS };
        let mut resident = [0.0; 2];
        for (kind, resident) in [Kind::Etcd, Kind::Own].into_iter().zip(&mut resident) {
            let cluster = self.start(kind, 1, "memory")?;
            let seen = loads::grow(&self.vt, &cluster, puts)?;
            std::thread::sleep(SETTLE);
            *resident = resident_mb(cluster.pids()[0])?;
            (self.say)(&format!(
                "  {}: {puts} puts at {:.0}/s, {resident:.0} MB resident",
                kind.name(),
                seen.per_second
            ));
            cluster.stop()?;
        }
        page.memory = Some((puts, resident));
        Ok(())
    }

    /// From the start of a process to its first answered linearizable read.
    fn restart(&self, page: &mut Page) -> Result<()> {
        let keys = if self.options.quick { QUICK_RESTART_KEYS } else { RESTART_KEYS };
        let mut clusters = Vec::new();
        for kind in [Kind::Etcd, Kind::Own] {
            let mut cluster = self.start(kind, 1, "restart")?;
            loads::fill(&self.vt, &cluster, keys)?;
            cluster.terminate()?;
            clusters.push((cluster, Vec::new()));
        }
        for _ in 0..RESTARTS {
            for (cluster, times) in &mut clusters {
                interrupt::check()?;
                times.push(cluster.restart(&self.vt)?);
                cluster.terminate()?;
            }
        }
        let mut seconds = clusters.into_iter().map(|(_, mut times)| median(&mut times));
        let both = [seconds.next().context("etcd")?, seconds.next().context("ours")?];
        (self.say)(&format!("  restart with {keys} keys: etcd {:.2} s, ours {:.2} s", both[0], both[1]));
        page.restart = Some((keys, both));
        Ok(())
    }
}
