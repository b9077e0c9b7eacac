//! What can go wrong between host and guest.

use std::io;
use std::path::PathBuf;

use model::guest::FailureCode;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the guest's channel {path} cannot be opened: {source}")]
    Connect { path: PathBuf, source: io::Error },
    #[error("the guest did not report within {seconds} s")]
    Silent { seconds: u64 },
    #[error("the guest's init speaks protocols {guest_min} to {guest_max}, this host {host_min} to {host_max}")]
    ProtocolMismatch { guest_min: u32, guest_max: u32, host_min: u32, host_max: u32 },
    #[error("the guest refused its configuration: {detail}")]
    Refused { code: FailureCode, detail: String },
    #[error("the guest could not be prepared as a template: {why}")]
    NotPrepared { why: String },
    #[error("the guest did not answer {what} within {seconds} s")]
    Timeout { what: &'static str, seconds: u64 },
    #[error("the guest could not start the program: {detail}")]
    ExecRefused { detail: String },
    #[error("{count} sessions are open in this machine, which is the limit")]
    TooManySessions { count: usize },
    #[error("the message is too large: {why}")]
    TooLarge { why: String },
    #[error("the channel to the guest is closed: {why}")]
    Closed { why: String },
}

impl Error {
    /// The stable name of the failure, where the protocol has one.
    pub fn failure(&self) -> Option<FailureCode> {
        match self {
            Self::ProtocolMismatch { .. } => Some(FailureCode::GuestInitProtocolMismatch),
            Self::Refused { code, .. } => Some(*code),
            Self::Connect { .. }
            | Self::Silent { .. }
            | Self::NotPrepared { .. }
            | Self::Timeout { .. }
            | Self::ExecRefused { .. }
            | Self::TooManySessions { .. }
            | Self::TooLarge { .. }
            | Self::Closed { .. } => None,
        }
    }
}
