//! Scenarios one after the other, reported as libtest reports its tests.

use std::process::ExitCode;
use std::time::Instant;

/// A scenario and its name.
pub type Named<S> = (&'static str, S);

pub enum Outcome {
    Passed,
    /// Counted as passed; the line after it says why it did not run.
    Skipped(String),
    Failed(String),
}

/// Those that the arguments ask for: all whose name contains one of the words, or all. `None` when they were only to be
/// listed, which is then done.
pub fn chosen<S>(mut all: Vec<Named<S>>) -> Option<Vec<Named<S>>> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    all.retain(|(name, _)| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str())));
    if std::env::args().any(|argument| argument == "--list") {
        for (name, _) in all {
            println!("{name}: test");
        }
        return None;
    }
    println!("\nrunning {} tests", all.len());
    Some(all)
}

pub fn play<S>(scenarios: &[Named<S>], mut one: impl FnMut(&S) -> Outcome) -> ExitCode {
    let mut failed = Vec::new();
    for (name, scenario) in scenarios {
        let began = Instant::now();
        let outcome = one(scenario);
        let seconds = began.elapsed().as_secs();
        match outcome {
            Outcome::Passed => println!("test {name} ... ok ({seconds} s)"),
            Outcome::Skipped(reason) => println!("test {name} ... ok ({seconds} s)\nskipped: {reason}"),
            Outcome::Failed(why) => {
                println!("test {name} ... FAILED ({seconds} s)\n{why}");
                failed.push(*name);
            }
        }
    }
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    let (word, code) = if failed.is_empty() { ("ok", ExitCode::SUCCESS) } else { ("FAILED", ExitCode::FAILURE) };
    let passed = scenarios.len() - failed.len();
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out\n",
        failed.len()
    );
    code
}
