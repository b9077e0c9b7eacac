//! Everything that proves Photon, from a clean clone, in order; the first step that fails ends it.
//!
//! ```text
//! packages -> floors -> docs -> codegen -> fmt -> clippy -> deny -> build -> tests -> openapi -> guide -> "N passed, N failed, N skipped"
//! ```
//!
//! The last line counts tests, and each of the other steps as one. A test that says `skipped: REASON` counts as skipped.

mod binaries;
mod deny;
mod outcome;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::run::{cargo, show, show_elapsed};
use crate::{codegen, docs, floors, guide, openapi, packages, run};
use outcome::Counts;

/// Environment of tests that would boot real machines: they skip when it is set.
pub const QUICK: &str = "VT_QUICK";

type Work = fn(bool, &mut Counts) -> Result<()>;

/// What is done, in order. A step that a developer in a hurry leaves out has `false`.
const STEPS: &[(&str, bool, Work)] = &[
    ("floors: arrows between crates point down", true, |_, counts| counts.step(floors::floors(false))),
    ("docs: every file that the pages name is there", true, |_, counts| counts.step(docs::docs())),
    ("codegen: the etcd protocol's code is what its sources give", true, |_, counts| {
        counts.step(codegen::codegen(false))
    }),
    ("format", true, |_, counts| counts.step(show(&mut cargo(&["fmt", "--all", "--check"])))),
    ("clippy", true, |_, counts| counts.step(show(&mut cargo(CLIPPY)))),
    ("deny: licenses, bans, sources", false, |_, counts| counts.step(deny::check())),
    ("build", true, |_, counts| counts.step(show(&mut cargo(&["build", "--workspace", "--locked"])))),
    ("tests", true, binaries::run),
    ("openapi: api/openapi.json is what the binary says", true, |_, counts| counts.step(openapi::openapi(false))),
    ("guide: docs/guides/first-app.md, word for word", false, |_, counts| guide(counts)),
];

const CLIPPY: &[&str] = &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];

/// Runs all steps. The last line on standard output is `N passed, N failed, N skipped`.
pub fn test(quick: bool) -> ExitCode {
    let began = Instant::now();
    let mut counts = Counts::default();
    if let Err(error) = steps(quick, &mut counts) {
        println!("\nFAILED: {error:#}");
        counts.failed = counts.failed.max(1);
    }
    println!("\nall of it took {}", show_elapsed(began));
    println!("{counts}");
    if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn steps(quick: bool, counts: &mut Counts) -> Result<()> {
    packages::ensure(&[packages::RUN, packages::SAMPLE, packages::TEST])?;
    for (name, always, work) in STEPS {
        println!("\n== {name}");
        if quick && !always {
            println!("left out by --quick");
            counts.skipped += 1;
            continue;
        }
        let began = Instant::now();
        work(quick, counts)?;
        println!("   {}", show_elapsed(began));
    }
    Ok(())
}

fn guide(counts: &mut Counts) -> Result<()> {
    if !run::is_root() {
        println!("skipped: not root");
        counts.skipped += 1;
        return Ok(());
    }
    counts.step(guide::follow(&run::target().join("debug")))
}
