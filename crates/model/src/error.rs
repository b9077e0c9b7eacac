//! What a caller is told when something was refused or failed.
//!
//! The one error that crosses the API. Each crate has its own `Error` enum at its boundary; where it reaches a caller
//! it is turned into this, once.

use serde::{Deserialize, Serialize};

use crate::reason::Reason;

/// The class of an error. Each has one HTTP status and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    InvalidArgument,
    Unauthenticated,
    Denied,
    NotFound,
    Conflict,
    VersionConflict,
    IdempotencyKeyReuse,
    QuotaExceeded,
    PreconditionFailed,
    TooLarge,
    RateLimited,
    Unplaceable,
    Failed,
    Unavailable,
    ViewBehind,
    DeadlineExceeded,
    Internal,
}

impl Code {
    pub const ALL: [Code; 17] = [
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::Denied,
        Code::NotFound,
        Code::Conflict,
        Code::VersionConflict,
        Code::IdempotencyKeyReuse,
        Code::QuotaExceeded,
        Code::PreconditionFailed,
        Code::TooLarge,
        Code::RateLimited,
        Code::Unplaceable,
        Code::Failed,
        Code::Unavailable,
        Code::ViewBehind,
        Code::DeadlineExceeded,
        Code::Internal,
    ];

    /// The HTTP status of RFC 9110 that carries it.
    pub const fn http_status(self) -> u16 {
        match self {
            Code::InvalidArgument => 400,
            Code::Unauthenticated => 401,
            Code::Denied => 403,
            Code::NotFound => 404,
            Code::Conflict
            | Code::VersionConflict
            | Code::IdempotencyKeyReuse
            | Code::QuotaExceeded
            | Code::Unplaceable => 409,
            Code::PreconditionFailed => 412,
            Code::TooLarge => 413,
            Code::Failed => 422,
            Code::RateLimited => 429,
            Code::Internal => 500,
            Code::Unavailable => 503,
            Code::ViewBehind | Code::DeadlineExceeded => 504,
        }
    }

    /// The CLI's exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Code::InvalidArgument | Code::TooLarge => 2,
            Code::NotFound => 3,
            Code::Unauthenticated => 4,
            Code::Denied | Code::QuotaExceeded | Code::RateLimited => 5,
            Code::Unplaceable => 6,
            Code::ViewBehind | Code::DeadlineExceeded => 7,
            Code::Conflict | Code::VersionConflict | Code::IdempotencyKeyReuse | Code::PreconditionFailed => 8,
            Code::Failed | Code::Unavailable | Code::Internal => 1,
        }
    }

    /// The number people look up with `vt explain`, for example `VT1400`.
    pub const fn number(self) -> &'static str {
        match self {
            Code::InvalidArgument => "VT1400",
            Code::Unauthenticated => "VT1401",
            Code::Denied => "VT1403",
            Code::NotFound => "VT1404",
            Code::Conflict => "VT1409",
            Code::VersionConflict => "VT1410",
            Code::IdempotencyKeyReuse => "VT1411",
            Code::QuotaExceeded => "VT1412",
            Code::PreconditionFailed => "VT1413",
            Code::TooLarge => "VT1414",
            Code::RateLimited => "VT1429",
            Code::Unplaceable => "VT2304",
            Code::Failed => "VT2400",
            Code::Unavailable => "VT1503",
            Code::ViewBehind => "VT1504",
            Code::DeadlineExceeded => "VT1505",
            Code::Internal => "VT1500",
        }
    }

    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Code::RateLimited | Code::Unavailable | Code::ViewBehind | Code::DeadlineExceeded | Code::VersionConflict
        )
    }

    /// The word on the wire, for example `invalid_argument`.
    pub fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// One refusal or failure, as a caller sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub code: Code,
    /// One sentence that names what was refused or failed.
    pub message: String,
    /// Why, where the message alone does not tell. May be empty.
    #[serde(default)]
    pub why: String,
    /// What to do about it. May be empty.
    #[serde(default)]
    pub hint: String,
    /// The field of the request that is wrong, as a path with dots, for example `spec.resources.memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The reason code of the row or engine behind it, for example `image_pull_failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The sequence of the event that decided it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            why: String::new(),
            hint: String::new(),
            field: None,
            reason: None,
            event: None,
        }
    }

    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(Code::InvalidArgument, message) }
    }

    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{what} does not exist, or is not yours"))
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub fn reason(mut self, code: impl Into<String>) -> Self {
        self.reason = Some(code.into());
        self
    }

    /// The same thing as a row's reason.
    pub fn as_reason(&self) -> Reason {
        let code = self.reason.clone().unwrap_or_else(|| self.code.word());
        let message =
            if self.why.is_empty() { self.message.clone() } else { format!("{}: {}", self.message, self.why) };
        Reason::fault(code, message, self.hint.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_its_own_number() {
        let numbers: HashSet<_> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), Code::ALL.len());
        assert_eq!(Code::ViewBehind.word(), "view_behind");
    }
}
