//! Alarms: system rows that say what is wrong with a member.

use bytes::Bytes;
use etcd::proto::etcdserverpb::AlarmType;

use super::host::System;
use crate::member::types::MemberId;

const PREFIX: &str = "alarm/";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    pub member: MemberId,
    pub kind: AlarmType,
}

/// As etcd puts it into a member's errors.
impl std::fmt::Display for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memberID:{} alarm:{} ", self.member, self.kind.as_str_name())
    }
}

impl Alarm {
    /// The row whose presence is the alarm.
    pub fn key(self) -> Bytes {
        Bytes::from(format!("{PREFIX}{:016x}/{}", self.member, self.kind.as_str_name()))
    }

    pub fn read(system: &System) -> Vec<Alarm> {
        let alarm = |key: &Bytes| {
            let (member, kind) = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?.split_once('/')?;
            Some(Alarm { member: u64::from_str_radix(member, 16).ok()?, kind: AlarmType::from_str_name(kind)? })
        };
        system.rows.keys().filter_map(alarm).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_its_row() {
        let alarm = Alarm { member: 0xfeed, kind: AlarmType::Nospace };
        let rows = [(alarm.key(), Bytes::new()), (Bytes::from("auth/state"), Bytes::new())];
        assert_eq!(Alarm::read(&System { version: 1, rows: rows.into() }), [alarm]);
    }
}
