//! What a test binary said: counts, who skipped and why, who failed and how.

use std::fmt;

use anyhow::Result;

/// Lines of one failed test that are shown; its whole output is in the log.
const FAILURE_LINES_MAX: usize = 120;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Counts {
    /// Counts a step that is no test.
    pub fn step(&mut self, outcome: Result<()>) -> Result<()> {
        if outcome.is_ok() {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
        outcome
    }

    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// One binary's outcome.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    pub counts: Counts,
    /// Test and reason.
    pub skipped: Vec<(String, String)>,
    /// Test and the lines it printed.
    pub failures: Vec<(String, Vec<String>)>,
}

/// Reads the output of a test binary that was run with `--show-output`. `ended_well` is its exit status: a binary that
/// fell over has said no counts and is one failure.
pub fn read(output: &str, ended_well: bool) -> Outcome {
    let mut outcome = Outcome::default();
    let mut said = false;
    let mut failing = false;
    let mut section: Option<(String, Vec<String>)> = None;
    // A binary with a harness of its own says what a test printed before its line, and why it was skipped after it.
    let mut before: Vec<String> = Vec::new();
    let mut fallen: Vec<(String, Vec<String>)> = Vec::new();
    let mut passing: Option<String> = None;
    for line in output.lines() {
        let heading = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        let ends = matches!(line, "successes:" | "failures:") || line.starts_with("test result: ");
        if heading.is_some() || ends {
            close(&mut outcome, section.take(), failing);
        }
        match line {
            "successes:" => failing = false,
            "failures:" => failing = true,
            _ => {}
        }
        if let Some(name) = heading {
            section = Some((name.to_owned(), Vec::new()));
        } else if let Some(result) = line.strip_prefix("test result: ") {
            said = true;
            outcome.counts.passed += number(result, " passed");
            outcome.counts.failed += number(result, " failed");
            // A test that is switched off is not run: that is a skip, and it says no reason.
            outcome.counts.skipped += number(result, " ignored");
        } else if let Some((_, lines)) = &mut section {
            lines.push(line.to_owned());
        } else if let Some((name, end)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            passing = end.starts_with("ok").then(|| name.to_owned());
            if end.starts_with("FAILED") {
                fallen.push((name.to_owned(), std::mem::take(&mut before)));
            }
            before.clear();
        } else if let Some((name, reason)) = passing.take().zip(line.strip_prefix("skipped: ")) {
            outcome.skipped.push((name, reason.to_owned()));
        } else {
            before.push(line.to_owned());
        }
    }
    close(&mut outcome, section, failing);
    if outcome.failures.is_empty() {
        for (name, lines) in fallen {
            close(&mut outcome, Some((name, lines)), true);
        }
    }
    let skipped = outcome.skipped.len().min(outcome.counts.passed);
    outcome.counts.passed -= skipped;
    outcome.counts.skipped += skipped;
    if !ended_well && (!said || outcome.counts.failed == 0) {
        outcome.counts.failed += 1;
        let last = output.lines().rev().take(FAILURE_LINES_MAX).map(str::to_owned).collect::<Vec<_>>();
        outcome.failures.push(("the binary itself".to_owned(), last.into_iter().rev().collect()));
    }
    outcome
}

fn close(outcome: &mut Outcome, section: Option<(String, Vec<String>)>, failing: bool) {
    let Some((name, mut lines)) = section else { return };
    if failing {
        if lines.len() > FAILURE_LINES_MAX {
            // What went wrong is told last.
            lines.drain(..lines.len() - FAILURE_LINES_MAX);
            lines.insert(0, "(more in the log)".to_owned());
        }
        outcome.failures.push((name, lines));
    } else if let Some(reason) = lines.iter().find_map(|line| line.trim().strip_prefix("skipped: ")) {
        outcome.skipped.push((name, reason.to_owned()));
    }
}

/// The number before `word`, or 0.
fn number(text: &str, word: &str) -> usize {
    let before = text.split_once(word).map_or("", |(before, _)| before);
    before.rsplit([' ', ';']).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "\nrunning 4 tests\ntest a ... ok\ntest b ... ok\ntest c ... FAILED\ntest d ... ignored\n\n\
        successes:\n\n---- b stdout ----\nskipped: not root\n\n\nsuccesses:\n    a\n    b\n\nfailures:\n\n\
        ---- c stdout ----\n\nthread 'c' panicked at x.rs:1:\nskipped: no skip, it failed\n\n\nfailures:\n    c\n\n\
        test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    #[test]
    fn passed_failed_and_skipped_are_told_apart() {
        let outcome = read(MIXED, false);
        assert_eq!(outcome.counts, Counts { passed: 1, failed: 1, skipped: 2 });
        assert_eq!(outcome.skipped, [("b".to_owned(), "not root".to_owned())]);
        assert_eq!(outcome.failures.len(), 1);
        assert_eq!(outcome.failures[0].0, "c");
        assert!(outcome.failures[0].1.iter().any(|line| line.contains("panicked")));
        assert_eq!(outcome.counts.to_string(), "1 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn a_harness_of_its_own_is_understood() {
        let text = "running 3 tests\n    vt deploy\ntest path::one ... ok (3 s)\n    vt scale\npanicked: no\ntest path::two ... FAILED (1 s)\n\
            ---- the last words\nhm\ntest path::three ... ok\nskipped: not root\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let outcome = read(text, false);
        assert_eq!(outcome.counts, Counts { passed: 1, failed: 1, skipped: 1 });
        assert_eq!(outcome.skipped, [("path::three".to_owned(), "not root".to_owned())]);
        assert_eq!(
            outcome.failures,
            [("path::two".to_owned(), vec!["    vt scale".to_owned(), "panicked: no".to_owned()])]
        );
    }

    #[test]
    fn a_binary_that_falls_over_is_a_failure() {
        assert_eq!(read("running 3 tests\ntest a ... ok\n", false).counts.failed, 1);
        let whole = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(read(whole, true).counts, Counts { passed: 3, failed: 0, skipped: 0 });
        assert_eq!(read(whole, false).counts.failed, 1, "it said well and ended badly");
    }
}
