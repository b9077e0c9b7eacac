//! Real members in network namespaces of their own, under faults that a seed decides.
//!
//! `VT_CLUSTER_SEED=N` chooses the seed, `VT_CLUSTER_SECONDS=N` how long each run of faults lasts.

mod faults;
mod lab;
#[path = "../scenarios/mod.rs"]
mod scenarios;

use std::process::ExitCode;

use scenarios::{Named, Outcome};

type Scenario = Named<fn() -> anyhow::Result<()>>;

fn main() -> ExitCode {
    let Some(chosen) = scenarios::chosen(faults::ALL.to_vec()) else { return ExitCode::SUCCESS };
    scenarios::play(&chosen, |scenario| match lab::missing() {
        Some(reason) => Outcome::Skipped(reason),
        None => match scenario() {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("{error:?}")),
        },
    })
}
