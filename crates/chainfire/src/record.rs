//! What lies in the tables: bytes, versioned from the first one and checked to the last.
//!
//! ```text
//! row        1  create:8 mod:8 version:8 lease:8 value...           crc:4   (over the key and all before)
//! tombstone  2                                                      crc:4   (over the key and all before)
//! log chunk  3  { kind:1 key_len:2 key }...                         crc:4   (over the revision and all before)
//! traced     4  { kind:1 before:8 key_len:2 key }...                crc:4   (over the revision and all before)
//! plain      5  bytes...                                            crc:4   (over the key and all before)
//! ```
//!
//! The embedded engine writes log chunks; the replicated state writes traced ones, which also say where the row lies that
//! each event superseded (0 when there was none), and plain ones for everything that is neither row nor log.
//!
//! Numbers are little-endian. The checksum covers the key too, so a row that turns up under a wrong key is refused.

use bytes::Bytes;
use store::select::Row;
use store::{EventKind, KeyValue, LeaseId, Revision, WatchEvent};

const ROW: u8 = 1;
const TOMBSTONE: u8 = 2;
const LOG: u8 = 3;
const TRACED: u8 = 4;
const PLAIN: u8 = 5;
const PUT: u8 = 1;
const DELETE: u8 = 2;

const CRC_BYTES: usize = 4;
const ROW_HEAD_BYTES: usize = 1 + 4 * 8;

/// What is stored is not what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damaged(pub &'static str);

impl From<Damaged> for store::Error {
    fn from(Damaged(reason): Damaged) -> Self {
        crate::fault::damaged(reason)
    }
}

pub enum Stored<'a> {
    Row(Row<'a>),
    Tombstone,
}

/// One event of the log: the row itself lies in the tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub kind: EventKind,
    pub key: Bytes,
}

/// A change that knows what it superseded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Traced {
    pub kind: EventKind,
    pub key: Bytes,
    /// When the row before it was put; [`Revision::ZERO`] when there was none.
    pub before: Revision,
}

fn seal(subject: &[u8], mut body: Vec<u8>) -> Vec<u8> {
    let crc = crc(subject, &body);
    body.extend_from_slice(&crc.to_le_bytes());
    body
}

fn crc(subject: &[u8], body: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(subject);
    crc.update(body);
    crc.sum()
}

fn open<'a>(subject: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Damaged> {
    let (body, sum) = sealed.split_last_chunk::<CRC_BYTES>().ok_or(Damaged("a record is too short"))?;
    if crc(subject, body) != u32::from_le_bytes(*sum) {
        return Err(Damaged("a record has a wrong checksum"));
    }
    Ok(body)
}

pub fn row(kv: &KeyValue) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(ROW_HEAD_BYTES + kv.value.len() + CRC_BYTES);
    row_into(&mut sealed, kv);
    sealed
}

