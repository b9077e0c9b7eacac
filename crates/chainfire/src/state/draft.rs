//! A batch that is being written, as rows that can be changed.
//!
//! Everything goes straight into the tree under the batch's own sequence number, which nobody but the batch sees yet.

use std::cell::RefCell;
use std::sync::Arc;

use lsm_tree::Slice;
use store::apply::{self, Applied, State};
use store::select::{Rows, Visit};
use store::{Batch, Error, Key, KeyValue, Lease, LeaseId, Revision, SortOrder, Span, Txn, WatchEvent};

use super::book::Book;
use super::disk::EVERYTHING;
use super::keys;
use super::look::Look;
use super::marks::{LogId, Marks, Membership};
use super::seen::Seq;
use crate::command::{Answer, Refusal, Request};
use crate::door::host::System;
use crate::record;

/// Events in one entry of the log, so that compaction can take a large revision in small steps.
const LOG_CHUNK_EVENTS: usize = 256;

/// What became of leases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseChange {
    Granted(Lease),
    Revoked(LeaseId),
    /// These are the leases now, all of them.
    Replaced(Vec<Lease>),
}

pub struct Draft<'b> {
    book: &'b Book,
    seq: Seq,
    marks: Marks,
    system: Option<System>,
    /// Rows were changed that the log does not name yet.
    unlogged: bool,
    /// The record that was read last: what a put supersedes is most often it.
    last: RefCell<Option<(Key, Slice)>>,
    scratch: Vec<u8>,
    pub batches: Vec<Batch>,
    pub leases: Vec<LeaseChange>,
    pub compacted: bool,
}

impl<'b> Draft<'b> {
    pub fn new(book: &'b Book, seq: Seq) -> Self {
        Self {
            book,
            seq,
            marks: (*book.seen.marks()).clone(),
            system: None,
            unlogged: false,
            last: RefCell::new(None),
            scratch: Vec::new(),
            batches: Vec::new(),
            leases: Vec::new(),
            compacted: false,
        }
    }

    pub fn finish(&mut self) -> (Marks, Option<Arc<System>>) {
        (self.marks.clone(), self.system.take().map(Arc::new))
    }

    pub fn reach(&mut self, id: LogId) {
        self.marks.applied = Some(id);
    }

    pub fn join(&mut self, membership: Membership) {
        self.marks.membership = Arc::new(membership);
    }

    pub fn remove(&mut self, key: Slice) {
        self.book.disk.remove(key, self.seq);
    }

    /// Applies one request. An error means that the batch is lost.
    pub fn settle(&mut self, request: &Request) -> Result<Result<Answer, Refusal>, Error> {
        let answer = match request {
            Request::Txn { txn, guard } => {
                let version = self.marks.system;
                if guard.is_some_and(|guard| guard < version) {
                    return Ok(Err(Refusal::SystemMoved { version }));
                }
                self.txn(txn)
            }
            Request::Grant { ttl_seconds, id } => self.grant(*ttl_seconds, *id).map(Answer::Grant),
            Request::Revoke(id) => self.revoke(*id).map(Answer::Revoke),
            Request::Compact(revision) => self.compact(*revision).map(|()| Answer::Compact),
            Request::System { expected, rows } => return Ok(self.change_system(*expected, rows)),
        };
        match answer {
            Ok(answer) => Ok(Ok(answer)),
            // Every refusal comes before the first change; a full disk may not.
            Err(error) if error.is_refusal() && !matches!(error, Error::DiskFull) => Ok(Err(Refusal::Store(error))),
            Err(error) => Err(error),
        }
    }

    fn txn(&mut self, txn: &Txn) -> Result<Answer, Error> {
        let Applied { answer, events } = apply::apply(self, txn)?;
        self.log(events);
        Ok(Answer::Txn(answer))
    }

    /// Takes the next revision for what was just changed.
    fn log(&mut self, events: Vec<WatchEvent>) {
        if events.is_empty() {
            return;
        }
        let revision = self.marks.revision.next();
        for (chunk, events) in (0..).zip(events.chunks(LOG_CHUNK_EVENTS)) {
            let entry = Slice::from(&keys::log(revision, chunk)[..]);
            self.scratch.clear();
            record::traced_into(&mut self.scratch, revision, events);
            self.book.disk.put(entry, Slice::from(&self.scratch[..]), self.seq);
        }
        self.marks.revision = revision;
        self.unlogged = false;
        self.batches.push(Batch { revision, events });
    }

    fn grant(&mut self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        let mut leases = self.book.leases.write();
        let id = match id {
            Some(id) if leases.contains_key(&id) => return Err(Error::LeaseExists { id }),
            Some(id) => id,
            None => {
                // Counted up and written into the marks, so that every member chooses the same.
                let mut last = self.marks.lease_last;
                let id = loop {
                    last = last.checked_add(1).unwrap_or(1);
                    if !leases.contains_key(&LeaseId(last)) {
                        break LeaseId(last);
                    }
                };
                self.marks.lease_last = last;
                id
            }
        };
        leases.insert(id, ttl_seconds);
        let term = keys::term(id);
        let value = record::plain_slice(&term, &ttl_seconds.to_le_bytes());
        self.book.disk.put(term, value, self.seq);
        let lease = Lease { id, ttl_seconds };
        self.leases.push(LeaseChange::Granted(lease));
        Ok(lease)
    }

