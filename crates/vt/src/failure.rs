//! What a command ends with when it did not do its work: one error, one exit code.

use model::{Code, Error};
use serde_json::{Value, json};

/// Exit code of a refused command line.
pub const EXIT_USAGE: u8 = 2;
/// `vt exec` failed by itself; other codes are the guest's.
pub const EXIT_EXEC: u8 = 125;
/// `vt plan` found changes.
pub const EXIT_CHANGES: u8 = 10;
/// Ctrl-C.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Why a command did not do its work.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    /// As the server stated it, where it did; else the code's own.
    pub number: Option<String>,
    pub request_id: Option<String>,
    pub retryable: Option<bool>,
    /// Instead of the code's own exit code.
    pub exit: Option<u8>,
}

/// A command's exit code, or why it failed.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error::new(code, message).into()
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Some(EXIT_USAGE), ..Self::new(Code::InvalidArgument, message) }
    }

    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.error.why = why.into();
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hint = hint.into();
        self
    }

    pub fn exit(mut self, exit: u8) -> Self {
        self.exit = Some(exit);
        self
    }

    pub fn exit_code(&self) -> u8 {
        self.exit.unwrap_or_else(|| self.error.code.exit_code())
    }

    pub fn number(&self) -> &str {
        self.number.as_deref().unwrap_or(self.error.code.number())
    }

    /// Reads an RFC 9457 problem document. `None` when it is not one of ours.
    pub fn from_problem(problem: &Value) -> Option<Self> {
        let text = |key: &str| problem.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let optional = |key: &str| problem.get(key).and_then(Value::as_str).map(str::to_owned);
        let code: Code = serde_json::from_value(problem.get("code")?.clone()).ok()?;
        let message = optional("detail").or_else(|| optional("message")).or_else(|| optional("title"))?;
        let error = Error {
            code,
            message,
            why: text("why"),
            hint: text("hint"),
            field: optional("field"),
            reason: optional("reason"),
            event: problem.get("event").and_then(Value::as_u64),
        };
        let retryable = problem.get("retryable").and_then(Value::as_bool);
        Some(Self { error, number: optional("number"), request_id: optional("request_id"), retryable, exit: None })
    }

    pub fn to_json(&self) -> Value {
        let error = &self.error;
        json!({
            "code": error.code.word(),
            "number": self.number(),
            "message": error.message,
            "why": error.why,
            "hint": error.hint,
            "field": error.field,
            "reason": error.reason,
            "event": error.event,
            "request_id": self.request_id,
            "retryable": self.retryable.unwrap_or(error.code.retryable()),
        })
    }

    /// For people, as several lines without colour codes.
    pub fn render(&self) -> String {
        use std::fmt::Write as _;
        let error = &self.error;
        let mut out = format!("error[{}]: {}\n", self.number(), error.message);
        let mut line = |word: &str, text: &str| {
            if !text.is_empty() {
                let mut lines = text.lines();
                let _ = writeln!(out, "  {word:<5} {}", lines.next().unwrap_or_default());
                lines.for_each(|more| {
                    let _ = writeln!(out, "        {more}");
                });
            }
        };
        let why = match error.event {
            Some(event) if error.why.is_empty() => format!("event {event}"),
            Some(event) => format!("{} (event {event})", error.why),
            None => error.why.clone(),
        };
        line("why:", &why);
        line("try:", &error.hint);
        if matches!(error.code, Code::Internal) {
            line("asked:", self.request_id.as_deref().unwrap_or_default());
        }
        let topic = error.reason.as_deref().filter(|reason| crate::explain::knows(reason)).unwrap_or(self.number());
        line("docs:", &format!("vt explain {topic}"));
        out
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, number: None, request_id: None, retryable: None, exit: None }
    }
}

impl From<anyhow::Error> for Failure {
    /// A model error anywhere in the chain keeps its code; the rest is `failed`.
    fn from(error: anyhow::Error) -> Self {
        if let Some(known) = error.chain().find_map(|cause| cause.downcast_ref::<Error>()) {
            return known.clone().into();
        }
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        Self::new(Code::Failed, error.to_string()).why(causes.join(": "))
    }
}

impl From<image::Error> for Failure {
    fn from(error: image::Error) -> Self {
        let code = match error.code() {
            image::error::code::IMAGE_TOO_LARGE => Code::TooLarge,
            _ => Code::Failed,
        };
        Error::new(code, error.to_string()).hint(error.hint()).reason(error.code()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_document_keeps_everything_it_says() {
        let problem = json!({
            "type": "about:blank#VT2304", "title": "unplaceable", "status": 409,
            "detail": "no node can hold web-2", "code": "unplaceable", "number": "VT2304",
            "why": "it needs 2.0 GiB; the best node, n3, has 1.4 GiB free", "hint": "vt scale web=1        or  vt join on another machine",
            "event": 8812, "request_id": "req_1", "retryable": false,
        });
        let failure = Failure::from_problem(&problem).unwrap();
        assert_eq!(failure.exit_code(), 6);
        insta::assert_snapshot!(failure.render(), @r"
        error[VT2304]: no node can hold web-2
          why:  it needs 2.0 GiB; the best node, n3, has 1.4 GiB free (event 8812)
          try:  vt scale web=1        or  vt join on another machine
          docs: vt explain VT2304
        ");
        assert_eq!(failure.to_json()["request_id"], "req_1");
        assert!(Failure::from_problem(&json!({ "title": "not ours" })).is_none());
    }
}
