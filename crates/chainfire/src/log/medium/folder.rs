//! A folder of the file system, locked while this lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use store::Error;

use super::{Blob, Medium, Pace, is_full};

const LOCK: &str = "lock";

/// Zeros are written in pieces of this size where room cannot be reserved otherwise.
const ZEROS_BYTES: usize = 1024 * 1024;

pub struct Folder {
    dir: PathBuf,
    lock: File,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being started may still share it.
        let _ = self.lock.unlock();
    }
}

impl Folder {
    /// Creates the folder, readable by its owner alone, when it is missing. [`Error::Locked`] while another has it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let create = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        create.map_err(|error| fault("create the log's folder", error))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join(LOCK));
        let lock = lock.map_err(|error| fault("open the log's lock file", error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_path_buf(), lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: dir.to_path_buf() }),
            Err(TryLockError::Error(error)) => Err(fault("lock the log's folder", error)),
        }
    }
}

fn fault(act: &'static str, error: io::Error) -> Error {
    if is_full(&error) { Error::DiskFull } else { Error::storage(act, error) }
}

impl Medium for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Blob>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Blob>> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&path)?;
        match reserve(&file, bytes) {
            Ok(()) => Ok(Arc::new(file)),
            Err(error) => {
                // What it took so far may be missed elsewhere.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn pace(&self) -> Pace {
        Pace::Disk
    }
}

/// Gives the file its length and its blocks, so that a sync later has hardly any metadata to write.
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let zeros = vec![0; ZEROS_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = (bytes - at).min(zeros.len() as u64);
        file.write_all_at(&zeros[..piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

impl Blob for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match FileExt::read_at(self, &mut out[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn free_after(&self, offset: u64) {
        let Ok(bytes) = self.bytes() else { return };
        if offset < bytes {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // A file system that cannot keeps the room until the segment is removed.
            let _ = rustix::fs::fallocate(self, flags, offset, bytes - offset);
        }
    }
}
