//! Real members in network namespaces of their own, under faults that a seed decides.
//!
//! `VT_CLUSTER_SEED=N` chooses the seed, `VT_CLUSTER_SECONDS=N` how long each run of faults lasts.

mod faults;
mod lab;

use std::process::ExitCode;

/// A named scenario.
type Scenario = (&'static str, fn() -> anyhow::Result<()>);

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    let scenarios: Vec<&Scenario> = faults::ALL.iter().filter(|(name, _)| chosen(name)).collect();
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in scenarios {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", scenarios.len());
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, scenario) in scenarios {
        if let Some(reason) = lab::missing() {
            println!("test {name} ... ok\nskipped: {reason}");
            passed += 1;
            continue;
        }
        let began = std::time::Instant::now();
        match scenario() {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({} s)", began.elapsed().as_secs());
            }
            Err(error) => {
                println!("test {name} ... FAILED ({} s)\n{error:?}", began.elapsed().as_secs());
                failed.push(*name);
            }
        }
    }
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
