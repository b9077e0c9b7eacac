//! A disk in memory that forgets what was not synced when the power is cut, and that can be full, slow or broken.
//!
//! A sector that was written several times since the last sync may come back as any of what it was: as of the sync, or
//! after any of the writes. Sectors are torn apart from each other, in any order. Names that were made or changed since
//! the last sync of names come back in order, up to some point; removals come back each by itself. A sync that fails
//! forgets what it should have written, as kernels do: the next one answers well and does not write it either, although
//! it can be read until the power goes.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::format::SECTOR_BYTES;
use super::{Blob, Medium, Pace};

/// A disk. Clones are the same one. It outlives whoever has it attached.
#[derive(Clone, Default)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    files: BTreeMap<u64, File>,
    next_file: u64,
    /// As programs see them.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<Renaming>,
    /// Only what was attached last may do anything: whoever had it before is dead.
    attached: u64,
    /// Changes until the power goes.
    until_cut: Option<u64>,
    off: bool,
    broken: Option<io::ErrorKind>,
    capacity_bytes: Option<u64>,
    lag: Duration,
    lies: bool,
    syncs_fail: bool,
    counts: Counts,
}

/// Grows only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub writes: u64,
    pub syncs: u64,
    /// Everything that changes something or makes it durable, what [`Disk::cut_after`] counts.
    pub changes: u64,
}

#[derive(Clone, Default)]
struct File {
    cached: Vec<u8>,
    durable: Vec<u8>,
    /// What each sector that was written since the last sync was in between, oldest first.
    versions: BTreeMap<usize, Vec<Vec<u8>>>,
}

#[derive(Clone)]
enum Renaming {
    Name(String, u64),
    Rename(String, String),
    Remove(String),
}

impl Disk {
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk for a program that starts. A program that had it before finds it gone, like one that was killed: what it
    /// wrote is there, synced or not.
    pub fn attach(&self) -> Attached {
        let mut inner = self.inner.lock();
        inner.attached += 1;
        Attached { disk: self.clone(), number: inner.attached }
    }

    /// Cuts the power after so many more changes. Everything fails from then on.
    pub fn cut_after(&self, changes: u64) {
        self.inner.lock().until_cut = Some(changes);
    }

    /// Cuts the power, now if [`Disk::cut_after`] has not done so, and gives it back. `chance(n)` is below `n`.
    pub fn power_cycle(&self, chance: &mut dyn FnMut(u64) -> u64) {
        let mut inner = self.inner.lock();
        inner.survive(chance);
        inner.attached += 1;
        inner.until_cut = None;
        inner.off = false;
        inner.broken = None;
    }

    /// Syncs answer well and do nothing: to prove that a check finds losses.
    pub fn lie(&self, lies: bool) {
        self.inner.lock().lies = lies;
    }

    /// Syncs of files fail from now on; everything else works.
    pub fn fail_syncs(&self, fail: bool) {
        self.inner.lock().syncs_fail = fail;
    }

    /// Room for so many bytes of files; `None` for any.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner.lock().capacity_bytes = bytes;
    }

    /// Bytes of all files.
    pub fn used_bytes(&self) -> u64 {
        self.inner.lock().used_bytes()
    }

    /// Every write and sync fails with this from now on.
    pub fn set_broken(&self, broken: Option<io::ErrorKind>) {
        self.inner.lock().broken = broken;
    }

    /// How long each sync takes, on the clock of tokio.
    pub fn set_lag(&self, lag: Duration) {
        self.inner.lock().lag = lag;
    }

    pub fn counts(&self) -> Counts {
        self.inner.lock().counts
    }

    /// Names and contents, as a program would see them.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.inner.lock();
        inner.names.iter().map(|(name, id)| (name.clone(), inner.files[id].cached.clone())).collect()
    }

    /// Puts a file there, durably.
    pub fn put(&self, name: &str, content: Vec<u8>) {
        let mut inner = self.inner.lock();
        let id = inner.new_file(File { cached: content.clone(), durable: content, versions: BTreeMap::new() });
        inner.names.insert(name.into(), id);
        inner.durable_names.insert(name.into(), id);
    }
}

