//! What a client is told when a request is refused. Codes and texts are etcd's (`api/v3rpc/rpctypes/error.go`, 3.5):
//! clients compare them.

use store::Error;
use tonic::{Code, Status};

use super::host::MemberError;

/// A refusal with a fixed text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known(pub Code, pub &'static str);

impl From<Known> for Status {
    fn from(known: Known) -> Self {
        Status::new(known.0, known.1)
    }
}

impl Known {
    /// As Go prints such an error, which is how a watch tells why it was cancelled.
    pub fn as_reason(self) -> String {
        format!("rpc error: code = {:?} desc = {}", self.0, self.1)
    }
}

macro_rules! known {
    ($($name:ident $code:ident $text:literal;)*) => {
        $(pub const $name: Known = Known(Code::$code, concat!("etcdserver: ", $text));)*
    };
}

known! {
    KEY_EMPTY InvalidArgument "key is not provided";
    KEY_NOT_FOUND InvalidArgument "key not found";
    VALUE_PROVIDED InvalidArgument "value is provided";
    LEASE_PROVIDED InvalidArgument "lease is provided";
    TOO_MANY_OPS InvalidArgument "too many operations in txn request";
    DUPLICATE_KEY InvalidArgument "duplicate key given in txn request";
    SORT_OPTION InvalidArgument "invalid sort option";
    COMPACTED OutOfRange "mvcc: required revision has been compacted";
    FUTURE_REVISION OutOfRange "mvcc: required revision is a future revision";
    NO_SPACE ResourceExhausted "mvcc: database space exceeded";

    LEASE_NOT_FOUND NotFound "requested lease not found";
    LEASE_EXISTS FailedPrecondition "lease already exists";
    LEASE_TTL_TOO_LARGE OutOfRange "too large lease TTL";
    LEASE_ID_INVALID InvalidArgument "a lease id must be positive";


    MEMBER_EXISTS FailedPrecondition "member ID already exist";
    PEER_URL_EXISTS FailedPrecondition "Peer URLs already exists";
    MEMBER_BAD_URLS InvalidArgument "given member URLs are invalid";
    MEMBER_NOT_FOUND NotFound "member not found";
    MEMBER_NOT_LEARNER FailedPrecondition "can only promote a learner member";
    LEARNER_NOT_READY FailedPrecondition "can only promote a learner member which is in sync with leader";
    TOO_MANY_LEARNERS FailedPrecondition "too many learner members in cluster";
    MEMBER_ALONE FailedPrecondition "this store has one member and cannot have more";

    REQUEST_TOO_LARGE InvalidArgument "request is too large";
    TOO_MANY_REQUESTS ResourceExhausted "too many requests";

    ROOT_USER_NOT_EXIST FailedPrecondition "root user does not exist";
    ROOT_ROLE_NOT_EXIST FailedPrecondition "root user does not have root role";
    USER_EXISTS FailedPrecondition "user name already exists";
    USER_EMPTY InvalidArgument "user name is empty";
    USER_NOT_FOUND FailedPrecondition "user name not found";
    ROLE_EXISTS FailedPrecondition "role name already exists";
    ROLE_NOT_FOUND FailedPrecondition "role name not found";
    ROLE_EMPTY InvalidArgument "role name is empty";
    AUTH_FAILED InvalidArgument "authentication failed, invalid user ID or password";
    PERMISSION_NOT_GIVEN InvalidArgument "permission not given";
    PERMISSION_DENIED PermissionDenied "permission denied";
    ROLE_NOT_GRANTED FailedPrecondition "role is not granted to the user";
    PERMISSION_NOT_GRANTED FailedPrecondition "permission is not granted to the role";
    AUTH_NOT_ENABLED FailedPrecondition "authentication is not enabled";
    INVALID_AUTH_TOKEN Unauthenticated "invalid auth token";
    INVALID_AUTH_MGMT InvalidArgument "invalid auth management";
    AUTH_OLD_REVISION InvalidArgument "revision of auth store is old";

    NO_LEADER Unavailable "no leader";
    NOT_LEADER FailedPrecondition "not leader";
    STOPPED Unavailable "server stopped";
    TIMEOUT Unavailable "request timed out";
    UNHEALTHY Unavailable "unhealthy cluster";
    CORRUPT DataLoss "corrupt cluster";
    NOT_FOR_LEARNER Unavailable "rpc not supported for learner";
    BAD_TRANSFEREE FailedPrecondition "bad leader transferee";
    WRONG_DOWNGRADE_VERSION InvalidArgument "wrong downgrade target version format";
    INVALID_DOWNGRADE_TARGET InvalidArgument "invalid downgrade target version";
    NO_DOWNGRADE FailedPrecondition "no inflight downgrade job";
}

