//! What a store's refusal means, in the words and codes of this program.

use model::{Code, Error};
use tonic::Status;

use crate::failure::Failure;

/// By what etcd's message holds; the first that fits. Messages are fixed parts of etcd's protocol.
const KNOWN: &[(&str, Code, &str)] = &[
    ("has been compacted", Code::PreconditionFailed, "ask without --revision, or for a newer one"),
    ("is a future revision", Code::PreconditionFailed, "vt store status   shows the newest revision"),
    ("requested lease not found", Code::NotFound, "it ran out or was revoked; grant another"),
    ("lease already exists", Code::Conflict, "choose another id"),
    ("too large lease TTL", Code::InvalidArgument, ""),
    ("key is not provided", Code::InvalidArgument, "a key has at least one byte"),
    ("key not found", Code::NotFound, ""),
    ("duplicate key given in txn", Code::InvalidArgument, "one transaction changes a key once"),
    ("request is too large", Code::TooLarge, "the store's --max-request-bytes is its limit"),
    ("larger than max", Code::TooLarge, "the store's --max-request-bytes is its limit"),
    ("too many operations in txn", Code::TooLarge, "the store's --max-txn-ops is its limit"),
    (
        "database space exceeded",
        Code::QuotaExceeded,
        "make room, then vt store compact; --quota-backend-bytes raises it",
    ),
    ("too many requests", Code::RateLimited, "ask again in a moment"),
    ("member not found", Code::NotFound, "vt store members"),
    ("member ID already exist", Code::Conflict, "vt store members"),
    ("Peer URLs already exists", Code::Conflict, "vt store members"),
    ("not enough started members", Code::PreconditionFailed, "start the members that are down first; vt store status"),
    ("unhealthy cluster", Code::PreconditionFailed, "mend the members that are down first; vt store status"),
    ("can only promote a learner", Code::PreconditionFailed, "vt store members"),
    ("in sync with leader", Code::PreconditionFailed, "it is still catching up; ask again"),
    ("too many learner members", Code::PreconditionFailed, "promote or remove the one there is"),
    ("bad leader transferee", Code::PreconditionFailed, "name another voter; vt store members"),
    ("not leader", Code::Unavailable, "ask again in a moment"),
    ("no leader", Code::Unavailable, "most members have to be up; vt store status"),
    ("leader changed", Code::Unavailable, "ask again"),
    ("request timed out", Code::DeadlineExceeded, "most members have to be up; vt store status"),
    ("user name is empty", Code::Unauthenticated, "--user NAME --password-file FILE"),
    ("authentication failed", Code::Unauthenticated, "--user NAME --password-file FILE"),
    ("invalid auth token", Code::Unauthenticated, "ask again"),
    ("permission denied", Code::Denied, "who may change it: the store's roles"),
    ("corrupt", Code::Failed, "vt store check"),
    ("not supported", Code::Failed, ""),
];

/// Beyond the message, the class.
const fn class(code: tonic::Code) -> Code {
    match code {
        tonic::Code::InvalidArgument => Code::InvalidArgument,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::AlreadyExists | tonic::Code::Aborted => Code::Conflict,
        tonic::Code::PermissionDenied => Code::Denied,
        tonic::Code::ResourceExhausted => Code::RateLimited,
        tonic::Code::FailedPrecondition | tonic::Code::OutOfRange => Code::PreconditionFailed,
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        tonic::Code::Unavailable | tonic::Code::Cancelled => Code::Unavailable,
        _ => Code::Failed,
    }
}

pub fn told(status: &Status) -> Failure {
    let said = status.message();
    let known = KNOWN.iter().find(|(part, ..)| said.contains(part));
    let (code, hint) = known.map_or((class(status.code()), ""), |(_, code, hint)| (*code, *hint));
    // etcd names the part of itself that refused; that helps nobody here.
    let plain = said.trim_start_matches("etcdserver: ").trim_start_matches("mvcc: ").trim_start_matches("auth: ");
    let message = match (code, plain.is_empty()) {
        (Code::Unavailable, _) if known.is_none() => "the store cannot be reached".to_owned(),
        (Code::DeadlineExceeded, _) => "the store did not answer in time; a change may still happen".to_owned(),
        (_, true) => format!("the store refused: {}", status.code().description()),
        (_, false) => format!("the store refused: {plain}"),
    };
    let why = if message.ends_with(plain) { String::new() } else { plain.to_owned() };
    let hint =
        if hint.is_empty() && code == Code::Unavailable { "vt store status   looks at every member" } else { hint };
    Error { why, ..Error::new(code, message).hint(hint) }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_has_a_code_a_reason_and_a_way_out() {
        for (status, code, exit) in [
            (
                Status::out_of_range("etcdserver: mvcc: required revision has been compacted"),
                Code::PreconditionFailed,
                8,
            ),
            (Status::not_found("etcdserver: requested lease not found"), Code::NotFound, 3),
            (Status::invalid_argument("etcdserver: request is too large"), Code::TooLarge, 2),
            (Status::invalid_argument("etcdserver: user name is empty"), Code::Unauthenticated, 4),
            (Status::permission_denied("etcdserver: permission denied"), Code::Denied, 5),
            (Status::unavailable("etcdserver: no leader"), Code::Unavailable, 1),
            (Status::unavailable("tcp connect error"), Code::Unavailable, 1),
            (Status::unknown("something else"), Code::Failed, 1),
        ] {
            let failure = told(&status);
            assert_eq!((failure.error.code, failure.exit_code()), (code, exit), "{failure:?}");
            assert!(!failure.error.message.is_empty() && !failure.error.message.contains("etcdserver"), "{failure:?}");
        }
    }
}
