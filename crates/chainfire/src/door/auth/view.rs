//! The system rows as the door reads them: who may do what, and which alarms ring. Made anew when the rows have moved.

use std::collections::HashMap;
use std::sync::Arc;

use etcd::proto::etcdserverpb::AlarmType;

use super::grants::Stretches;
use super::rows::{self, Access, ROOT, Rows};
use crate::door::alarm::Alarm;
use crate::door::host::System;
use crate::door::refusal::{CORRUPT, Known, PERMISSION_DENIED, USER_EMPTY, USER_NOT_FOUND};

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Authentication is off.
    Anyone,
    /// Authentication is on and the caller says nothing.
    Nobody,
    User(Arc<str>),
}

impl Caller {
    pub fn is_someone(&self) -> Result<(), Known> {
        match self {
            Self::Nobody => Err(USER_EMPTY),
            Self::Anyone | Self::User(_) => Ok(()),
        }
    }
}

pub struct View {
    pub version: u64,
    pub auth: Rows,
    pub alarms: Vec<Alarm>,
    grants: HashMap<String, Grants>,
}

#[derive(Default)]
struct Grants {
    root: bool,
    read: Stretches,
    write: Stretches,
}

impl View {
    pub fn new(system: &System) -> Self {
        let auth = rows::read(system);
        let grants = auth.users.keys().map(|name| (name.clone(), grants(&auth, name))).collect();
        Self { version: system.version, alarms: Alarm::read(system), auth, grants }
    }

    /// Whether what was decided on `other` is decided the same way on this.
    pub fn judges_as(&self, other: &View) -> bool {
        let (state, other) = (&self.auth.state, &other.auth.state);
        state.revision == other.revision && state.enabled == other.enabled
    }

    pub fn enabled(&self) -> bool {
        self.auth.state.enabled
    }

    pub fn no_space(&self) -> bool {
        self.rings(AlarmType::Nospace)
    }

    /// Nothing is changed any more where data is damaged.
    pub fn is_sound(&self) -> Result<(), Known> {
        if self.rings(AlarmType::Corrupt) { Err(CORRUPT) } else { Ok(()) }
    }

    pub fn rings(&self, kind: AlarmType) -> bool {
        self.alarms.iter().any(|alarm| alarm.kind == kind)
    }

    /// Keys from `key` to `range_end`, both as the protocol writes them.
    pub fn may_read(&self, caller: &Caller, key: &[u8], range_end: &[u8]) -> Result<(), Known> {
        self.may(caller, |grants| grants.read.cover(key, range_end))
    }

    pub fn may_write(&self, caller: &Caller, key: &[u8], range_end: &[u8]) -> Result<(), Known> {
        self.may(caller, |grants| grants.write.cover(key, range_end))
    }

    fn may(&self, caller: &Caller, covered: impl FnOnce(&Grants) -> bool) -> Result<(), Known> {
        match caller {
            Caller::Anyone => Ok(()),
            Caller::Nobody => Err(USER_EMPTY),
            Caller::User(name) => match self.grants.get(&**name) {
                Some(grants) if grants.root || covered(grants) => Ok(()),
                Some(_) | None => Err(PERMISSION_DENIED),
            },
        }
    }

    /// Without looking at keys.
    pub fn may_everything(&self, caller: &Caller) -> bool {
        self.is_admin(caller).is_ok()
    }

    pub fn is_admin(&self, caller: &Caller) -> Result<(), Known> {
        match caller {
            Caller::Anyone => Ok(()),
            Caller::Nobody => Err(USER_EMPTY),
            Caller::User(name) => match self.grants.get(&**name) {
                Some(grants) if grants.root => Ok(()),
                Some(_) => Err(PERMISSION_DENIED),
                None => Err(USER_NOT_FOUND),
            },
        }
    }
}

fn grants(auth: &Rows, user: &str) -> Grants {
    let Some(user) = auth.users.get(user) else { return Grants::default() };
    let permissions = || user.roles.iter().filter_map(|role| auth.roles.get(role)).flat_map(|role| &role.permissions);
    Grants {
        root: user.roles.contains(ROOT),
        read: Stretches::of(permissions().filter(|p| matches!(p.access, Access::Read | Access::ReadWrite))),
        write: Stretches::of(permissions().filter(|p| matches!(p.access, Access::Write | Access::ReadWrite))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::door::auth::rows::{Permission, Role, State, User, role_row, state_row, user_row};

    #[test]
    fn roles_add_up_and_root_needs_none() {
        let permission = |access, key: &'static str, end: &'static str| Permission {
            access,
            key: Bytes::from(key),
            range_end: Bytes::from(end),
        };
        let user = |roles: &[&str]| User { roles: roles.iter().map(ToString::to_string).collect(), ..User::default() };
        let reader = Role { permissions: vec![permission(Access::Read, "a", "c")] };
        let writer =
            Role { permissions: vec![permission(Access::Write, "b", ""), permission(Access::ReadWrite, "x", "y")] };
        let rows = [
            state_row(&State { enabled: true, ..State::default() }),
            role_row("reader", Some(&reader)),
            role_row("writer", Some(&writer)),
            user_row("both", Some(&user(&["reader", "writer", "gone"]))),
            user_row("boss", Some(&user(&["root"]))),
        ];
        let rows = rows.into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
        let view = View::new(&System { version: 1, rows });
        let both = Caller::User("both".into());
        assert_eq!(view.may_read(&both, b"a", b"c"), Ok(()));
        assert_eq!(view.may_read(&both, b"x", b""), Ok(()));
        assert_eq!(view.may_write(&both, b"b", b""), Ok(()));
        assert_eq!(view.may_write(&both, b"a", b""), Err(PERMISSION_DENIED));
        assert_eq!(view.is_admin(&both), Err(PERMISSION_DENIED));
        let boss = Caller::User("boss".into());
        assert_eq!(view.may_write(&boss, b"\0", b"\0"), Ok(()));
        assert_eq!(view.is_admin(&boss), Ok(()));
        let stranger = Caller::User("stranger".into());
        assert_eq!(view.may_read(&stranger, b"a", b""), Err(PERMISSION_DENIED));
        assert_eq!(view.is_admin(&stranger), Err(USER_NOT_FOUND));
        assert_eq!(view.may_read(&Caller::Nobody, b"a", b""), Err(USER_EMPTY));
        assert_eq!(view.may_read(&Caller::Anyone, b"a", b""), Ok(()));
    }
}