/// Whether other users, roles or permissions than those that were looked at could have had another answer.
pub fn is_about_users(refused: &Status) -> bool {
    const ABOUT_USERS: [Known; 13] = [
        ROOT_USER_NOT_EXIST,
        ROOT_ROLE_NOT_EXIST,
        USER_EXISTS,
        USER_EMPTY,
        USER_NOT_FOUND,
        ROLE_EXISTS,
        ROLE_NOT_FOUND,
        PERMISSION_DENIED,
        ROLE_NOT_GRANTED,
        PERMISSION_NOT_GRANTED,
        AUTH_NOT_ENABLED,
        INVALID_AUTH_TOKEN,
        INVALID_AUTH_MGMT,
    ];
    ABOUT_USERS.iter().any(|known| known.1 == refused.message())
}

/// What the store says, as etcd would say it.
pub fn of(error: Error) -> Status {
    let known = match &error {
        Error::Compacted { .. } => COMPACTED,
        Error::FutureRevision { .. } => FUTURE_REVISION,
        Error::DuplicateKey { .. } => DUPLICATE_KEY,
        Error::KeyEmpty => KEY_EMPTY,
        Error::KeyNotFound { .. } => KEY_NOT_FOUND,
        Error::KeptAndGiven { what: "value" } => VALUE_PROVIDED,
        Error::KeptAndGiven { .. } => LEASE_PROVIDED,
        Error::KeyTooLarge { .. } | Error::RequestTooLarge { .. } => REQUEST_TOO_LARGE,
        Error::TooManyOps { .. } => TOO_MANY_OPS,
        Error::LeaseNotFound { .. } => LEASE_NOT_FOUND,
        Error::LeaseExists { .. } => LEASE_EXISTS,
        Error::LeaseIdInvalid { .. } => LEASE_ID_INVALID,
        Error::LeaseTtl { .. } => LEASE_TTL_TOO_LARGE,
        Error::DiskFull | Error::OverQuota { .. } => NO_SPACE,
        Error::Closed => STOPPED,
        Error::NoLeader => NO_LEADER,
        Error::TimedOut => TIMEOUT,
        Error::Overloaded => TOO_MANY_REQUESTS,
        Error::Corrupt { .. } => CORRUPT,
        Error::RangeInverted
        | Error::DeleteOptions
        | Error::WatchLagged { .. }
        | Error::Locked { .. }
        | Error::FormatUnknown { .. }
        | Error::Storage { .. } => return Status::unknown(format!("etcdserver: {error}")),
    };
    known.into()
}

pub fn of_member(error: MemberError) -> Status {
    let known = match error {
        MemberError::NotFound(_) => MEMBER_NOT_FOUND,
        MemberError::Exists(_) => MEMBER_EXISTS,
        MemberError::PeerUrlExists => PEER_URL_EXISTS,
        MemberError::NotLearner(_) => MEMBER_NOT_LEARNER,
        MemberError::LearnerNotReady => LEARNER_NOT_READY,
        MemberError::TooManyLearners => TOO_MANY_LEARNERS,
        MemberError::Unhealthy => UNHEALTHY,
        MemberError::BadTransferee(_) => BAD_TRANSFEREE,
        MemberError::Alone => MEMBER_ALONE,
        MemberError::Store(error) => return of(error),
    };
    known.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_as_go_prints_it() {
        let text = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        assert_eq!(PERMISSION_DENIED.as_reason(), text);
    }
}
