//! Root images on disk.
//!
//! ```text
//! DIR/lock                          held while a process uses the store
//! DIR/roots/sha256-HEX/root.erofs   named by the manifest's digest
//! DIR/roots/sha256-HEX/root.json    the record; its modification time is the last use
//! DIR/tmp/                          what is being built or removed; emptied at open
//! ```
//!
//! A folder appears in `roots` whole, by rename, and leaves it by rename: whatever a crash interrupts is in `tmp`.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::unpack::FORMAT_VERSION;

pub const IMAGE_FILE: &str = "root.erofs";
const RECORD_FILE: &str = "root.json";
const RECORD_BYTES_MAX: u64 = 64 << 10;
const FOLDER_MODE: u32 = 0o700;

/// What was built, beside the file. Field names are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub format_version: u32,
    /// The manifest's digest.
    pub digest: Digest,
    /// Of the root image file.
    pub sha256: Digest,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Root {
    pub record: Record,
    /// Disk it takes, which holes make smaller than its length.
    pub disk_bytes: u64,
    pub last_used_ms: u64,
    /// Hashed since this process began.
    pub is_verified: bool,
    /// Handed out and not given back.
    pub leases: usize,
    /// Tells this one from an earlier one of the same digest, whose leases may outlive it.
    pub serial: u64,
}

#[derive(Debug)]
pub struct Roots {
    dir: PathBuf,
    by_digest: HashMap<Digest, Root>,
    in_use: HashSet<Digest>,
    next_serial: u64,
    /// Released when the process ends, however it ends.
    _lock: File,
}

