//! A node: a machine that runs instances.

mod contract;

pub use contract::{Check, Spec, Status, contract};

use std::collections::BTreeMap;

use async_trait::async_trait;
use model::{Error, Row};
use reconcile::kind::{Demand, read};
use reconcile::{Admission, Admitted, Contract, Kind, Report, Turn, Wish};

use crate::engines::Engines;
use crate::network;

/// Processors are given out this many times over: instances are seldom busy at once.
pub const CPU_OVERCOMMIT: u64 = 4;

pub struct Node {
    pub engines: Option<Engines>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

#[async_trait]
impl Kind for Node {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, _cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let spec: Spec = read("spec", &wish.spec)?;
        Admitted::spec(&spec)
    }

    fn capacity(&self, row: &Row) -> Option<Demand> {
        let spec: Spec = read("spec", &row.spec).ok()?;
        let ready = row.phase == "ready" && !row.deleting();
        ready.then_some(Demand { memory_bytes: spec.memory_bytes, cpu_milli: u64::from(spec.cpus) * 1000 })
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        let Some(engines) = &self.engines else { return Ok(Report::ready()) };
        let (images, table, node) = (engines.images.clone(), turn.table.clone(), turn.row.id.clone());
        // Looks at folders, so away from the tasks that serve.
        let collected = tokio::task::spawn_blocking(move || images.collect(&table, &node)).await;
        match collected.map_err(|error| Error::internal(error.to_string()))? {
            Ok(collected) if collected == crate::images::Collected::default() => {}
            Ok(collected) => tracing::info!(?collected, "what nobody needs any more was removed"),
            Err(error) => tracing::warn!(%error, "images could not be cleaned up"),
        }
        // A bridge or a rule that somebody took away comes back here, at the latest with the next pass.
        network::apply(engines, turn).await?;
        let checks = checks(&engines.network.verify().await.map_err(network::fault)?);
        let facts = engines.machines.facts();
        let status = Status {
            engine: facts.accelerator.to_owned(),
            engine_why: facts.accelerator_why,
            hypervisor: format!("{} {}", facts.engine, facts.engine_version),
            kernel: facts.kernel_version,
            checks,
        };
        let status = serde_json::to_value(status).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Report { status, ..Report::ready() })
    }
}

/// One line per sort of check. The subjects come and go with machines, so only those that are not well are named: a
/// node on which nothing is wrong says the same all the time, and writes nothing.
fn checks(found: &[novanet::Check]) -> Vec<Check> {
    let mut by_name: BTreeMap<&str, Vec<&novanet::Check>> = BTreeMap::new();
    for check in found {
        by_name.entry(check.name).or_default().push(check);
    }
    let line = |(name, checks): (&str, Vec<&novanet::Check>)| {
        let bad: Vec<String> = checks
            .iter()
            .filter(|check| !check.ok)
            .map(|check| format!("{}: {}", check.subject, check.detail))
            .collect();
        let ok = bad.is_empty();
        let what = if ok { "as it should be".to_owned() } else { bad.join("; ") };
        let fix = if ok {
            String::new()
        } else {
            "it is put back within half a minute; if not, look at `vt events`".to_owned()
        };
        Check { name: format!("network {name}"), ok, what, fix }
    };
    by_name.into_iter().map(line).collect()
}
