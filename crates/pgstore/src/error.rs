//! What the database's errors mean to a caller of the store.
//!
//! Two things decide: what happened, and whether the request could have been committed by then. Before a commit was
//! asked for nothing can have happened; after it, only an error of the database itself says so.

use std::error::Error as _;
use std::sync::Arc;

use store::Error;
use tokio_postgres::error::SqlState;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the address of the PostgreSQL store is wrong: {reason}")]
    Address { reason: String },
    #[error("cannot read {what}: {reason}")]
    Certificate { what: String, reason: String },
    #[error("cannot connect to PostgreSQL: {reason}")]
    Connect { reason: String },
    /// A user, a password or a database that the server does not take: waiting does not help.
    #[error("PostgreSQL does not let the store in: {reason}")]
    Denied { reason: String },
    #[error("PostgreSQL did not answer in time")]
    TimedOut,
    #[error("this server is PostgreSQL {found}, at least {least} is needed")]
    Version { found: String, least: u32 },
    #[error("this server is a standby and takes no writes; name the primary")]
    Standby,
    #[error("this database is set to read only")]
    ReadOnly,
    #[error("schema {schema} holds something else; choose another with ?schema=")]
    Foreign { schema: String },
    #[error("schema {schema} has format {found}, this version reads {known}")]
    Format { schema: String, found: i64, known: i64 },
    #[error("cannot {act}: {reason}")]
    Schema { act: &'static str, reason: String },
}

/// The error and its causes in one line: the client's own words alone are "db error".
pub fn told(error: &tokio_postgres::Error) -> String {
    let mut words = if error.as_db_error().is_some() { String::new() } else { error.to_string() };
    let mut cause = error.source();
    while let Some(error) = cause {
        if !words.is_empty() {
            words.push_str(": ");
        }
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}

impl OpenError {
    pub(crate) fn connecting(error: &tokio_postgres::Error) -> Self {
        let reason = told(error);
        // Class 28 is "invalid authorization specification".
        let denied = error.code().is_some_and(|code| {
            let lacking = [SqlState::INVALID_CATALOG_NAME, SqlState::INSUFFICIENT_PRIVILEGE];
            code.code().starts_with("28") || lacking.contains(code)
        });
        if denied { Self::Denied { reason } } else { Self::Connect { reason } }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// No connection, or the server ended it, or it is starting, stopping or a standby.
    Gone,
    TimedOut,
    DiskFull,
    /// The statement was refused; its transaction is undone.
    Refused,
    /// What came back makes no sense.
    Broken,
}

/// An error of one exchange with the database.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{told}")]
pub struct Failure {
    pub kind: Kind,
    /// The server itself said so, in answer to the statement: it was not done.
    pub from_server: bool,
    told: Arc<str>,
}

impl Failure {
    pub fn timed_out() -> Self {
        Self { kind: Kind::TimedOut, from_server: false, told: "no answer in time".into() }
    }

    pub fn gone(told: &str) -> Self {
        Self { kind: Kind::Gone, from_server: false, told: told.into() }
    }

    pub fn broken(told: impl Into<String>) -> Self {
        Self { kind: Kind::Broken, from_server: false, told: told.into().into() }
    }

    /// While connecting: nothing was asked yet, and there is no session to go on with.
    pub fn at_the_door(self) -> Self {
        Self { from_server: false, ..self }
    }

    /// For a request that cannot have been committed.
    pub fn before(self, act: &'static str) -> Error {
        match self.kind {
            Kind::Gone | Kind::TimedOut => Error::NoLeader,
            Kind::DiskFull => Error::DiskFull,
            Kind::Refused | Kind::Broken => Error::storage(act, self),
        }
    }

    /// For a request that changes nothing.
    pub fn reading(self, act: &'static str) -> Error {
        if self.kind == Kind::TimedOut { Error::TimedOut } else { self.before(act) }
    }

    /// For a request that may have been committed.
    pub fn after(self, act: &'static str) -> Error {
        match self.kind {
            Kind::TimedOut => Error::TimedOut,
            Kind::Gone | Kind::DiskFull | Kind::Refused | Kind::Broken => Error::storage(act, self),
        }
    }

    /// Whether the session can go on.
    pub fn spares_session(&self) -> bool {
        self.from_server && matches!(self.kind, Kind::DiskFull | Kind::Refused)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let kind = match error.code() {
            Some(code) => kind_of(code),
            None if error.is_closed() => Kind::Gone,
            None => match error.source().and_then(|source| source.downcast_ref::<std::io::Error>()) {
                Some(_) => Kind::Gone,
                None => Kind::Broken,
            },
        };
        Self { kind, from_server: error.code().is_some(), told: told(&error).into() }
    }
}

/// Codes: PostgreSQL 15 documentation, appendix A.
fn kind_of(code: &SqlState) -> Kind {
    if *code == SqlState::DISK_FULL {
        return Kind::DiskFull;
    }
    let gone = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::DATABASE_DROPPED,
        SqlState::IDLE_SESSION_TIMEOUT,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::TOO_MANY_CONNECTIONS,
    ];
    // Class 08 is "connection exception".
    if gone.contains(code) || code.code().starts_with("08") {
        return Kind::Gone;
    }
    if *code == SqlState::QUERY_CANCELED || *code == SqlState::LOCK_NOT_AVAILABLE {
        return Kind::TimedOut;
    }
    Kind::Refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surely_was_not_done_may_be_tried_again() {
        assert!(matches!(Failure::gone("x").before("write"), Error::NoLeader));
        assert!(matches!(Failure::timed_out().before("write"), Error::NoLeader));
        assert!(matches!(Failure::timed_out().after("write"), Error::TimedOut));
        assert!(!Failure::gone("x").after("write").is_refusal(), "it may have happened");
    }

    #[test]
    fn codes_are_known_by_what_they_ask_of_the_caller() {
        for (code, kind) in [
            ("53100", Kind::DiskFull),
            ("57P01", Kind::Gone),
            ("57P03", Kind::Gone),
            ("08006", Kind::Gone),
            ("25006", Kind::Gone),
            ("57014", Kind::TimedOut),
            ("55P03", Kind::TimedOut),
            ("23505", Kind::Refused),
        ] {
            assert_eq!(kind_of(&SqlState::from_code(code)), kind, "{code}");
        }
    }
}
