//! Why the workload does not run, with the code that people match on.

use std::fmt::Display;

use model::guest::FailureCode;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: FailureCode,
    /// For people: what was tried on what, and what the system said. Never a secret's value.
    pub detail: String,
}

impl Failure {
    pub fn new(code: FailureCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// Names the act beside the system's own words.
pub trait Context<T> {
    fn context(self, code: FailureCode, act: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, code: FailureCode, act: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(code, format!("{act}: {error}")))
    }
}
