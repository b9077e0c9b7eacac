//! Where the database lies: making it, locking it, opening it again.
//!
//! A new database is made under another name and renamed when it is complete and on disk, so a crash while making one
//! leaves none. The lock is held on a file of its own from before the first look until the end.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableError};
use store::Error;

use super::fault::{Fault, contained, damaged, io_fault, opening};
use super::room::{self, Room};
use super::tables::{Draft, META, META_FORMAT, Snapshot, mark};
use super::verify::verify;

/// Of the tables and records.
pub const FORMAT: u64 = 1;

const DATABASE: &str = "chainfire.redb";
const UNFINISHED: &str = "chainfire.redb.new";
const LOCK: &str = "lock";

/// Somewhere a database can be opened, again when it failed.
pub trait Place: Send {
    /// Makes the database when there is none.
    fn open(&self) -> Result<Database, Error>;

    fn room(&self) -> Room;
}

/// A folder, locked while this lives.
pub struct Folder {
    dir: PathBuf,
    database: PathBuf,
    cache_bytes: usize,
    lock: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being started may still share it.
        let _ = self.lock.unlock();
    }
}

impl Folder {
    /// Creates the folder, readable by its owner alone, when it is missing.
    pub fn lock(dir: &Path, cache_bytes: usize) -> Result<Self, Error> {
        let create = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        create.map_err(|error| io_fault("create the data folder", error))?;
        let path = dir.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|error| io_fault("open the lock file", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: dir.to_path_buf() }),
            Err(TryLockError::Error(error)) => return Err(io_fault("lock the data folder", error)),
        }
        Ok(Self { dir: dir.to_path_buf(), database: dir.join(DATABASE), cache_bytes, lock })
    }

    pub fn database(&self) -> &Path {
        &self.database
    }

    fn make(&self) -> Result<(), Error> {
        let unfinished = self.dir.join(UNFINISHED);
        match fs::remove_file(&unfinished) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_fault("remove an unfinished database", error)),
        }
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&unfinished);
        let file = file.map_err(|error| io_fault("create the database", error))?;
        let database = Builder::new().set_cache_size(self.cache_bytes).create_file(file);
        let database = database.map_err(|error| opening(&unfinished, error))?;
        format(&database)?;
        drop(database);
        let synced = File::open(&unfinished).and_then(|file| file.sync_all());
        synced.map_err(|error| io_fault("sync the new database", error))?;
        fs::rename(&unfinished, &self.database).map_err(|error| io_fault("name the new database", error))?;
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| io_fault("sync the data folder", error))
    }
}

impl Place for Folder {
    fn open(&self) -> Result<Database, Error> {
        match fs::metadata(&self.database) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make()?,
            Err(error) => return Err(io_fault("look at the database", error)),
        }
        let path = &self.database;
        verify(path, self.cache_bytes)?;
        contained(path, || {
            let database = Builder::new().set_cache_size(self.cache_bytes).open(path);
            let database = database.map_err(|error| opening(path, error))?;
            check_format(&database, path)?;
            Ok(database)
        })
    }

    fn room(&self) -> Room {
        // Not knowing is no reason to refuse: the commit itself will tell.
        room::look(&self.dir).unwrap_or(Room::Enough)
    }
}

/// Storage that is not a file, such as a simulated disk; each call gives another handle to the same one.
pub struct Storage<F> {
    pub backend: F,
    pub cache_bytes: usize,
}

impl<F: Fn() -> B + Send, B: StorageBackend> Place for Storage<F> {
    fn open(&self) -> Result<Database, Error> {
        let path = Path::new("");
        contained(path, || {
            let database = Builder::new().set_cache_size(self.cache_bytes).create_with_backend((self.backend)());
            let database = database.map_err(|error| opening(path, error))?;
            let transaction = database.begin_read().fault("read the database")?;
            let fresh = matches!(transaction.open_table(META), Err(TableError::TableDoesNotExist(_)));
            drop(transaction);
            if fresh {
                format(&database)?;
            }
            check_format(&database, path)?;
            Ok(database)
        })
    }

    fn room(&self) -> Room {
        Room::Enough
    }
}

fn format(database: &Database) -> Result<(), Error> {
    let transaction = database.begin_write().fault("begin to format the database")?;
    Draft::open(&transaction)?.set_mark(META_FORMAT, FORMAT)?;
    transaction.commit().fault("format the database")
}

fn check_format(database: &Database, path: &Path) -> Result<(), Error> {
    let transaction = database.begin_read().fault("read the database")?;
    let meta = match transaction.open_table(META) {
        Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => {
            return Err(damaged("it is some other database"));
        }
        meta => meta.fault("read the database")?,
    };
    match mark(&meta, META_FORMAT)? {
        Some(FORMAT) => Snapshot::open(&transaction).map(drop),
        Some(found) => Err(Error::FormatUnknown { path: path.to_path_buf(), found, known: FORMAT }),
        None => Err(damaged("it does not name its format")),
    }
}
