//! What codes mean: of errors, and of reasons on rows. Works without a network.

mod errors;
mod reasons;

use model::Code;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// One code.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `VT1404`, or the reason code itself.
    pub code: String,
    /// `not_found`.
    pub name: String,
    /// The exit code that commands end with; none for reasons.
    pub exit: Option<u8>,
    pub means: String,
    /// One sentence each, most likely first.
    pub causes: Vec<String>,
    /// Commands or acts, most useful first.
    pub remedies: Vec<String>,
}

impl Entry {
    fn error(code: Code) -> Self {
        let text = errors::text(code);
        Self {
            code: code.number().to_owned(),
            name: code.word(),
            exit: Some(code.exit_code()),
            means: text.means.to_owned(),
            causes: text.causes.iter().map(|text| (*text).to_owned()).collect(),
            remedies: text.remedies.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    fn reason(reason: &reasons::Reason) -> Self {
        Self {
            code: reason.code.to_owned(),
            name: reason.code.to_owned(),
            exit: None,
            means: reason.means.to_owned(),
            causes: Vec::new(),
            remedies: reason.remedies.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code, "name": self.name, "exit": self.exit,
            "means": self.means, "causes": self.causes, "remedies": self.remedies,
        })
    }

    pub fn render(&self) -> String {
        let mut out = match self.exit {
            Some(exit) => format!("{} {}, exit code {exit}\n\n", self.code, self.name),
            None => format!("{}\n\n", self.code),
        };
        let _ = writeln!(out, "{}", self.means);
        for (title, list) in [("Why it happens:", &self.causes), ("What to do:", &self.remedies)] {
            if !list.is_empty() {
                let _ = writeln!(out, "\n{title}");
                for line in list {
                    let _ = writeln!(out, "  {line}");
                }
            }
        }
        out
    }
}

/// All codes: errors by number, then reasons by name.
pub fn all() -> Vec<Entry> {
    let mut errors: Vec<Entry> = Code::ALL.into_iter().map(Entry::error).collect();
    errors.sort_by(|a, b| a.code.cmp(&b.code));
    errors.extend(reasons::ALL.iter().map(Entry::reason));
    errors
}

/// By number, error word or reason code, in any case.
pub fn find(word: &str) -> Option<Entry> {
    let word = word.trim().to_lowercase();
    all().into_iter().find(|entry| entry.code.to_lowercase() == word || entry.name == word)
}

/// Whether there is something to say about a reason code.
pub fn knows(reason: &str) -> bool {
    reasons::ALL.iter().any(|known| known.code == reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_is_explained_and_no_code_twice() {
        for code in Code::ALL {
            let entry = find(code.number()).unwrap();
            assert!(!entry.means.is_empty() && !entry.remedies.is_empty(), "{}", code.number());
            assert_eq!(find(&code.word()).unwrap().code, code.number());
        }
        let mut codes: Vec<String> = all().into_iter().map(|entry| entry.code).collect();
        let count = codes.len();
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), count);
        assert!(reasons::ALL.windows(2).all(|pair| pair[0].code < pair[1].code), "reasons are in order");
    }
}
