//! What the end of a call says: did the cluster refuse, is it away, is it worth asking again.
//!
//! etcd's messages are part of its protocol: its own client knows errors by them. Source: etcd,
//! `etcdserver/api/v3rpc/rpctypes/error.go`, release 3.4 to 3.6.

use tonic::{Code, ConnectError, Status};

pub(crate) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub(crate) const FUTURE_REVISION: &str = "etcdserver: mvcc: required revision is a future revision";
pub(crate) const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
pub(crate) const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
pub(crate) const LEASE_EXISTS: &str = "etcdserver: lease already exists";
pub(crate) const LEASE_TTL: &str = "etcdserver: too large lease TTL";
pub(crate) const KEY_NOT_FOUND: &str = "etcdserver: key not found";
pub(crate) const DUPLICATE_KEY: &str = "etcdserver: duplicate key given in txn request";
pub(crate) const TOO_MANY_OPS: &str = "etcdserver: too many operations in txn request";
pub(crate) const REQUEST_TOO_LARGE: &str = "etcdserver: request is too large";
pub(crate) const TOO_MANY_REQUESTS: &str = "etcdserver: too many requests";
pub(crate) const AUTH_NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

const NO_LEADER: &str = "etcdserver: no leader";
/// Told to linearizable reads alone.
const LEADER_CHANGED: &str = "etcdserver: leader changed";
/// The member knew no leader to hand the request to, or one that is just handing over.
const PROPOSAL_DROPPED: &str = "raft proposal dropped";
/// "request timed out", with or without a guess at why.
const TIMED_OUT: &str = "etcdserver: request timed out";
const TOKEN_INVALID: &str = "etcdserver: invalid auth token";
/// Users or roles changed since the token was given.
const TOKEN_OLD: &str = "etcdserver: revision of auth store is old";
/// The call carried no token, and the cluster wants one.
const TOKEN_MISSING: &str = "etcdserver: user name is empty";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// Never sent: there was no connection.
    Unreachable,
    /// The connection broke, or the member stopped, after the call was sent.
    Broken,
    /// Refused, because the member knows no leader.
    NoLeader,
    /// Refused, because the token is missing or no longer good.
    Token,
    TimedOut,
    /// The cluster's word.
    Refused,
}

impl Told {
    pub fn by(status: &Status) -> Self {
        let mut source = std::error::Error::source(status);
        if source.is_some() {
            // The transport's own error: a server's comes without a source.
            while let Some(error) = source {
                if error.is::<ConnectError>() {
                    return Self::Unreachable;
                }
                source = error.source();
            }
            return Self::Broken;
        }
        match status.message() {
            NO_LEADER | LEADER_CHANGED | PROPOSAL_DROPPED => return Self::NoLeader,
            TOKEN_INVALID | TOKEN_OLD | TOKEN_MISSING => return Self::Token,
            message if message.starts_with(TIMED_OUT) => return Self::TimedOut,
            _ => {}
        }
        match status.code() {
            Code::Unauthenticated => Self::Token,
            Code::DeadlineExceeded => Self::TimedOut,
            Code::Unavailable | Code::Cancelled | Code::Aborted => Self::Broken,
            _ => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood() {
        for (status, told) in [
            (Status::unavailable(NO_LEADER), Told::NoLeader),
            (Status::unknown(PROPOSAL_DROPPED), Told::NoLeader),
            (Status::unauthenticated(TOKEN_INVALID), Told::Token),
            (Status::invalid_argument(TOKEN_OLD), Told::Token),
            (Status::unavailable("etcdserver: request timed out, possibly due to connection lost"), Told::TimedOut),
            (Status::deadline_exceeded("context deadline exceeded"), Told::TimedOut),
            (Status::unavailable("etcdserver: server stopped"), Told::Broken),
            (Status::out_of_range(COMPACTED), Told::Refused),
            (Status::from_error(Box::new(ConnectError("refused".into()))), Told::Unreachable),
            (Status::from_error("cut".into()), Told::Broken),
        ] {
            assert_eq!(Told::by(&status), told, "{status:?}");
        }
    }
}