impl Inner {
    fn new_file(&mut self, file: File) -> u64 {
        self.next_file += 1;
        self.files.insert(self.next_file, file);
        self.next_file
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|id| self.files[id].cached.len() as u64).sum()
    }

    fn reads(&self, number: u64) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        if number != self.attached {
            return Err(io::Error::other("the disk belongs to another program now"));
        }
        Ok(())
    }

    fn changes(&mut self, number: u64) -> io::Result<()> {
        self.reads(number)?;
        match &mut self.until_cut {
            Some(0) => self.off = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.reads(number)?;
        if let Some(kind) = self.broken {
            return Err(io::Error::new(kind, "the disk is broken"));
        }
        self.counts.changes += 1;
        Ok(())
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn survive(&mut self, chance: &mut dyn FnMut(u64) -> u64) {
        let until = chance(self.unsynced_names.len() as u64 + 1) as usize;
        for (nth, renaming) in std::mem::take(&mut self.unsynced_names).into_iter().enumerate() {
            let names = &mut self.durable_names;
            match renaming {
                Renaming::Remove(name) => {
                    if chance(2) == 0 {
                        names.remove(&name);
                    }
                }
                Renaming::Name(name, id) if nth < until => drop(names.insert(name, id)),
                Renaming::Rename(from, to) if nth < until => {
                    if let Some(id) = names.remove(&from) {
                        names.insert(to, id);
                    }
                }
                Renaming::Name(..) | Renaming::Rename(..) => {}
            }
        }
        self.names = self.durable_names.clone();
        let named: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
        // All, nothing, or each sector by itself.
        let mode = chance(4);
        for file in self.files.values_mut() {
            for (sector, mut versions) in std::mem::take(&mut file.versions) {
                let choice = match mode {
                    0 => 0,
                    1 => versions.len() as u64,
                    _ => chance(versions.len() as u64 + 1),
                };
                if let Some(version) = choice.checked_sub(1) {
                    let content = versions.swap_remove(version as usize);
                    let start = sector * SECTOR_BYTES;
                    file.durable[start..start + content.len()].copy_from_slice(&content);
                }
            }
            file.cached.clone_from(&file.durable);
        }
    }
}

/// The disk as one program holds it.
#[derive(Clone)]
pub struct Attached {
    disk: Disk,
    number: u64,
}

struct Handle {
    attached: Attached,
    file: u64,
}

impl Medium for Attached {
    fn names(&self) -> io::Result<Vec<String>> {
        let inner = self.disk.inner.lock();
        inner.reads(self.number)?;
        Ok(inner.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn Blob>> {
        let inner = self.disk.inner.lock();
        inner.reads(self.number)?;
        Ok(Arc::new(Handle { attached: self.clone(), file: inner.find(name)? }))
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn Blob>> {
        let mut inner = self.disk.inner.lock();
        inner.changes(self.number)?;
        if inner.names.remove(name).is_some() {
            inner.unsynced_names.push(Renaming::Remove(name.into()));
        }
        if inner.capacity_bytes.is_some_and(|capacity| inner.used_bytes() + bytes > capacity) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let zeros = vec![0; bytes as usize];
        let file = inner.new_file(File { cached: zeros.clone(), durable: zeros, versions: BTreeMap::new() });
        inner.names.insert(name.into(), file);
        inner.unsynced_names.push(Renaming::Name(name.into(), file));
        Ok(Arc::new(Handle { attached: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        inner.changes(self.number)?;
        let file = inner.find(from)?;
        inner.names.remove(from);
        inner.names.insert(to.into(), file);
        inner.unsynced_names.push(Renaming::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        inner.changes(self.number)?;
        inner.find(name)?;
        inner.names.remove(name);
        inner.unsynced_names.push(Renaming::Remove(name.into()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.disk.inner.lock();
        inner.changes(self.number)?;
        inner.counts.syncs += 1;
        if !inner.lies {
            inner.unsynced_names.clear();
            inner.durable_names = inner.names.clone();
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let inner = self.disk.inner.lock();
        inner.reads(self.number)?;
        Ok(inner.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(inner.used_bytes())))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }

    fn pace(&self) -> Pace {
        Pace::Memory
    }

    fn lag(&self) -> Duration {
        self.disk.inner.lock().lag
    }
}

impl Handle {
    fn gone() -> io::Error {
        io::Error::other("the file went with the power")
    }
}

impl Blob for Handle {
    fn bytes(&self) -> io::Result<u64> {
        let inner = self.attached.disk.inner.lock();
        inner.reads(self.attached.number)?;
        Ok(inner.files.get(&self.file).ok_or_else(Self::gone)?.cached.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let inner = self.attached.disk.inner.lock();
        inner.reads(self.attached.number)?;
        let file = inner.files.get(&self.file).ok_or_else(Self::gone)?;
        let rest = file.cached.get(offset as usize..).unwrap_or_default();
        let bytes = rest.len().min(out.len());
        out[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.attached.disk.inner.lock();
        inner.changes(self.attached.number)?;
        inner.counts.writes += 1;
        let file = inner.files.get_mut(&self.file).ok_or_else(Self::gone)?;
        let (start, end) = (offset as usize, offset as usize + data.len());
        let target = file.cached.get_mut(start..end).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        target.copy_from_slice(data);
        for sector in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let from = sector * SECTOR_BYTES;
            let content = file.cached[from..file.cached.len().min(from + SECTOR_BYTES)].to_vec();
            file.versions.entry(sector).or_default().push(content);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.attached.disk.inner.lock();
        inner.changes(self.attached.number)?;
        inner.counts.syncs += 1;
        if inner.lies {
            return Ok(());
        }
        let fails = inner.syncs_fail;
        let file = inner.files.get_mut(&self.file).ok_or_else(Self::gone)?;
        for (sector, mut versions) in std::mem::take(&mut file.versions) {
            if let Some(newest) = versions.pop().filter(|_| !fails) {
                let start = sector * SECTOR_BYTES;
                file.durable[start..start + newest.len()].copy_from_slice(&newest);
            }
        }
        if fails { Err(io::Error::other("the disk did not take it")) } else { Ok(()) }
    }

    fn free_after(&self, _offset: u64) {}
}
