//! What outlives the process: the last good desired state, and the node settings as they were before us.
//!
//! ```text
//! <state_dir>/lock           held by the one engine that runs on it
//! <state_dir>/desired.json   {"version":1,"desired":{...}}
//! <state_dir>/before.json    {"version":1,"settings":{"ipv4/ip_forward":["0","1"]}}   before, after
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::desired::Desired;
use crate::error::Error;

/// Of both files.
const VERSION: u32 = 1;

/// A setting before we changed it, and what we made of it.
pub type Changed = BTreeMap<String, (String, String)>;

/// The folder, locked.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DesiredFile {
    version: u32,
    desired: Desired,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BeforeFile {
    version: u32,
    settings: Changed,
}

impl State {
    /// Makes the folder when missing and takes its lock, which the kernel gives back when the process ends.
    ///
    /// # Errors
    /// [`Error::StateLocked`] when another engine has it; [`Error::StateWrite`].
    pub fn open(folder: &Path) -> Result<Self, Error> {
        world::file::create_folder(folder, 0o700).map_err(|source| write_failed(folder, source))?;
        let path = folder.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| write_failed(&path, source))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { folder: folder.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::StateLocked { path }),
            Err(errno) => Err(write_failed(&path, errno.into())),
        }
    }

    /// # Errors
    /// [`Error::StateRead`].
    pub fn desired(&self) -> Result<Option<Desired>, Error> {
        let file: Option<DesiredFile> = self.read("desired.json", |file: &DesiredFile| file.version)?;
        Ok(file.map(|file| file.desired))
    }

    /// # Errors
    /// [`Error::StateWrite`].
    pub fn keep_desired(&self, desired: &Desired) -> Result<(), Error> {
        self.write("desired.json", &DesiredFile { version: VERSION, desired: desired.clone() })
    }

    /// Empty where nothing was changed.
    ///
    /// # Errors
    /// [`Error::StateRead`].
    pub fn before(&self) -> Result<Changed, Error> {
        let file: Option<BeforeFile> = self.read("before.json", |file: &BeforeFile| file.version)?;
        Ok(file.map(|file| file.settings).unwrap_or_default())
    }

    /// # Errors
    /// [`Error::StateWrite`].
    pub fn keep_before(&self, settings: &Changed) -> Result<(), Error> {
        self.write("before.json", &BeforeFile { version: VERSION, settings: settings.clone() })
    }

    /// Removes both files and keeps the lock.
    ///
    /// # Errors
    /// [`Error::StateWrite`].
    pub fn forget(&self) -> Result<(), Error> {
        for name in ["desired.json", "before.json"] {
            let path = self.folder.join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(write_failed(&path, source)),
                _ => {}
            }
        }
        world::file::sync_folder(&self.folder).map_err(|source| write_failed(&self.folder, source))
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str, version: fn(&T) -> u32) -> Result<Option<T>, Error> {
        let path = self.folder.join(name);
        let failed = |detail: String| Error::StateRead { path: path.clone(), detail };
        let Some(bytes) = world::file::read_optional(&path).map_err(|error| failed(error.to_string()))? else {
            return Ok(None);
        };
        let file: T = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        if version(&file) != VERSION {
            return Err(failed(format!("version {} is not {VERSION}", version(&file))));
        }
        Ok(Some(file))
    }

    fn write(&self, name: &str, file: &impl Serialize) -> Result<(), Error> {
        let path = self.folder.join(name);
        let bytes = serde_json::to_vec_pretty(file).map_err(|error| write_failed(&path, error.into()))?;
        world::file::write_atomic(&path, &bytes, 0o600).map_err(|source| write_failed(&path, source))
    }
}

fn write_failed(path: &Path, source: io::Error) -> Error {
    Error::StateWrite { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{Network, Port};

    #[test]
    fn the_desired_state_comes_back_and_the_folder_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        assert!(matches!(State::open(folder.path()), Err(Error::StateLocked { .. })));
        assert_eq!(state.desired().unwrap(), None);
        let desired = Desired { generation: 7, networks: vec![Network { number: 3, ports: vec![Port::new("a", 2)] }] };
        state.keep_desired(&desired).unwrap();
        drop(state);
        let state = State::open(folder.path()).unwrap();
        assert_eq!(state.desired().unwrap(), Some(desired));
        state.forget().unwrap();
        assert_eq!(state.desired().unwrap(), None);
    }

    #[test]
    fn the_first_version_stays_readable_and_a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let path = folder.path().join("desired.json");
        let golden = r#"{"version":1,"desired":{"generation":4,"networks":[{"number":1,"ports":[{"id":"vm_1","offset":2,"isolated":false}]}]}}"#;
        fs::write(&path, golden).unwrap();
        assert_eq!(state.desired().unwrap().unwrap().networks[0].ports[0], Port::new("vm_1", 2));
        for bad in ["", "{", &golden.replace("\"version\":1", "\"version\":2"), &golden[..40]] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(state.desired(), Err(Error::StateRead { .. })), "{bad}");
        }
    }
}
