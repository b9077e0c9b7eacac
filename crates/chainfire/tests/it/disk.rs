//! A simulated disk that forgets what was not synced.
//!
//! Writes go to a cache and are listed; a sync makes the list durable. When the power is cut, each listed write survives
//! or not by chance, some only in part, in sectors: what a real disk may do. It can also lie about a sync, and be full.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::StorageBackend;

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    durable: Vec<u8>,
    cached: Vec<u8>,
    unsynced: Vec<Change>,
    /// Operations until the power goes; `None` for never.
    until_cut: Option<u64>,
    cut: bool,
    /// Say that a sync is done and do nothing.
    lies: bool,
    full: bool,
    syncs: u64,
    writes: u64,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// A handle as the engine holds it.
#[derive(Debug)]
pub struct Attached(Disk);

impl Disk {
    pub fn new() -> Self {
        Self { inner: Arc::default() }
    }

    pub fn attach(&self) -> Attached {
        Attached(self.clone())
    }

    /// Cuts the power after so many more writes, syncs and changes of length.
    pub fn cut_after(&self, operations: u64) {
        self.inner.lock().until_cut = Some(operations);
    }

    pub fn lie_about_syncs(&self) {
        self.inner.lock().lies = true;
    }

    pub fn set_full(&self, full: bool) {
        self.inner.lock().full = full;
    }

    pub fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    pub fn writes(&self) -> u64 {
        self.inner.lock().writes
    }

    /// The disk as it is found when the power is back.
    pub fn survivor(&self, mut chance: impl FnMut(u64) -> u64) -> Disk {
        let inner = self.inner.lock();
        let mut durable = inner.durable.clone();
        for change in &inner.unsynced {
            match change {
                Change::Length(length) => {
                    if chance(2) == 0 {
                        durable.resize(*length, 0);
                    }
                }
                Change::Write(offset, data) => {
                    let torn = chance(4) == 0;
                    let whole = chance(2) == 0;
                    for (nth, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        let survives = if torn { chance(2) == 0 } else { whole };
                        let start = offset + nth * SECTOR_BYTES;
                        if survives && start + sector.len() <= durable.len() {
                            durable[start..start + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        let disk = Disk::new();
        {
            let mut fresh = disk.inner.lock();
            fresh.cached.clone_from(&durable);
            fresh.durable = durable;
        }
        disk
    }
}

impl Inner {
    fn operation(&mut self) -> io::Result<()> {
        match &mut self.until_cut {
            Some(0) => self.cut = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.powered()
    }

    fn powered(&self) -> io::Result<()> {
        if self.cut { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }
}

impl StorageBackend for Attached {
    fn len(&self) -> io::Result<u64> {
        let inner = self.0.inner.lock();
        inner.powered()?;
        Ok(inner.cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.0.inner.lock();
        inner.powered()?;
        let offset = offset as usize;
        let found = inner.cached.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.0.inner.lock();
        inner.operation()?;
        if inner.full && len as usize > inner.cached.len() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        inner.cached.resize(len as usize, 0);
        inner.unsynced.push(Change::Length(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.0.inner.lock();
        inner.operation()?;
        inner.syncs += 1;
        if !inner.lies {
            for change in std::mem::take(&mut inner.unsynced) {
                match change {
                    Change::Length(length) => inner.durable.resize(length, 0),
                    Change::Write(offset, data) => {
                        inner.durable[offset..offset + data.len()].copy_from_slice(&data);
                    }
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.0.inner.lock();
        inner.operation()?;
        if inner.full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        inner.writes += 1;
        let offset = offset as usize;
        inner.cached[offset..offset + data.len()].copy_from_slice(data);
        inner.unsynced.push(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}
