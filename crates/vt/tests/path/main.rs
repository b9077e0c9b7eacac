//! The whole path, on real parts: the `vt` binary, Debian's kernel under QEMU, images made by umoci, a real registry,
//! real clients. Scenarios run one after the other against one cloud, each with an app of its own, because machines
//! under software emulation on two cores are slow beside each other.
//!
//! Not libtest's harness: the cloud has to be torn down when the last scenario has ended, also when one fails.

mod app;
mod bad;
mod cloud;
mod faults;
mod keyspaces;
mod rest;
mod rollout;
mod routes;
#[path = "../scenarios/mod.rs"]
mod scenarios;
mod stores;
mod tenancy;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use cloud::Cloud;
use scenarios::{Named, Outcome};

type Scenario = Named<fn(&Cloud)>;

thread_local! {
    static SKIPPED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A scenario that returns after this was not run, and this is why.
pub fn skip(reason: &str) {
    SKIPPED.set(Some(reason.to_owned()));
}

fn main() -> ExitCode {
    let all = [
        app::ALL,
        bad::ALL,
        rollout::ALL,
        rest::ALL,
        routes::ALL,
        tenancy::ALL,
        keyspaces::ALL,
        faults::ALL,
        stores::ALL,
    ];
    let Some(chosen) = scenarios::chosen(all.concat()) else { return ExitCode::SUCCESS };
    if let Some(reason) = cloud::missing() {
        return scenarios::play(&chosen, |_| Outcome::Skipped(reason.clone()));
    }
    let cloud = Cloud::start();
    let code = scenarios::play(&chosen, |scenario| {
        if catch_unwind(AssertUnwindSafe(|| scenario(&cloud))).is_err() {
            return Outcome::Failed(format!("---- the cloud's last words\n{}", cloud.last_words()));
        }
        SKIPPED.take().map_or(Outcome::Passed, Outcome::Skipped)
    });
    cloud.stop();
    code
}
