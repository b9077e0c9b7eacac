//! One opened state: the tree, what readers see of it, and its one writer at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use store::{Error, Lease, LeaseId};

use super::disk::{Disk, Items};
use super::draft::Draft;
use super::keys;
use super::look::Look;
use super::marks::Marks;
use super::recent::Recent;
use super::reclaim::Reclaim;
use super::seen::{Seen, Seq};
use crate::door::host::System;
use crate::fault::{contained, damaged};
use crate::record;

pub struct Book {
    pub disk: Box<dyn Disk>,
    /// For messages; empty when the tree is not in files.
    pub path: PathBuf,
    pub seen: Arc<Seen>,
    pub recent: Recent,
    /// Every lease with its seconds.
    pub leases: RwLock<BTreeMap<LeaseId, u64>>,
    pub system: RwLock<Arc<System>>,
    writing: Mutex<Writing>,
    pub reclaim: Mutex<Reclaim>,
}

#[derive(Default)]
struct Writing {
    /// A batch failed in the middle: nothing is written any more, and what was written of it is never seen or sealed.
    broken: Option<Error>,
    /// What the last seal closed with.
    sealed: Option<Arc<Marks>>,
}

impl Book {
    /// `disk` was opened with `seen`, which this sets to what is there, visible from `visible` on.
    pub fn open(
        disk: Box<dyn Disk>,
        path: PathBuf,
        seen: Arc<Seen>,
        visible: Seq,
        recent: Recent,
    ) -> Result<Self, Error> {
        contained(&path.clone(), || {
            let marks = match disk.get(&keys::marks(), visible)? {
                Some(sealed) => Marks::decode(&sealed).map_err(|error| match error {
                    Error::FormatUnknown { found, known, .. } => {
                        Error::FormatUnknown { path: path.clone(), found, known }
                    }
                    error => error,
                })?,
                None => Marks::default(),
            };
            let (leases, system) = (leases(&*disk, visible)?, system(&*disk, visible, marks.system)?);
            let (from, to) = keys::all(keys::LOG);
            let oldest = disk.range(&from, &to, visible).next().transpose()?;
            let oldest = oldest.map(|(key, _)| keys::log_of(&key)).transpose()?;
            let reclaim = Reclaim::resume(oldest.map(|(revision, _)| revision), marks.compacted);
            let marks = Arc::new(marks);
            seen.publish(visible, marks.clone());
            Ok(Self {
                disk,
                path,
                seen,
                recent,
                leases: RwLock::new(leases),
                system: RwLock::new(Arc::new(system)),
                writing: Mutex::new(Writing { broken: None, sealed: Some(marks) }),
                reclaim: Mutex::new(reclaim),
            })
        })
    }

    /// Writes what `work` writes as one batch: readers see all of it at once, or never any of it when it fails, and then
    /// nothing is written here any more.
    pub fn write<T>(&self, work: impl FnOnce(&mut Draft<'_>) -> Result<T, Error>) -> Result<(T, Arc<Marks>), Error> {
        let mut writing = self.writing.lock();
        if let Some(broken) = &writing.broken {
            return Err(broken.clone());
        }
        let seq = self.disk.next_seq();
        let mut draft = Draft::new(self, seq);
        let done = contained(&self.path, || {
            let done = work(&mut draft)?;
            Ok((done, draft.finish()))
        });
        let (done, (marks, system)) = match done {
            Ok(done) => done,
            Err(error) => {
                writing.broken = Some(error.clone());
                return Err(error);
            }
        };
        let marks = Arc::new(marks);
        self.seen.publish(seq + 1, marks.clone());
        if let Some(system) = system {
            *self.system.write() = system;
        }
        if self.disk.is_full() {
            self.seal(&mut writing);
        }
        Ok((done, marks))
    }

    /// Closes what was written with the marks it led to.
    fn seal(&self, writing: &mut Writing) {
        let marks = self.seen.marks();
        let seq = self.disk.next_seq();
        self.disk.put(keys::marks(), record::plain_slice(&keys::marks(), &marks.body()), seq);
        self.seen.publish(seq + 1, marks.clone());
        self.disk.seal(marks.index());
        writing.sealed = Some(marks);
    }

    /// Blocks until everything written so far is durable.
    /// Errors: [`Error::DiskFull`], [`Error::Storage`]; it is tried again by itself.
    pub fn flush(&self) -> Result<(), Error> {
        {
            let writing = &mut *self.writing.lock();
            if let Some(broken) = &writing.broken {
                return Err(broken.clone());
            }
            if writing.sealed.as_ref().is_none_or(|sealed| **sealed != *self.seen.marks()) {
                self.seal(writing);
            }
        }
        self.disk.sync()
    }

    pub fn leases(&self) -> Vec<Lease> {
        self.leases.read().iter().map(|(id, ttl)| Lease { id: *id, ttl_seconds: *ttl }).collect()
    }
}

fn leases(disk: &dyn Disk, at: Seq) -> Result<BTreeMap<LeaseId, u64>, Error> {
    let (from, to) = keys::all(keys::TERM);
    let mut leases = BTreeMap::new();
    for item in disk.range(&from, &to, at) {
        let (key, sealed) = item?;
        let seconds = record::plainly(&key, &sealed)?;
        let seconds = seconds.try_into().map_err(|_| damaged("a lease has no time"))?;
        leases.insert(keys::term_of(&key)?, u64::from_le_bytes(seconds));
    }
    Ok(leases)
}

fn system(disk: &dyn Disk, at: Seq, version: u64) -> Result<System, Error> {
    let (from, to) = keys::all(keys::SYSTEM);
    let mut rows = BTreeMap::new();
    for item in disk.range(&from, &to, at) {
        let (key, sealed) = item?;
        let value = record::plainly(&key, &sealed)?;
        rows.insert(Bytes::copy_from_slice(&key[1..]), Bytes::copy_from_slice(value));
    }
    Ok(System { version, rows })
}

/// One moment of a state. Short-lived: what it sees cannot be given back while it lives.
pub struct View {
    pub book: Arc<Book>,
    pub seq: Seq,
    pub marks: Arc<Marks>,
}

impl View {
    pub fn of(book: Arc<Book>) -> Self {
        let (seq, marks) = book.seen.open();
        Self { book, seq, marks }
    }

    pub fn look(&self) -> Look<'_> {
        Look {
            disk: &*self.book.disk,
            recent: &self.book.recent,
            at: self.seq,
            newest: self.marks.revision,
            compacted: self.marks.compacted,
        }
    }

    /// Runs `read` on this moment; a damaged file is an error that names it.
    pub fn read<T>(&self, read: impl FnOnce(&mut Look<'_>) -> Result<T, Error>) -> Result<T, Error> {
        contained(self.path(), || read(&mut self.look()))
    }

    /// Everything there is; goes on after this moment was closed.
    pub fn frozen(&self) -> Items {
        let items = contained(self.path(), || Ok(self.book.disk.frozen(&[], &[u8::MAX], self.seq)));
        items.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
    }

    pub fn path(&self) -> &Path {
        &self.book.path
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.book.seen.close(self.seq);
    }
}
