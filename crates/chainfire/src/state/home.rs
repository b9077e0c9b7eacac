//! Where states lie: one in use, perhaps a new one beside it, and copies that come in.
//!
//! ```text
//! D/state/lock          held while the state is open
//! D/state/current       the number of the folder in use, and a checksum
//! D/state/N/            a tree
//! D/snapshots/N.part    a copy that is coming in
//! ```
//!
//! A new state becomes the one in use by renaming the file that names it. Whatever is not named is removed at the next
//! start.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use store::Error;

use super::copy::{Incoming, Loaded};
use super::memory::Image;
use crate::fault::io_fault;

const STATE: &str = "state";
const SNAPSHOTS: &str = "snapshots";
const LOCK: &str = "lock";
const CURRENT: &str = "current";
const CURRENT_NEW: &str = "current.new";

/// Where a member keeps its state.
#[derive(Clone)]
pub enum Place {
    /// In this folder, made when it is missing.
    Folder(PathBuf),
    /// In this image, for simulation: no files, no threads.
    Memory(Image),
}

/// A place that was taken.
pub enum Home {
    Folder(Folder),
    Memory(Image),
}

impl Home {
    /// Errors: [`Error::Locked`], [`Error::Storage`].
    pub fn take(place: &Place) -> Result<Self, Error> {
        match place {
            Place::Folder(dir) => Folder::lock(dir).map(Self::Folder),
            Place::Memory(image) => Ok(Self::Memory(image.clone())),
        }
    }

    /// Nothing here waits for threads or files.
    pub fn is_inline(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    pub fn must_be_empty(&self) -> Result<(), Error> {
        match self {
            Self::Folder(folder) => match folder.current()? {
                None => Ok(()),
                Some(_) => Err(Error::storage("restore", io::Error::from(io::ErrorKind::AlreadyExists))),
            },
            Self::Memory(image) if image.items().is_empty() => Ok(()),
            Self::Memory(_) => Err(Error::storage("restore", io::Error::from(io::ErrorKind::AlreadyExists))),
        }
    }

    /// From now on, also after a crash, this is the state.
    pub fn switch(&self, loaded: Loaded) -> Result<(), Error> {
        match (self, loaded) {
            (Self::Folder(folder), Loaded::Folder(number)) => folder.name(number),
            (Self::Memory(image), Loaded::Memory(new)) => {
                image.replace((*new.items()).clone());
                Ok(())
            }
            _ => unreachable!("a state is loaded where it is used"),
        }
    }

    pub fn receive(&self) -> Result<Incoming, Error> {
        match self {
            Self::Folder(folder) => folder.receive(),
            Self::Memory(_) => Ok(Incoming::to_memory()),
        }
    }
}

/// Locked while this lives.
pub struct Folder {
    state: PathBuf,
    snapshots: PathBuf,
    lock: File,
    received: AtomicU64,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being started may still share it.
        let _ = self.lock.unlock();
    }
}

fn make(dir: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| io_fault("make a folder of the state", error))
}

fn sync(dir: &Path) -> Result<(), Error> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| io_fault("sync a folder of the state", error))
}

impl Folder {
    fn lock(dir: &Path) -> Result<Self, Error> {
        let (state, snapshots) = (dir.join(STATE), dir.join(SNAPSHOTS));
        make(&state)?;
        make(&snapshots)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(state.join(LOCK));
        let lock = lock.map_err(|error| io_fault("open the lock file of the state", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: state }),
            Err(TryLockError::Error(error)) => return Err(io_fault("lock the state", error)),
        }
        sync(dir)?;
        let folder = Self { state, snapshots, lock, received: AtomicU64::new(0) };
        for (_, path) in numbered(&folder.snapshots)? {
            fs::remove_file(path).map_err(|error| io_fault("remove a copy that never came in whole", error))?;
        }
        Ok(folder)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.state.join(number.to_string())
    }

    /// The number of the state in use.
    pub fn current(&self) -> Result<Option<u64>, Error> {
        let path = self.state.join(CURRENT);
        let corrupt = |reason: &str| Error::Corrupt { path: path.clone(), reason: reason.into() };
        let named = match fs::read_to_string(&path) {
            Ok(named) => named,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(corrupt("it is not text")),
            Err(error) => return Err(io_fault("read which state is in use", error)),
        };
        let (number, sum) = named.trim_end().split_once(' ').ok_or_else(|| corrupt("it names no state"))?;
        if sum != checksum(number) {
            return Err(corrupt("it has a wrong checksum"));
        }
        number.parse().map(Some).map_err(|_| corrupt("it names no state"))
    }

    /// Makes `number` the state in use.
    fn name(&self, number: u64) -> Result<(), Error> {
        let act = "name the state in use";
        let (new, current) = (self.state.join(CURRENT_NEW), self.state.join(CURRENT));
        let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new);
        let mut file = file.map_err(|error| io_fault(act, error))?;
        let text = format!("{number} {}\n", checksum(&number.to_string()));
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|error| io_fault(act, error))?;
        fs::rename(&new, &current).map_err(|error| io_fault(act, error))?;
        sync(&self.state)
    }

    /// The tree in use. Removes what is not in use.
    pub fn open(&self) -> Result<PathBuf, Error> {
        let there = numbered(&self.state)?;
        let number = match self.current()? {
            Some(number) if there.iter().any(|(other, _)| *other == number) => number,
            Some(number) => return Err(Error::Corrupt { path: self.path(number), reason: "it is missing".into() }),
            None => {
                let filled =
                    |path: &Path| path.join("tables").read_dir().is_ok_and(|mut tables| tables.next().is_some());
                if let Some((_, path)) = there.iter().find(|(_, path)| filled(path)) {
                    return Err(Error::Corrupt {
                        path: path.clone(),
                        reason: "nothing says that this is the state in use".into(),
                    });
                }
                let number = there.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1;
                make(&self.path(number))?;
                self.name(number)?;
                number
            }
        };
        for (other, _) in there.iter().filter(|(other, _)| *other != number) {
            self.forget(*other);
        }
        Ok(self.path(number))
    }

    /// A number and a folder that nothing uses.
    pub fn fresh(&self) -> Result<(u64, PathBuf), Error> {
        let number = numbered(&self.state)?.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1;
        let path = self.path(number);
        make(&path)?;
        Ok((number, path))
    }

    pub fn forget(&self, number: u64) {
        if let Err(error) = fs::remove_dir_all(self.path(number)) {
            tracing::warn!(%error, number, "a state that is not in use could not be removed");
        }
    }

    fn receive(&self) -> Result<Incoming, Error> {
        let number = self.received.fetch_add(1, Ordering::Relaxed);
        Incoming::to_file(&self.snapshots.join(format!("{number}.part")))
    }
}

/// What has a number for a name, before the first dot.
fn numbered(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let act = "look at a folder of the state";
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| io_fault(act, error))? {
        let path = entry.map_err(|error| io_fault(act, error))?.path();
        let number = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    Ok(found)
}

fn checksum(number: &str) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(number.as_bytes());
    format!("{:08x}", crc.sum())
}