impl Roots {
    /// Takes the store for this process, empties `tmp` and reads the records. What has no sound record is removed.
    pub fn open(dir: &Path) -> Result<Self> {
        for folder in [dir.to_owned(), dir.join("roots")] {
            world::file::create_folder(&folder, FOLDER_MODE).map_err(|error| Error::disk("create", &folder, error))?;
        }
        let lock_path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|error| Error::disk("open", &lock_path, error))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |error| match error {
                rustix::io::Errno::WOULDBLOCK => Error::LockStore { path: dir.display().to_string() },
                error => Error::disk("lock", &lock_path, error.into()),
            },
        )?;
        let tmp = dir.join("tmp");
        remove_folder(&tmp)?;
        world::file::create_folder(&tmp, FOLDER_MODE).map_err(|error| Error::disk("create", &tmp, error))?;
        let mut roots = Self {
            dir: dir.to_owned(),
            by_digest: HashMap::new(),
            in_use: HashSet::new(),
            next_serial: 0,
            _lock: lock,
        };
        let folder = dir.join("roots");
        let listing = fs::read_dir(&folder).map_err(|error| Error::disk("list", &folder, error))?;
        for entry in listing {
            let path = entry.map_err(|error| Error::disk("list", &folder, error))?.path();
            match read(&path) {
                Some(root) if roots.folder(&root.record.digest) == path => {
                    roots.by_digest.insert(root.record.digest, root);
                }
                _ => {
                    tracing::warn!(path = %path.display(), "removing a root image without a sound record");
                    remove_folder(&path)?;
                }
            }
        }
        Ok(roots)
    }

    fn serial(&mut self) -> u64 {
        self.next_serial += 1;
        self.next_serial
    }

    pub fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    pub fn folder(&self, digest: &Digest) -> PathBuf {
        self.dir.join("roots").join(format!("sha256-{}", digest.hex()))
    }

    pub fn image(&self, digest: &Digest) -> PathBuf {
        self.folder(digest).join(IMAGE_FILE)
    }

    pub fn get(&self, digest: &Digest) -> Option<&Root> {
        self.by_digest.get(digest)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Root, bool)> {
        self.by_digest.values().map(|root| (root, self.is_needed(root)))
    }

    /// Makes the folder `built`, which holds the image file, the root image of `record.digest`.
    pub fn install(&mut self, built: &Path, record: Record, now_ms: u64) -> Result<()> {
        let record_path = built.join(RECORD_FILE);
        let text = serde_json::to_vec(&record).unwrap_or_default();
        world::file::write_atomic(&record_path, &text, 0o600)
            .map_err(|error| Error::disk("write", &record_path, error))?;
        let target = self.folder(&record.digest);
        remove_folder(&target)?;
        let roots = self.dir.join("roots");
        fs::rename(built, &target)
            .and_then(|()| world::file::sync_folder(&roots))
            .map_err(|error| Error::disk("install", &target, error))?;
        let disk_bytes = disk_bytes(&target.join(IMAGE_FILE)).unwrap_or(record.bytes);
        let root =
            Root { disk_bytes, last_used_ms: now_ms, is_verified: true, leases: 0, serial: self.serial(), record };
        self.by_digest.insert(root.record.digest, root);
        Ok(())
    }

    /// Counts a use and hands the root image out.
    pub fn lease(&mut self, digest: &Digest, now_ms: u64) -> Option<(Record, u64)> {
        let record_path = self.folder(digest).join(RECORD_FILE);
        let root = self.by_digest.get_mut(digest)?;
        root.leases += 1;
        root.last_used_ms = now_ms;
        // Only the order of removal after a restart depends on it.
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        if let Err(error) = rustix::fs::utimensat(rustix::fs::CWD, &record_path, &times, flags) {
            tracing::debug!(%error, "the time of use was not kept");
        }
        Some((root.record.clone(), root.serial))
    }

    pub fn release(&mut self, digest: &Digest, serial: u64) {
        if let Some(root) = self.by_digest.get_mut(digest).filter(|root| root.serial == serial) {
            root.leases = root.leases.saturating_sub(1);
        }
    }

    pub fn set_verified(&mut self, digest: &Digest) {
        if let Some(root) = self.by_digest.get_mut(digest) {
            root.is_verified = true;
        }
    }

    /// The root images that machines run from, whether handed out here or before a restart.
    pub fn set_in_use(&mut self, in_use: HashSet<Digest>) {
        self.in_use = in_use;
    }

    fn is_needed(&self, root: &Root) -> bool {
        root.leases > 0 || self.in_use.contains(&root.record.digest)
    }

    /// Takes the least recently used ones that nobody needs out of the store until the rest fits the budget. Answers
    /// their digests and the folders still to be removed.
    pub fn evict(&mut self, budget_bytes: u64) -> Vec<(Digest, PathBuf)> {
        let mut total: u64 = self.by_digest.values().map(|root| root.disk_bytes).sum();
        let mut idle: Vec<(u64, Digest, u64)> = self
            .by_digest
            .values()
            .filter(|root| !self.is_needed(root))
            .map(|root| (root.last_used_ms, root.record.digest, root.disk_bytes))
            .collect();
        idle.sort_unstable();
        let mut evicted = Vec::new();
        for (_, digest, bytes) in idle {
            if total <= budget_bytes {
                break;
            }
            match self.take_out(&digest) {
                Ok(path) => {
                    total -= bytes;
                    evicted.push((digest, path));
                }
                Err(error) => tracing::warn!(%error, %digest, "a root image could not be removed"),
            }
        }
        if total > budget_bytes {
            tracing::warn!(total, budget_bytes, "root images in use take more than the disk budget");
        }
        evicted
    }

    /// Out of `roots` at once; its folder in `tmp` is the caller's to remove.
    pub fn take_out(&mut self, digest: &Digest) -> Result<PathBuf> {
        let from = self.folder(digest);
        let serial = self.serial();
        let to = self.tmp().join(format!("removed-{serial}-{}", digest.hex()));
        fs::rename(&from, &to).map_err(|error| Error::disk("remove", &from, error))?;
        self.by_digest.remove(digest);
        Ok(to)
    }
}

fn read(folder: &Path) -> Option<Root> {
    let path = folder.join(RECORD_FILE);
    let metadata = path.symlink_metadata().ok().filter(fs::Metadata::is_file)?;
    if metadata.len() > RECORD_BYTES_MAX {
        return None;
    }
    let record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let image = folder.join(IMAGE_FILE).symlink_metadata().ok()?;
    if record.format_version != FORMAT_VERSION || !image.is_file() || image.len() != record.bytes {
        return None;
    }
    let last_used_ms = (metadata.mtime().max(0) as u64) * 1000 + (metadata.mtime_nsec().max(0) as u64) / 1_000_000;
    Some(Root { disk_bytes: image.blocks() * 512, last_used_ms, is_verified: false, leases: 0, serial: 0, record })
}

fn disk_bytes(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|metadata| metadata.blocks() * 512)
}

pub fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::disk("remove", folder, error)),
        _ => Ok(()),
    }
}
