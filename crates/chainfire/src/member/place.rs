//! Where a member keeps what it must not forget.
//!
//! ```text
//!   D/lock          held while the member is open
//!   D/member.json   who it is
//!   D/log/          segments
//!   D/state/        the state, and D/snapshots/ copies on their way; D/state.damaged/ what it was replaced for
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use store::Error;

use super::OpenError;
use super::identity::Identity;
use crate::log::{self, Log};
use crate::state::{self, LeaseHook, State};

const LOCK: &str = "lock";
const LOG: &str = "log";
const STATE: &str = "state";
const STATE_ASIDE: &str = "state.damaged";

#[derive(Clone)]
pub enum Place {
    /// Made when it is missing.
    Folder(PathBuf),
    /// In memory, for simulation: nothing there waits for files or threads.
    Simulated(Simulated),
}

/// What survives a crash of the member.
#[derive(Clone, Default)]
pub struct Simulated {
    pub log: log::Disk,
    pub state: state::Image,
    identity: Arc<Mutex<Option<Identity>>>,
}

/// A place that was taken.
pub struct Taken {
    place: Place,
    _lock: Option<Lock>,
}

struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being started may still share it.
        let _ = self.0.unlock();
    }
}

fn lock(dir: &Path) -> Result<Lock, Error> {
    let create = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    create.map_err(|error| Error::storage("create the data folder", error))?;
    let path = dir.join(LOCK);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let lock = lock.map_err(|error| Error::storage("open the lock file", error))?;
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { path: dir.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(Error::storage("lock the data folder", error)),
    }
}

/// Runs what may wait for a disk; on a thread for that where there are threads.
async fn work<T: Send + 'static, E: From<Error> + Send + 'static>(
    inline: bool,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    if inline {
        return work();
    }
    let worked = tokio::task::spawn_blocking(work).await;
    worked.unwrap_or_else(|error| Err(Error::storage("open the member", error).into()))
}

impl Place {
    /// Nothing here waits for files or threads.
    pub fn is_inline(&self) -> bool {
        matches!(self, Self::Simulated(_))
    }

    /// For messages.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Folder(dir) => dir.clone(),
            Self::Simulated(_) => PathBuf::from("simulated"),
        }
    }

    /// Errors: [`Error::Locked`], [`Error::Storage`].
    pub async fn take(self) -> Result<Taken, OpenError> {
        work(self.is_inline(), move || {
            let lock = match &self {
                Self::Folder(dir) => Some(lock(dir)?),
                Self::Simulated(_) => None,
            };
            Ok(Taken { place: self, _lock: lock })
        })
        .await
    }
}

impl Taken {
    pub fn path(&self) -> PathBuf {
        self.place.path()
    }

    pub fn is_inline(&self) -> bool {
        self.place.is_inline()
    }

    pub async fn identity(&self) -> Result<Option<Identity>, OpenError> {
        match self.place.clone() {
            Place::Folder(dir) => work(false, move || Identity::read(&dir)).await,
            Place::Simulated(simulated) => Ok(simulated.identity.lock().clone()),
        }
    }

    pub async fn set_identity(&self, identity: Identity) -> Result<(), OpenError> {
        match self.place.clone() {
            Place::Folder(dir) => work(false, move || identity.write(&dir)).await,
            Place::Simulated(simulated) => {
                *simulated.identity.lock() = Some(identity);
                Ok(())
            }
        }
    }

    pub async fn log(&self, cluster: u64) -> Result<Log, OpenError> {
        let options = log::Options { cluster, ..log::Options::default() };
        match self.place.clone() {
            Place::Folder(dir) => work(false, move || Ok(Log::open(&dir.join(LOG), options)?)).await,
            Place::Simulated(simulated) => {
                // Small, as all of it is in memory.
                let options = log::Options { segment_bytes: SIMULATED_SEGMENT_BYTES, ..options };
                Ok(Log::open_on(simulated.log.attach(), options)?)
            }
        }
    }

    /// Puts a state that cannot be used aside, for whoever wants to know what happened to it. One that lies there from
    /// before is removed.
    pub async fn put_state_aside(&self) -> Result<(), OpenError> {
        match self.place.clone() {
            Place::Simulated(simulated) => {
                simulated.state.replace(BTreeMap::new());
                Ok(())
            }
            Place::Folder(dir) => {
                work(false, move || {
                    let (from, to) = (dir.join(STATE), dir.join(STATE_ASIDE));
                    match fs::remove_dir_all(&to) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(Error::storage("remove a damaged state of before", error).into());
                        }
                        Ok(()) | Err(_) => {}
                    }
                    let aside = fs::rename(&from, &to).and_then(|()| world::file::sync_folder(&dir));
                    Ok(aside.map_err(|error| Error::storage("put the damaged state aside", error))?)
                })
                .await
            }
        }
    }

    /// Makes the state that was put aside the one in use again.
    pub async fn put_state_back(&self) -> Result<(), OpenError> {
        let Place::Folder(dir) = self.place.clone() else { return Ok(()) };
        work(false, move || {
            let (aside, state) = (dir.join(STATE_ASIDE), dir.join(STATE));
            let back = fs::remove_dir_all(&state).and_then(|()| fs::rename(&aside, &state));
            let back = back.and_then(|()| world::file::sync_folder(&dir));
            Ok(back.map_err(|error| Error::storage("put the damaged state back", error))?)
        })
        .await
    }

    pub async fn state(&self, hook: LeaseHook) -> Result<State, OpenError> {
        let options = state::Options { on_leases: Some(hook), ..state::Options::default() };
        let place = match self.place.clone() {
            Place::Folder(dir) => state::Place::Folder(dir),
            Place::Simulated(simulated) => state::Place::Memory(simulated.state),
        };
        work(self.place.is_inline(), move || Ok(State::open(&place, options)?)).await
    }
}

const SIMULATED_SEGMENT_BYTES: u64 = 256 * 1024;
