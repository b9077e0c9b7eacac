//! What this machine is fit for, looked at without changing anything.

mod checks;

use std::path::Path;

use serde_json::{Value, json};

use crate::output::table::grid;
use crate::output::text;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Good,
    /// It works, less well.
    Note,
    /// A cloud cannot run before this is mended.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub name: String,
    pub state: State,
    pub what: String,
    /// How to mend it; empty when good.
    pub fix: String,
}

impl Finding {
    pub fn good(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Good, what: what.into(), fix: String::new() }
    }

    pub fn note(name: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Note, what: what.into(), fix: fix.into() }
    }

    pub fn bad(name: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Bad, what: what.into(), fix: fix.into() }
    }

    pub fn to_json(&self) -> Value {
        let state = match self.state {
            State::Good => "ok",
            State::Note => "note",
            State::Bad => "missing",
        };
        json!({ "name": self.name, "state": state, "what": self.what, "fix": self.fix })
    }
}

/// Everything that a cloud needs of a machine. With `running`, its ports are its own.
pub async fn look(data_dir: Option<&Path>, running: bool) -> Vec<Finding> {
    checks::all(data_dir, running).await
}

/// True when nothing has to be mended first.
pub fn fit(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Bad)
}

/// One line each, with how to mend what is wrong.
pub fn render(findings: &[Finding], running: bool) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let mark = match finding.state {
            State::Good => "ok",
            State::Note => "note",
            State::Bad => "MISSING",
        };
        lines.push(vec![mark.to_owned(), finding.name.clone(), text::clean(&finding.what)]);
        if !finding.fix.is_empty() {
            lines.push(vec![String::new(), String::new(), format!("try: {}", text::clean(&finding.fix))]);
        }
    }
    let bad = findings.iter().filter(|finding| finding.state == State::Bad).count();
    let end = match bad {
        0 if running => "nothing is missing".to_owned(),
        0 => "this machine can run a cloud: vt up".to_owned(),
        1 => "one thing is missing".to_owned(),
        more => format!("{more} things are missing"),
    };
    format!("{}\n{end}\n", grid(lines))
}

/// The good ones on one line each without how, the others with it.
pub fn summary(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        lines.push(vec![finding.name.clone(), text::clean(&finding.what)]);
        if !finding.fix.is_empty() {
            lines.push(vec![String::new(), format!("try: {}", text::clean(&finding.fix))]);
        }
    }
    grid(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_come_with_their_fix() {
        let findings = [
            Finding::good("memory", "7.6 GiB, 6.1 GiB free"),
            Finding::note(
                "kvm",
                "there is no /dev/kvm: guests are emulated, many times slower",
                "turn virtualisation on",
            ),
            Finding::bad("nft", "not installed", "apt-get install nftables"),
        ];
        assert!(!fit(&findings));
        insta::assert_snapshot!(render(&findings, false), @r"
        ok       memory  7.6 GiB, 6.1 GiB free
        note     kvm     there is no /dev/kvm: guests are emulated, many times slower
                         try: turn virtualisation on
        MISSING  nft     not installed
                         try: apt-get install nftables

        one thing is missing
        ");
    }
}
