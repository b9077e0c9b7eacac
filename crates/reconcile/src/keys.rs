//! Where things stand in the store. The scope comes first, so no row or event is without its tenant.
//!
//! ```text
//! row/<org>/<project>/.../~<kind>/<id>          the row
//! log/<org>/<project>/.../~<id>/<version>       its events; written once, never changed
//! index/<id>                                    the row's key
//! claim/<name>                                  the id of the row that holds the name
//! once/<actor>/<key>                            the answer to a command with an idempotency key
//! cloud/<name>                                  what the store itself is marked with; no row, no event
//! sealed/<id>/<version>                         encrypted content that no row or event may hold
//! ```

use bytes::Bytes;
use model::{Id, Scope};

pub const ROWS: &str = "row/";
pub const LOG: &str = "log/";
pub const CLAIMS: &str = "claim/";
/// Stands between scope and kind. Sorts behind every id, so that a scope's prefix covers all below it.
const END_OF_SCOPE: char = '~';

fn path(root: &str, scope: &Scope) -> String {
    scope.ids().iter().fold(root.to_owned(), |path, id| path + id.as_str() + "/")
}

/// The prefix of all rows at `scope` and below.
pub fn rows_below(scope: &Scope) -> Bytes {
    path(ROWS, scope).into()
}

/// The prefix of all rows of `kind` at exactly `scope`.
pub fn rows_at(scope: &Scope, kind: &str) -> Bytes {
    format!("{}{END_OF_SCOPE}{kind}/", path(ROWS, scope)).into()
}

pub fn row(scope: &Scope, kind: &str, id: &Id) -> Bytes {
    format!("{}{END_OF_SCOPE}{kind}/{id}", path(ROWS, scope)).into()
}

/// The kind that a row's key names, or `None` for another key.
pub fn kind_of(key: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix(ROWS)?;
    text.split_once(END_OF_SCOPE)?.1.split_once('/').map(|(kind, _)| kind)
}

/// The id that a row's key names, or `None` for another key.
pub fn id_of(key: &[u8]) -> Option<Id> {
    let text = std::str::from_utf8(key).ok()?.strip_prefix(ROWS)?;
    text.split_once(END_OF_SCOPE)?.1.split_once('/')?.1.parse().ok()
}

/// The prefix of all events at `scope` and below.
pub fn log_below(scope: &Scope) -> Bytes {
    path(LOG, scope).into()
}

/// The prefix of one row's events.
pub fn log_of(scope: &Scope, id: &Id) -> Bytes {
    format!("{}{END_OF_SCOPE}{id}/", path(LOG, scope)).into()
}

pub fn event(scope: &Scope, id: &Id, version: u64) -> Bytes {
    format!("{}{END_OF_SCOPE}{id}/{version:012}", path(LOG, scope)).into()
}

pub fn index(id: &Id) -> Bytes {
    format!("index/{id}").into()
}

pub fn claim(name: &str) -> Bytes {
    format!("{CLAIMS}{name}").into()
}

/// The claim that keeps names of one kind unique at one scope.
pub fn name_claim(scope: &Scope, kind: &str, name: &str) -> String {
    format!("name/{scope}~{kind}/{name}")
}

pub fn once(actor: &str, key: &str) -> Bytes {
    format!("once/{actor}/{key}").into()
}

pub fn sealed_below(id: &Id) -> Bytes {
    format!("sealed/{id}/").into()
}

pub fn sealed(id: &Id, version: u64) -> Bytes {
    format!("sealed/{id}/{version:012}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_its_rows_and_no_neighbours() {
        let org = Scope::CLOUD.child(Id::from_bits("org", 7));
        let project = org.child(Id::from_bits("prj", 8));
        let other = Scope::CLOUD.child(Id::from_bits("org", 9));
        let vm = Id::from_bits("vm", 1);
        let key = row(&project, "vm", &vm);
        assert!(key.starts_with(&rows_below(&org)) && key.starts_with(&rows_below(&Scope::CLOUD)));
        assert!(!key.starts_with(&rows_below(&other)));
        assert_eq!((kind_of(&key), id_of(&key)), (Some("vm"), Some(vm)));
        assert_eq!(kind_of(b"index/vm_x"), None);
    }
}
