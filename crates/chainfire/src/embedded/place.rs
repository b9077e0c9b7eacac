//! Where the database lies: making it, locking it, opening it again.
//!
//! A new database is made under another name and renamed when it is complete and on disk, so a crash while making one
//! leaves none. The lock is held on a file of its own from before the first look until the end.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, StorageBackend, TableError};
use store::{Error, Revision};

use super::fault::{Fault, at, io_fault, opening};
use super::tables::{Draft, META, META_FORMAT, Snapshot, mark};

/// Of the tables and records.
pub const FORMAT: u64 = 1;

const DATABASE: &str = "chainfire.redb";
const UNFINISHED: &str = "chainfire.redb.new";
const LOCK: &str = "lock";

pub struct Place {
    dir: PathBuf,
    database: PathBuf,
    cache_bytes: usize,
    /// Holds the lock.
    _lock: File,
}

impl Place {
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
        Ok(Self { dir: dir.to_path_buf(), database: dir.join(DATABASE), cache_bytes, _lock: lock })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn database(&self) -> &Path {
        &self.database
    }

    /// Makes the database when there is none.
    pub fn open(&self) -> Result<Database, Error> {
        match fs::metadata(&self.database) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make()?,
            Err(error) => return Err(io_fault("look at the database", error)),
        }
        let path = &self.database;
        // The storage engine asserts some of what it reads; a damaged file must not end the process.
        let open = std::panic::catch_unwind(|| {
            let database = Builder::new().set_cache_size(self.cache_bytes).open(path);
            let database = database.map_err(|error| opening(path, error))?;
            check_format(&database, path)?;
            Ok(database)
        });
        open.unwrap_or_else(|_| {
            Err(Error::Corrupt { path: path.clone(), reason: "its pages contradict each other".into() })
        })
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

/// Opens or makes the database on storage that is not a file.
pub fn open_on(backend: impl StorageBackend, cache_bytes: usize) -> Result<Database, Error> {
    let path = Path::new("");
    let database = Builder::new().set_cache_size(cache_bytes).create_with_backend(backend);
    let database = database.map_err(|error| opening(path, error))?;
    let transaction = database.begin_read().fault("read the database")?;
    let fresh = matches!(transaction.open_table(META), Err(TableError::TableDoesNotExist(_)));
    drop(transaction);
    if fresh {
        format(&database)?;
    }
    check_format(&database, path)?;
    Ok(database)
}

fn format(database: &Database) -> Result<(), Error> {
    let transaction = database.begin_write().fault("begin to format the database")?;
    Draft::open(&transaction)?.set_mark(META_FORMAT, FORMAT)?;
    transaction.commit().fault("format the database")
}

fn check_format(database: &Database, path: &Path) -> Result<(), Error> {
    let transaction = database.begin_read().fault("read the database")?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => {
            return Err(Error::Corrupt { path: path.to_path_buf(), reason: "it is some other database".into() });
        }
        Err(error) => return Err(error).fault("read the database").map_err(at(path)),
    };
    match mark(&meta, META_FORMAT).map_err(at(path))? {
        Some(FORMAT) => {}
        Some(found) => return Err(Error::FormatUnknown { path: path.to_path_buf(), found, known: FORMAT }),
        None => return Err(Error::Corrupt { path: path.to_path_buf(), reason: "it does not name its format".into() }),
    }
    drop(meta);
    let newest = Snapshot::open(&transaction).map_err(at(path))?.newest;
    debug_assert!(newest >= Revision::FIRST);
    Ok(())
}
