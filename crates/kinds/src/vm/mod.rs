//! A machine: one microVM. An instance of an app is a machine owned by a deploy.

mod admit;
mod contract;
mod plan;
mod realize;
mod streams;
#[cfg(test)]
mod tests;

pub use contract::{Address, Bundle, Rest, Spec, State, Status, Wanted, contract};
pub use plan::{DRAIN_MS_MAX, STARTUP_MS_MAX};

use async_trait::async_trait;
use model::{Code, Error, Id, Row};
use reconcile::kind::{Demand, read};
use reconcile::{Admission, Admitted, Contract, Kind, Report, Stream, Turn, Wish};
use serde_json::Value;

use crate::engines::Engines;

pub struct Vm {
    /// Absent where no machines run.
    pub engines: Option<Engines>,
    pulls: realize::Pulls,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").finish_non_exhaustive()
    }
}

impl Vm {
    pub fn new(engines: Option<Engines>) -> Self {
        Self { engines, pulls: realize::Pulls::default() }
    }

    fn engines(&self) -> Result<&Engines, Error> {
        self.engines.as_ref().ok_or_else(|| Error::new(Code::Unavailable, "no machines run in this process"))
    }
}

/// Where a machine answers inside its project's network.
pub fn address_of(row: &Row) -> Option<String> {
    let status: Status = read("status", &row.status).ok()?;
    status.address6.or(status.address4)
}

#[async_trait]
impl Kind for Vm {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        admit::admit(cx, wish).await
    }

    fn demand(&self, row: &Row) -> Option<Demand> {
        let spec: Spec = read("spec", &row.spec).ok()?;
        if spec.state == State::Sleeping && row.phase == "sleeping" {
            return Some(Demand::default());
        }
        // Counted as under software emulation, the dearer of the two: where it fits, it fits everywhere.
        let memory_bytes = plasmavmc::qemu::memory_limit(plasmavmc::qemu::Accelerator::Tcg, spec.memory.bytes());
        Some(Demand { memory_bytes, cpu_milli: (spec.cpu * 1000.0) as u64 })
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        reconcile::turn::drive(self, turn).await
    }

    fn forget(&self, id: &Id) {
        self.pulls.forget(id);
    }

    async fn stream(&self, row: &Row, name: &str, parameters: Value) -> Result<Stream, Error> {
        let engines = self.engines()?;
        match name {
            "logs" => streams::logs(engines, row, &parameters).await,
            "exec" => streams::exec(engines, row, &parameters).await,
            _ => Err(Error::not_found(format!("stream {name}"))),
        }
    }

    fn progress(&self, row: &Row) -> Option<Value> {
        self.pulls.progress(&row.id)
    }
}