/// As [`row`], into an empty buffer that is used again and again.
pub fn row_into(out: &mut Vec<u8>, kv: &KeyValue) {
    out.push(ROW);
    out.extend_from_slice(&kv.create_revision.0.to_le_bytes());
    out.extend_from_slice(&kv.mod_revision.0.to_le_bytes());
    out.extend_from_slice(&kv.version.to_le_bytes());
    out.extend_from_slice(&kv.lease.map_or(0, |id| id.0).to_le_bytes());
    out.extend_from_slice(&kv.value);
    let crc = crc(&kv.key, out);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// When a sealed row was put, by what it says before it is checked.
pub fn put_at(sealed: &[u8]) -> Option<Revision> {
    let (_, rest) = sealed.split_at_checked(1 + 8)?;
    rest.first_chunk::<8>().map(|revision| Revision(u64::from_le_bytes(*revision)))
}

pub fn tombstone(key: &[u8]) -> Vec<u8> {
    seal(key, vec![TOMBSTONE])
}

pub fn stored<'a>(key: &'a [u8], sealed: &'a [u8]) -> Result<Stored<'a>, Damaged> {
    match open(key, sealed)?.split_first() {
        Some((&ROW, body)) => {
            let (words, value) = words::<4>(body)?;
            let [create, modified, version, lease] = words;
            let lease = Some(LeaseId(lease as i64)).filter(|id| id.0 != 0);
            Ok(Stored::Row(Row {
                key,
                value,
                create_revision: Revision(create),
                mod_revision: Revision(modified),
                version,
                lease,
            }))
        }
        Some((&TOMBSTONE, [])) => Ok(Stored::Tombstone),
        _ => Err(Damaged("a record is of an unknown kind")),
    }
}

/// As [`stored`], where only a row may lie.
pub fn current<'a>(key: &'a [u8], sealed: &'a [u8]) -> Result<Row<'a>, Damaged> {
    match stored(key, sealed)? {
        Stored::Row(row) => Ok(row),
        Stored::Tombstone => Err(Damaged("a current row is a tombstone")),
    }
}

fn words<const N: usize>(mut body: &[u8]) -> Result<([u64; N], &[u8]), Damaged> {
    let mut words = [0; N];
    for word in &mut words {
        let (head, rest) = body.split_first_chunk::<8>().ok_or(Damaged("a record is too short"))?;
        *word = u64::from_le_bytes(*head);
        body = rest;
    }
    Ok((words, body))
}

/// Into an empty buffer that is used again and again.
pub fn traced_into(body: &mut Vec<u8>, revision: Revision, events: &[WatchEvent]) {
    body.push(TRACED);
    for event in events {
        body.push(match event.kind {
            EventKind::Put => PUT,
            EventKind::Delete => DELETE,
        });
        let before = event.previous.as_ref().map_or(Revision::ZERO, |kv| kv.mod_revision);
        body.extend_from_slice(&before.0.to_le_bytes());
        let key = &event.kv.key;
        let length = u16::try_from(key.len()).expect("admission bounds keys well below 64 KiB");
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(key);
    }
    let crc = crc(&revision.0.to_le_bytes(), body);
    body.extend_from_slice(&crc.to_le_bytes());
}

pub fn trace(revision: Revision, sealed: &[u8]) -> Result<Vec<Traced>, Damaged> {
    const SHORT: Damaged = Damaged("a log record is too short");
    let Some((&TRACED, mut body)) = open(&revision.0.to_le_bytes(), sealed)?.split_first() else {
        return Err(Damaged("a log record is of an unknown kind"));
    };
    let mut changes = Vec::new();
    while let Some((kind, rest)) = body.split_first() {
        let kind = match *kind {
            PUT => EventKind::Put,
            DELETE => EventKind::Delete,
            _ => return Err(Damaged("a change is of an unknown kind")),
        };
        let (before, rest) = rest.split_first_chunk::<8>().ok_or(SHORT)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or(SHORT)?;
        let before = Revision(u64::from_le_bytes(*before));
        changes.push(Traced { kind, key: Bytes::copy_from_slice(key), before });
        body = rest;
    }
    Ok(changes)
}

pub fn plain(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(1 + bytes.len() + CRC_BYTES);
    body.push(PLAIN);
    body.extend_from_slice(bytes);
    seal(key, body)
}

/// As [`plain`], in the form of the tree.
pub fn plain_slice(key: &[u8], bytes: &[u8]) -> lsm_tree::Slice {
    lsm_tree::Slice::from(plain(key, bytes))
}

pub fn plainly<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Damaged> {
    match open(key, sealed)?.split_first() {
        Some((&PLAIN, bytes)) => Ok(bytes),
        _ => Err(Damaged("a record is of an unknown kind")),
    }
}

pub fn changes(revision: Revision, events: &[WatchEvent]) -> Vec<u8> {
    let mut body = vec![LOG];
    for event in events {
        body.push(match event.kind {
            EventKind::Put => PUT,
            EventKind::Delete => DELETE,
        });
        let key = &event.kv.key;
        let length = u16::try_from(key.len()).expect("admission bounds keys well below 64 KiB");
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(key);
    }
    seal(&revision.0.to_le_bytes(), body)
}

pub fn changed(revision: Revision, sealed: &[u8]) -> Result<Vec<Change>, Damaged> {
    const SHORT: Damaged = Damaged("a log record is too short");
    let Some((&LOG, mut body)) = open(&revision.0.to_le_bytes(), sealed)?.split_first() else {
        return Err(Damaged("a log record is of an unknown kind"));
    };
    let mut changes = Vec::new();
    while let Some((kind, rest)) = body.split_first() {
        let kind = match *kind {
            PUT => EventKind::Put,
            DELETE => EventKind::Delete,
            _ => return Err(Damaged("a change is of an unknown kind")),
        };
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or(SHORT)?;
        changes.push(Change { kind, key: Bytes::copy_from_slice(key) });
        body = rest;
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv() -> KeyValue {
        KeyValue {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"value"),
            create_revision: Revision(2),
            mod_revision: Revision(5),
            version: 3,
            lease: Some(LeaseId(9)),
        }
    }

    #[test]
    fn a_row_comes_back_as_it_was() {
        let sealed = row(&kv());
        assert_eq!(current(b"k", &sealed).unwrap().to_key_value(), kv());
        assert!(matches!(stored(b"k", &tombstone(b"k")), Ok(Stored::Tombstone)));
    }

    #[test]
    fn no_flipped_bit_and_no_cut_passes() {
        let sealed = row(&kv());
        for bit in 0..sealed.len() * 8 {
            let mut broken = sealed.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(stored(b"k", &broken).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(stored(b"k", &sealed[..length]).is_err());
        }
        assert!(stored(b"j", &sealed).is_err(), "under another key");
    }

    #[test]
    fn traced_changes_and_plain_bytes_come_back_as_they_were() {
        let event = |previous| WatchEvent { kind: EventKind::Put, kv: kv(), previous };
        let mut sealed = Vec::new();
        traced_into(&mut sealed, Revision(9), &[event(None), event(Some(kv()))]);
        let before: Vec<_> = trace(Revision(9), &sealed).unwrap().into_iter().map(|change| change.before).collect();
        assert_eq!(before, [Revision::ZERO, Revision(5)]);
        assert!(trace(Revision(8), &sealed).is_err());
        assert!(changed(Revision(9), &sealed).is_err(), "the two kinds are not mixed up");
        let sealed = plain(b"k", b"bytes");
        assert_eq!(plainly(b"k", &sealed), Ok(&b"bytes"[..]));
        assert!(plainly(b"j", &sealed).is_err());
    }

    #[test]
    fn changes_come_back_as_they_were() {
        let event = |kind| WatchEvent { kind, kv: kv(), previous: None };
        let sealed = changes(Revision(5), &[event(EventKind::Put), event(EventKind::Delete)]);
        let kinds: Vec<_> = changed(Revision(5), &sealed).unwrap().into_iter().map(|change| change.kind).collect();
        assert_eq!(kinds, [EventKind::Put, EventKind::Delete]);
        assert!(changed(Revision(6), &sealed).is_err());
    }
}