    fn revoke(&mut self, id: LeaseId) -> Result<Revision, Error> {
        if !self.lease_exists(id)? {
            return Err(Error::LeaseNotFound { id });
        }
        let Applied { answer, events } = apply::revoke(self, id)?;
        self.log(events);
        self.book.leases.write().remove(&id);
        self.book.disk.remove(keys::term(id), self.seq);
        self.leases.push(LeaseChange::Revoked(id));
        Ok(answer)
    }

    fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        let (newest, compacted) = (self.marks.revision, self.marks.compacted);
        if revision > newest {
            return Err(Error::FutureRevision { asked: revision, newest });
        }
        if revision <= compacted {
            return Err(Error::Compacted { compacted });
        }
        self.marks.compacted = revision;
        self.compacted = true;
        Ok(())
    }

    fn change_system(
        &mut self,
        expected: u64,
        rows: &[(bytes::Bytes, Option<bytes::Bytes>)],
    ) -> Result<Answer, Refusal> {
        let version = self.marks.system;
        if version != expected {
            return Err(Refusal::SystemMoved { version });
        }
        let system = self.system.get_or_insert_with(|| (**self.book.system.read()).clone());
        for (key, value) in rows {
            let place = keys::system(key);
            match value {
                Some(value) => {
                    system.rows.insert(key.clone(), value.clone());
                    let sealed = record::plain_slice(&place, value);
                    self.book.disk.put(place, sealed, self.seq);
                }
                None => {
                    system.rows.remove(key);
                    self.book.disk.remove(place, self.seq);
                }
            }
        }
        self.marks.system += 1;
        system.version = self.marks.system;
        Ok(Answer::System(self.marks.system))
    }

    fn look(&self) -> Look<'_> {
        Look {
            disk: &*self.book.disk,
            recent: &self.book.recent,
            at: EVERYTHING,
            newest: self.marks.revision,
            compacted: self.marks.compacted,
        }
    }

    /// Moves what a row was into the past.
    fn supersede(&mut self, old: &KeyValue) {
        let sealed = match self.last.get_mut().take() {
            Some((key, sealed)) if key == old.key => sealed,
            _ => Slice::from(record::row(old)),
        };
        self.scratch.clear();
        keys::past_into(&mut self.scratch, &old.key, old.mod_revision, keys::ROW);
        self.book.disk.put(Slice::from(&self.scratch[..]), sealed, self.seq);
        self.marks.bytes = self.marks.bytes.saturating_sub(bytes(old));
    }

    fn detach(&mut self, key: &[u8], lease: Option<LeaseId>) {
        if let Some(id) = lease {
            self.book.disk.remove(keys::attached(id, key), self.seq);
        }
    }
}

fn bytes(kv: &KeyValue) -> u64 {
    (kv.key.len() + kv.value.len()) as u64
}

impl Rows for Draft<'_> {
    fn newest(&self) -> Revision {
        self.marks.revision
    }

    fn compacted(&self) -> Revision {
        self.marks.compacted
    }

    fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        let place = keys::current(key);
        let sealed = match self.book.recent.get(&place) {
            Some(sealed) => sealed,
            None => {
                let Some(found) = self.book.disk.get(&place, EVERYTHING)? else { return Ok(None) };
                // Copied: as it was read it may hold on to a whole block.
                let sealed = Slice::from(&found[..]);
                self.book.recent.put(place, sealed.clone());
                sealed
            }
        };
        let kv = record::current(key, &sealed)?.to_key_value();
        *self.last.borrow_mut() = Some((kv.key.clone(), sealed));
        Ok(Some(kv))
    }

    fn visit(&self, span: &Span, at: Option<Revision>, order: SortOrder, visit: Visit<'_>) -> Result<(), Error> {
        self.look().visit(span, at, order, visit)
    }

    fn changed(&self, span: &Span, since: Revision) -> Result<Option<Vec<Key>>, Error> {
        if self.unlogged { Ok(None) } else { self.look().changed(span, since) }
    }
}

impl State for Draft<'_> {
    fn put(&mut self, new: &KeyValue, old: Option<&KeyValue>) -> Result<(), Error> {
        self.unlogged = true;
        match old {
            Some(old) => self.supersede(old),
            None => self.marks.rows += 1,
        }
        self.marks.bytes += bytes(new);
        self.scratch.clear();
        record::row_into(&mut self.scratch, new);
        let (place, sealed) = (keys::current(&new.key), Slice::from(&self.scratch[..]));
        self.book.recent.put(place.clone(), sealed.clone());
        self.book.disk.put(place, sealed, self.seq);
        let lease_old = old.and_then(|old| old.lease);
        if lease_old != new.lease {
            self.detach(&new.key, lease_old);
            if let Some(id) = new.lease {
                let attached = keys::attached(id, &new.key);
                let sealed = record::plain_slice(&attached, &[]);
                self.book.disk.put(attached, sealed, self.seq);
            }
        }
        Ok(())
    }

    fn delete(&mut self, old: &KeyValue, revision: Revision) -> Result<(), Error> {
        self.unlogged = true;
        self.supersede(old);
        self.marks.rows = self.marks.rows.saturating_sub(1);
        let gone = Slice::from(keys::past(&old.key, revision, keys::GONE));
        self.book.disk.put(gone, Slice::from(record::tombstone(&old.key)), self.seq);
        let place = keys::current(&old.key);
        self.book.recent.remove(&place);
        self.book.disk.remove(place, self.seq);
        self.detach(&old.key, old.lease);
        Ok(())
    }

    fn lease_exists(&self, id: LeaseId) -> Result<bool, Error> {
        Ok(self.book.leases.read().contains_key(&id))
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Error> {
        self.look().attached(id)
    }
}
