//! One operation of a history, in the history's own numbers (see [`crate::frame`]).

use std::fmt::Write as _;

use crate::frame::{CHOSEN, CHOSEN_MAX, NEWEST, NEWEST_REACH};
use etcd::proto::authpb::Permission;
use etcd::proto::etcdserverpb as pb;

#[derive(Clone, Debug)]
pub enum Step {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    /// All watches are caught up first: whether a watch that is behind is cut off by a compaction is a matter of time.
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    /// Grants and revokes at once, for times to live that could run out in between.
    Brief(pb::LeaseGrantRequest),
    Revoke {
        lease: i64,
    },
    KeepAlive {
        lease: i64,
    },
    TimeToLive(pb::LeaseTimeToLiveRequest),
    Leases,
    /// Grants the shortest lease, puts keys with it, and waits until it has run out.
    Expire {
        lease: i64,
        keys: Vec<bytes::Bytes>,
    },
    HashKv {
        revision: i64,
    },
    Watch {
        stream: usize,
        create: pb::WatchCreateRequest,
    },
    /// The watch is caught up first.
    Cancel {
        stream: usize,
        watch: i64,
    },
    Progress {
        stream: usize,
    },
    /// Catches up all watches and tells what they delivered.
    Settle,
    Auth(Auth),
}

/// Requests about who may do what.
#[derive(Clone, Debug)]
pub enum Auth {
    Enable,
    Disable,
    /// Later requests carry the token.
    Login {
        name: String,
        password: String,
    },
    /// Later requests carry the token of the last login with that name, if any.
    Become {
        name: String,
    },
    /// Later requests carry no token.
    Leave,
    /// Later requests carry a token that nobody gave out.
    Forge,
    UserAdd {
        name: String,
        password: String,
        no_password: bool,
    },
    UserGet {
        name: String,
    },
    UserList,
    UserDelete {
        name: String,
    },
    Password {
        name: String,
        password: String,
    },
    GrantRole {
        name: String,
        role: String,
    },
    RevokeRole {
        name: String,
        role: String,
    },
    RoleAdd {
        role: String,
    },
    RoleGet {
        role: String,
    },
    RoleList,
    RoleDelete {
        role: String,
    },
    Allow {
        role: String,
        permission: Option<Permission>,
    },
    Disallow {
        role: String,
        key: bytes::Bytes,
        range_end: bytes::Bytes,
    },
    Members,
    Status,
    Defragment,
    Alarms,
}

/// A message without the fields that say nothing, and without long values: for people, not for comparing.
pub fn terse(text: &str) -> String {
    const SILENT: [&str; 9] = ["0", "false", "b\"\"", "\"\"", "[]", "None", "Key", "Put", "Version"];
    let mut out = text.to_owned();
    for silent in SILENT {
        for end in [", ", " }"] {
            // Field by field, from behind, as leaving one out may put two next to each other.
            let field = format!(": {silent}{end}");
            while let Some(at) = out.rfind(&field) {
                let name =
                    out[..at].rfind(|c: char| !(c.is_ascii_alphanumeric() || "_#".contains(c))).map_or(0, |at| at + 1);
                let kept = if end == " }" { " }" } else { "" };
                out.replace_range(name..at + field.len(), kept);
            }
        }
    }
    shorten(&named(&out.replace(",  }", " }").replace("{  }", "{}")))
}

/// Numbers that stand for something, by name.
fn named(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = piece.trim_end_matches(|c: char| !c.is_ascii_digit());
        match digits.parse::<i64>() {
            Ok(number) if (number - NEWEST).abs() <= NEWEST_REACH => {
                let _ = write!(out, "newest{:+}", number - NEWEST);
            }
            Ok(number) if (0..CHOSEN_MAX).contains(&(number - CHOSEN)) => {
                let _ = write!(out, "chosen{:+}", number - CHOSEN);
            }
            _ => out.push_str(digits),
        }
        out.push_str(&piece[digits.len()..]);
    }
    out
}

/// Runs of one letter, as long values have them.
fn shorten(text: &str) -> String {
    const RUN_SHOWN: usize = 12;
    let mut out = String::with_capacity(text.len());
    let mut run = (' ', 0);
    for letter in text.chars() {
        run = if letter == run.0 { (letter, run.1 + 1) } else { (letter, 1) };
        match run.1 {
            0..=RUN_SHOWN => out.push(letter),
            n if n == RUN_SHOWN + 1 => out.push('…'),
            _ => {}
        }
    }
    out
}
