//! Histories from seeds: users, roles, permissions, and who is let through.
//!
//! Root keeps its password, so that what a history switched on can be switched off before the next.

use etcd::proto::authpb::Permission;
use etcd::proto::etcdserverpb::RequestOp;
use etcd::proto::etcdserverpb::request_op::Request;

use crate::choice::Choices;
use crate::make;
use crate::step::{Auth, Step};
use crate::tidy::ROOT;

const USERS: [&str; 3] = ["root", "ann", "bob"];
const ROLES: [&str; 3] = ["root", "reader", "writer"];

pub fn history(seed: u64) -> Vec<Step> {
    let mut choices = Choices::new(seed ^ 0x6175_7468);
    let steps = choices.between(make::STEPS_MIN, make::STEPS_MAX) as usize;
    let mut history = Vec::new();
    let prepared = !choices.one_in(4);
    if prepared {
        prepare(&mut choices, &mut history);
    }
    // What comes between is made as in other histories.
    let mut others = make::history(choices.number()).into_iter();
    while history.len() < steps {
        if choices.one_in(2) {
            history.push(Step::Auth(auth(&mut choices)));
        } else if let Some(step) = others.next() {
            history.push(tame(step, history.len()));
        } else {
            others = make::history(choices.number()).into_iter();
        }
    }
    history
}

/// The usual beginning: without it a random history hardly ever gets as far.
fn prepare(choices: &mut Choices, history: &mut Vec<Step>) {
    let add = |name: &str| Auth::UserAdd { name: name.into(), password: password(name), no_password: false };
    let mut first = USERS.map(add).to_vec();
    first.extend(ROLES.map(|role| Auth::RoleAdd { role: role.to_owned() }));
    first.push(Auth::GrantRole { name: "root".to_owned(), role: "root".to_owned() });
    first.push(Auth::GrantRole { name: "ann".to_owned(), role: "reader".to_owned() });
    first.push(Auth::GrantRole { name: "bob".to_owned(), role: "writer".to_owned() });
    for role in &ROLES[1..] {
        first.push(Auth::Allow { role: (*role).to_owned(), permission: Some(permission(choices)) });
    }
    first.push(Auth::Enable);
    first.extend(USERS.map(|name| Auth::Login { name: name.to_owned(), password: password(name) }));
    history.extend(first.into_iter().map(Step::Auth));
}

/// After a watch was denied, etcd 3.4 reads no more from its stream: each watch gets a stream of its own. It takes leave to
/// read one key for leave to watch all from there on, and does not look whether a nested transaction may do what it does,
/// nor whether one that puts may see the value before or let the keys of that lease be deleted.
fn tame(step: Step, at: usize) -> Step {
    match step {
        Step::Txn(mut txn) => {
            let nested = |op: &RequestOp| matches!(op.request, Some(Request::RequestTxn(_)));
            for ops in [&mut txn.success, &mut txn.failure] {
                ops.retain(|op| !nested(op));
                for op in ops {
                    if let Some(Request::RequestPut(put)) = &mut op.request {
                        (put.prev_kv, put.lease) = (false, 0);
                    }
                }
            }
            Step::Txn(txn)
        }
        Step::Watch { mut create, .. } => {
            if create.range_end == b"\0"[..] {
                create.range_end.clear();
            }
            Step::Watch { stream: at, create }
        }
        Step::Progress { .. } | Step::Cancel { .. } => Step::Settle,
        step => step,
    }
}

fn password(name: &str) -> String {
    if name == ROOT.0 { ROOT.1.to_owned() } else { format!("{name}'s") }
}

/// etcd 3.4 takes a permission for nothing, whose end is not above its start; ChainFire refuses it.
fn permission(choices: &mut Choices) -> Permission {
    let (key, mut range_end) = choices.stretch();
    if range_end <= key && range_end != b"\0"[..] {
        range_end.clear();
    }
    Permission { perm_type: choices.between(0, 2) as i32, key, range_end }
}

fn auth(choices: &mut Choices) -> Auth {
    let name = match choices.below(30) {
        0 => String::new(),
        1 => "nobody".to_owned(),
        _ => choices.pick(&USERS).to_owned(),
    };
    let role = match choices.below(30) {
        0 => String::new(),
        1 => "nothing".to_owned(),
        _ => choices.pick(&ROLES).to_owned(),
    };
    // Changes that end a history's point, such as switching auth off, are rare.
    match choices.below(64) {
        0 | 1 => Auth::Enable,
        2 => Auth::Disable,
        3..=7 => {
            let password =
                if choices.one_in(6) { choices.pick(&["", "wrong", "new"]).to_owned() } else { password(&name) };
            Auth::Login { name, password }
        }
        8..=17 => Auth::Become { name },
        18 => Auth::Leave,
        19 => Auth::Forge,
        20..=22 => {
            let no_password = choices.one_in(6) && name != ROOT.0;
            let password = if choices.one_in(10) && name != ROOT.0 { String::new() } else { password(&name) };
            Auth::UserAdd { name, password, no_password }
        }
        // Who says nothing is to etcd the user without a name.
        23..=25 if name.is_empty() => Auth::UserList,
        23..=25 => Auth::UserGet { name },
        26 => Auth::UserList,
        27 => Auth::UserDelete { name },
        28 | 29 => {
            let name = if name == ROOT.0 { "ann".to_owned() } else { name };
            Auth::Password { password: if choices.one_in(2) { "new".to_owned() } else { password(&name) }, name }
        }
        30..=34 => Auth::GrantRole { name, role },
        35 | 36 => Auth::RevokeRole { name, role },
        37 | 38 => Auth::RoleAdd { role },
        39..=41 => Auth::RoleGet { role },
        42 => Auth::RoleList,
        43 => Auth::RoleDelete { role },
        44..=51 => Auth::Allow { role, permission: Some(permission(choices)) },
        52..=54 => {
            let (key, range_end) = choices.stretch();
            Auth::Disallow { role, key, range_end }
        }
        55 => Auth::Members,
        56 => Auth::Status,
        57 => Auth::Defragment,
        58 => Auth::Alarms,
        _ => Auth::Become { name: ROOT.0.to_owned() },
    }
}
