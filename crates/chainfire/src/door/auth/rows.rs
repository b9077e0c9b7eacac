//! Users, roles and whether they matter, as system rows. Each row is one byte of version and the row in postcard.
//!
//! ```text
//!   auth/state        whether authentication is on, the revision of all this, the key of tokens
//!   auth/user/NAME    how the user proves who they are, and their roles
//!   auth/role/NAME    what the role may do
//! ```

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::door::host::System;

/// The user and the role that may do everything.
pub const ROOT: &str = "root";

const VERSION: u8 = 1;
const STATE: &[u8] = b"auth/state";
const USER: &[u8] = b"auth/user/";
const ROLE: &[u8] = b"auth/role/";

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    pub enabled: bool,
    /// Grows by one with each change of anything here; 1 in the beginning.
    pub revision: u64,
    /// Signs tokens; drawn anew whenever authentication goes on, so that older tokens are worth nothing.
    pub secret: [u8; 32],
}

impl Default for State {
    fn default() -> Self {
        Self { enabled: false, revision: 1, secret: [0; 32] }
    }
}

/// PBKDF2-HMAC-SHA256 (RFC 8018).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Password {
    pub rounds: u32,
    pub salt: [u8; 16],
    pub hash: [u8; 32],
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct User {
    /// `None`: a user who cannot log in by password and is known by a certificate alone.
    pub password: Option<Password>,
    pub roles: BTreeSet<String>,
    /// The revision at which the password was set. Tokens from before are worth nothing.
    pub since: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

/// What may be done with a stretch of keys; the end as the protocol writes it: empty for the key alone, a zero byte for
/// everything from the key on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Permission {
    pub access: Access,
    pub key: Bytes,
    pub range_end: Bytes,
}

/// Ascending by key.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Role {
    pub permissions: Vec<Permission>,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rows {
    pub state: State,
    pub users: BTreeMap<String, User>,
    pub roles: BTreeMap<String, Role>,
}

/// A changed row; `None` removes.
pub type Row = (Bytes, Option<Bytes>);

pub fn state_row(state: &State) -> Row {
    (Bytes::from_static(STATE), Some(encode(state)))
}

pub fn user_row(name: &str, user: Option<&User>) -> Row {
    (Bytes::from([USER, name.as_bytes()].concat()), user.map(encode))
}

pub fn role_row(name: &str, role: Option<&Role>) -> Row {
    (Bytes::from([ROLE, name.as_bytes()].concat()), role.map(encode))
}

fn encode(row: &impl Serialize) -> Bytes {
    let bytes = postcard::to_extend(row, vec![VERSION]).expect("plain data in memory always encodes");
    Bytes::from(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&VERSION, row)) => postcard::from_bytes(row).ok(),
        _ => None,
    }
}

/// A row that this version cannot read gives nobody anything: an unreadable state counts as "on", an unreadable user
/// or role as absent.
pub fn read(system: &System) -> Rows {
    let mut rows = Rows::default();
    for (key, value) in &system.rows {
        if key == STATE {
            rows.state = decode(value).unwrap_or_else(|| {
                tracing::error!("the state of authentication is unreadable: nobody is let in");
                State { enabled: true, ..State::default() }
            });
        } else if let Some((name, user)) = named(key, USER, value) {
            rows.users.insert(name, user);
        } else if let Some((name, role)) = named(key, ROLE, value) {
            rows.roles.insert(name, role);
        }
    }
    rows
}

fn named<T: DeserializeOwned>(key: &[u8], prefix: &[u8], value: &[u8]) -> Option<(String, T)> {
    let name = std::str::from_utf8(key.strip_prefix(prefix)?).ok()?;
    let row = decode(value);
    if row.is_none() {
        tracing::error!(key = %key.escape_ascii(), "this system row is unreadable and counts as absent");
    }
    Some((name.to_owned(), row?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were_written() {
        let permission =
            Permission { access: Access::ReadWrite, key: Bytes::from("a"), range_end: Bytes::from_static(&[0]) };
        let rows = Rows {
            state: State { enabled: true, revision: 9, secret: [7; 32] },
            users: BTreeMap::from([(
                "u/ser".to_owned(),
                User {
                    password: Some(Password { rounds: 3, salt: [1; 16], hash: [2; 32] }),
                    roles: BTreeSet::from(["r".to_owned()]),
                    since: 4,
                },
            )]),
            roles: BTreeMap::from([("r".to_owned(), Role { permissions: vec![permission] })]),
        };
        let mut written = vec![state_row(&rows.state)];
        written.extend(rows.users.iter().map(|(name, user)| user_row(name, Some(user))));
        written.extend(rows.roles.iter().map(|(name, role)| role_row(name, Some(role))));
        written.push((Bytes::from("member/1"), Some(Bytes::from("not of here"))));
        let system =
            System { version: 3, rows: written.into_iter().filter_map(|(key, row)| Some((key, row?))).collect() };
        assert_eq!(read(&system), rows);
    }

    #[test]
    fn a_row_that_cannot_be_read_gives_nobody_anything() {
        let rows = [(Bytes::from_static(STATE), Bytes::from("\u{2}new")), (Bytes::from("auth/user/u"), Bytes::new())];
        let read = read(&System { version: 1, rows: rows.into() });
        assert!(read.state.enabled);
        assert!(read.users.is_empty());
    }
}
