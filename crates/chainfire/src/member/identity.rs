//! Who a member is: drawn from its addresses when it begins, kept in its folder, checked at every start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use store::Error;

use super::OpenError;
use super::types::MemberId;

const FILE: &str = "member.json";

const FORMAT: u64 = 1;

/// As it is in the folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub format: u64,
    pub cluster: u64,
    pub member: MemberId,
    pub name: String,
    pub token: String,
    /// As of its first start; they may have been changed since.
    pub peer_urls: Vec<String>,
    /// The first members, by id; empty when it joined them later.
    pub initial: BTreeMap<MemberId, Initial>,
    /// For one that joined: the log entry that it found itself a member in.
    pub joined: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Initial {
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// The id of a member: the first eight bytes of SHA-1 over its addresses, ascending, the token, and for one that is
/// added later the time, so that no id ever comes again. This is etcd's rule, and so are the ids.
pub fn member_id(peer_urls: &[String], token: &str, added_at: Option<u64>) -> MemberId {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let mut text = urls.concat() + token;
    if let Some(added_at) = added_at {
        text += &added_at.to_string();
    }
    hash(text.as_bytes())
}

/// The id of a cluster: the same over the ids of its first members, ascending.
pub fn cluster_id(members: impl IntoIterator<Item = MemberId>) -> u64 {
    let mut ids: Vec<MemberId> = members.into_iter().collect();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.into_iter().flat_map(u64::to_be_bytes).collect();
    hash(&bytes)
}

/// Not for secrecy: an id has to be the same on all members and different from others.
fn hash(bytes: &[u8]) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let first = digest.as_ref()[..8].try_into().expect("SHA-1 has 20 bytes");
    // 0 says "nobody".
    u64::from_be_bytes(first).max(1)
}

impl Identity {
    /// Of one of the first members.
    pub fn first(name: &str, token: &str, initial: &BTreeMap<String, Vec<String>>) -> Self {
        let ids = initial.iter().map(|(name, peer_urls)| {
            let initial = Initial { name: name.clone(), peer_urls: peer_urls.clone() };
            (member_id(peer_urls, token, None), initial)
        });
        let initial_by_id: BTreeMap<MemberId, Initial> = ids.collect();
        let peer_urls = initial.get(name).cloned().unwrap_or_default();
        Self {
            format: FORMAT,
            cluster: cluster_id(initial_by_id.keys().copied()),
            member: member_id(&peer_urls, token, None),
            name: name.to_owned(),
            token: token.to_owned(),
            peer_urls,
            initial: initial_by_id,
            joined: 0,
        }
    }

    /// Of one that was added to a cluster.
    pub fn joining(
        cluster: u64,
        member: MemberId,
        joined: u64,
        name: &str,
        token: &str,
        peer_urls: Vec<String>,
    ) -> Self {
        let (name, token) = (name.to_owned(), token.to_owned());
        Self { format: FORMAT, cluster, member, name, token, peer_urls, initial: BTreeMap::new(), joined }
    }

    pub fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// `None` when the folder has none.
    pub fn read(dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = Self::path(dir);
        let bytes = world::file::read_optional(&path).map_err(|error| Error::storage("read the identity", error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let corrupt = |reason: String| OpenError::Store(Error::Corrupt { path: path.clone(), reason });
        let identity: Self = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if identity.format != FORMAT {
            return Err(Error::FormatUnknown { path, found: identity.format, known: FORMAT }.into());
        }
        if identity.cluster == 0 || identity.member == 0 {
            return Err(corrupt("an id is 0".to_owned()));
        }
        Ok(Some(identity))
    }

    pub fn write(&self, dir: &Path) -> Result<(), OpenError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| Error::storage("write the identity", error))?;
        let written = world::file::write_atomic(&Self::path(dir), &bytes, 0o600);
        Ok(written.map_err(|error| Error::storage("write the identity", error))?)
    }

    /// Is this folder the one of whoever opens it.
    pub fn check(&self, dir: &Path, name: &str, token: &str, peer_urls: &[String]) -> Result<(), OpenError> {
        if self.token != token {
            let (dir, theirs, asked) = (dir.to_path_buf(), self.token.clone(), token.to_owned());
            return Err(OpenError::OtherToken { dir, theirs, asked });
        }
        // A member may be given another name, or other addresses, but not both at once.
        let same_urls = peer_urls.iter().any(|url| self.peer_urls.contains(url));
        if self.name != name && !same_urls {
            return Err(OpenError::OtherMember {
                dir: dir.to_path_buf(),
                name: self.name.clone(),
                peer_urls: self.peer_urls.join(","),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_etcd_has() {
        // etcd without any settings; its documentation shows both numbers.
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster", None);
        assert_eq!(member, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id([member]), 0xcdf8_18194e3a8c32);
    }

    #[test]
    fn the_order_of_addresses_does_not_matter_and_all_else_does() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        let id = member_id(&[a.clone(), b.clone()], "t", None);
        assert_eq!(id, member_id(&[b.clone(), a.clone()], "t", None));
        assert_ne!(id, member_id(std::slice::from_ref(&a), "t", None));
        assert_ne!(id, member_id(&[a.clone(), b.clone()], "u", None));
        assert_ne!(member_id(std::slice::from_ref(&a), "t", Some(1)), member_id(&[a], "t", Some(2)));
        assert_eq!(cluster_id([1, 2]), cluster_id([2, 1]));
    }

    #[test]
    fn a_folder_keeps_who_it_belongs_to() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::read(dir.path()).unwrap().is_none());
        let urls = vec!["http://a:1".to_owned()];
        let identity = Identity::first("a", "t", &BTreeMap::from([("a".to_owned(), urls.clone())]));
        identity.write(dir.path()).unwrap();
        let read = Identity::read(dir.path()).unwrap().unwrap();
        assert_eq!(read, identity);
        let other = vec!["http://b:1".to_owned()];
        read.check(dir.path(), "a", "t", &urls).unwrap();
        read.check(dir.path(), "a", "t", &other).unwrap();
        read.check(dir.path(), "b", "t", &urls).unwrap();
        assert!(matches!(read.check(dir.path(), "b", "t", &other), Err(OpenError::OtherMember { .. })));
        assert!(matches!(read.check(dir.path(), "a", "u", &urls), Err(OpenError::OtherToken { .. })));
        std::fs::write(Identity::path(dir.path()), b"{").unwrap();
        assert!(matches!(Identity::read(dir.path()), Err(OpenError::Store(Error::Corrupt { .. }))));
    }
}
