//! A member of a new cluster, made from a copy of an old one: rows, history, revisions, leases, users and roles stay;
//! members and log are new. Each of the new members is made from the same copy, and then started.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use openraft::Membership;
use openraft::type_config::alias::StoredMembershipOf;
use store::{Error, Revision};

use super::identity::Identity;
use super::types::{Contact, MemberId, Seat, Types};
use super::{InitialState, OpenError, Options, Place};
use crate::state::{self, LogId};

/// Where the log of every restored member begins, as if a leader of the time before the first one had written it all.
const TERM: u64 = 0;
const INDEX: u64 = 1;

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restored {
    pub cluster: u64,
    pub member: MemberId,
    pub revision: Revision,
    pub rows: u64,
}

fn io_fault(act: &'static str, error: io::Error) -> OpenError {
    Error::storage(act, error).into()
}

/// Makes the folder of the member that `options` name from the copy in the file `copy`, which may have something after
/// its end. The folder must be empty or missing, and is there as a whole or not at all. Blocks.
///
/// The cluster is the one that `options.initial_cluster` begin. Use a token that the old cluster does not have, so that
/// members of the two can never meet.
pub fn restore(mut options: Options, copy: &Path) -> Result<Restored, OpenError> {
    let Place::Folder(dir) = options.place.clone() else {
        return Err(OpenError::Settings("a member is restored into a folder".to_owned()));
    };
    if options.initial_cluster_state != InitialState::New {
        return Err(OpenError::Settings("a restored cluster is a new one".to_owned()));
    }
    // Nothing listens while it is made.
    options.listen_peer_urls.clone_from(&options.advertise_peer_urls);
    let settled = options.settle()?;
    must_be_empty(&dir)?;
    let (name, token) = (&settled.options.name, &settled.options.initial_cluster_token);
    let identity = Identity::first(name, token, &settled.initial);
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(|error| io_fault("create the folder", error))?;
    let making = Making::begin(&parent, &dir)?;
    let whole = trimmed(copy, &making.0)?;
    let applied = LogId::new_term_index(TERM, INDEX);
    let membership = membership(&identity, applied)?;
    let place = state::Place::Folder(making.0.clone());
    let marks = state::import(&place, &whole, state::TreeOptions::default(), Some(applied), membership);
    // Who looks for the fault looks into the file that was given.
    let marks = marks.map_err(|error| match error {
        Error::Corrupt { path, reason } if path == whole => Error::Corrupt { path: copy.to_path_buf(), reason },
        other => other,
    })?;
    fs::remove_file(&whole).map_err(|error| io_fault("remove the copy of the copy", error))?;
    identity.write(&making.0)?;
    making.end(&parent, &dir)?;
    Ok(Restored { cluster: identity.cluster, member: identity.member, revision: marks.revision, rows: marks.rows })
}

fn must_be_empty(dir: &Path) -> Result<(), OpenError> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_fault("look into the folder", error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(OpenError::Settings(format!("{} is not empty", dir.display()))),
        },
    }
}

/// A folder beside the one that is wanted, removed unless it takes its place.
struct Making(PathBuf);

impl Making {
    fn begin(parent: &Path, dir: &Path) -> Result<Self, OpenError> {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let making = parent.join(format!(".{name}.{}", world::random::hex(4)));
        fs::create_dir(&making).map_err(|error| io_fault("create the folder", error))?;
        use std::os::unix::fs::PermissionsExt as _;
        let private = fs::set_permissions(&making, fs::Permissions::from_mode(0o700));
        let making = Self(making);
        private.map_err(|error| io_fault("close the folder to others", error))?;
        Ok(making)
    }

    fn end(self, parent: &Path, dir: &Path) -> Result<(), OpenError> {
        let named = world::file::sync_folder(&self.0).and_then(|()| fs::rename(&self.0, dir));
        named.and_then(|()| world::file::sync_folder(parent)).map_err(|error| io_fault("name the folder", error))
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        // It is gone when it took its place.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The copy without what comes after it.
fn trimmed(copy: &Path, folder: &Path) -> Result<PathBuf, OpenError> {
    let bytes = state::extent(copy)?;
    let path = folder.join("copy");
    let written = File::open(copy).and_then(|from| {
        let mut to = File::create_new(&path)?;
        io::copy(&mut from.take(bytes), &mut to)
    });
    written.map_err(|error| io_fault("read the copy", error))?;
    Ok(path)
}

/// Those who begin together, the same on each: where clients reach them they publish when they start.
fn membership(identity: &Identity, applied: LogId) -> Result<StoredMembershipOf<Types>, OpenError> {
    let seats: BTreeMap<MemberId, Seat> = identity
        .initial
        .iter()
        .map(|(id, initial)| {
            let contact = Contact { peer_urls: initial.peer_urls.clone(), ..Contact::default() };
            (*id, Seat { contact, to_vote: false })
        })
        .collect();
    let voters = seats.keys().copied().collect();
    let membership = Membership::new(vec![voters], seats).map_err(|error| OpenError::Settings(error.to_string()))?;
    Ok(StoredMembershipOf::<Types>::new(Some(applied), membership))
}
