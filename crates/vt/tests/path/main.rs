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
mod rollout;
mod routes;
mod stores;
mod tenancy;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use cloud::Cloud;

/// A named scenario.
type Scenario = (&'static str, fn(&Cloud));

thread_local! {
    static SKIPPED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A scenario that returns after this was not run, and this is why.
pub fn skip(reason: &str) {
    SKIPPED.set(Some(reason.to_owned()));
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let scenarios: Vec<Scenario> =
        [app::ALL, bad::ALL, rollout::ALL, routes::ALL, tenancy::ALL, keyspaces::ALL, faults::ALL, stores::ALL]
            .concat();
    let listed = || {
        scenarios.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str())))
    };
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in listed() {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", listed().count());
    if let Some(reason) = cloud::missing() {
        // Counted as skipped, each with the reason.
        for (name, _) in listed() {
            println!("test {name} ... ok\nskipped: {reason}");
        }
        println!("\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n", listed().count());
        return ExitCode::SUCCESS;
    }
    let cloud = Cloud::start();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, scenario) in listed() {
        let began = std::time::Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| scenario(&cloud)));
        let seconds = began.elapsed().as_secs();
        if outcome.is_ok() {
            passed += 1;
            println!("test {name} ... ok ({seconds} s)");
            if let Some(reason) = SKIPPED.take() {
                println!("skipped: {reason}");
            }
        } else {
            println!("test {name} ... FAILED ({seconds} s)");
            println!("---- the cloud's last words\n{}", cloud.last_words());
            failed.push(*name);
        }
    }
    cloud.stop();
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out\n",
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
