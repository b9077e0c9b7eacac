//! What lies under which key of the one tree.
//!
//! ```text
//! A lease:8 key            attached keys                   plain, empty
//! C key                    the newest row of each key      row
//! H key' revision:8 kind   superseded rows (0), deletes (1)  row or tombstone
//! L revision:8 chunk:4     which keys changed, in order    traced
//! M                        the marks                       plain
//! S key                    system rows                     plain
//! T lease:8                leases                          plain: seconds:8
//! ```
//!
//! Numbers are big-endian, so that they sort. `key'` is the key with each zero byte followed by 255 and closed by 0 1:
//! entries of one key stay together and keys keep their order.

use std::borrow::Cow;

use byteview::ByteView;
use lsm_tree::Slice;
use store::{LeaseId, RangeEnd, Revision, Span};

use crate::record::Damaged;

pub const ATTACHED: u8 = b'A';
pub const CURRENT: u8 = b'C';
pub const PAST: u8 = b'H';
pub const LOG: u8 = b'L';
pub const MARKS: u8 = b'M';
pub const SYSTEM: u8 = b'S';
pub const TERM: u8 = b'T';

/// Of an entry of the past: within one revision, a put comes before a delete of the same key.
pub const ROW: u8 = 0;
pub const GONE: u8 = 1;

const CLOSE: [u8; 2] = [0, 1];
const AFTER_CLOSE: [u8; 2] = [0, 2];

/// Everything under one letter: from the first, included, to the second, excluded.
pub fn all(letter: u8) -> ([u8; 1], [u8; 1]) {
    ([letter], [letter + 1])
}

pub fn marks() -> Slice {
    Slice::from([MARKS])
}

pub fn current(key: &[u8]) -> Slice {
    Slice::from(ByteView::fused(&[CURRENT], key))
}

pub fn system(key: &[u8]) -> Slice {
    Slice::from(ByteView::fused(&[SYSTEM], key))
}

pub fn term(id: LeaseId) -> Slice {
    Slice::from(ByteView::fused(&[TERM], &id.0.to_be_bytes()))
}

pub fn term_of(key: &[u8]) -> Result<LeaseId, Damaged> {
    match key.split_first().and_then(|(_, id)| id.try_into().ok()) {
        Some(id) => Ok(LeaseId(i64::from_be_bytes(id))),
        None => Err(Damaged("a lease lies under a key that is none")),
    }
}

fn lease_prefix(id: LeaseId) -> [u8; 9] {
    let mut prefix = [ATTACHED; 9];
    prefix[1..].copy_from_slice(&id.0.to_be_bytes());
    prefix
}

pub fn attached(id: LeaseId, key: &[u8]) -> Slice {
    Slice::from(ByteView::fused(&lease_prefix(id), key))
}

/// The keys of one lease, from and to.
pub fn attached_to(id: LeaseId) -> (Vec<u8>, Vec<u8>) {
    (lease_prefix(id).to_vec(), lease_prefix(LeaseId(id.0.saturating_add(1))).to_vec())
}

pub fn attached_key(key: &[u8]) -> Result<&[u8], Damaged> {
    key.get(lease_prefix(LeaseId(0)).len()..).ok_or(Damaged("a leased key lies under a key that is none"))
}

pub fn log(revision: Revision, chunk: u32) -> [u8; 13] {
    let mut key = [LOG; 13];
    key[1..9].copy_from_slice(&revision.0.to_be_bytes());
    key[9..].copy_from_slice(&chunk.to_be_bytes());
    key
}

pub fn log_of(key: &[u8]) -> Result<(Revision, u32), Damaged> {
    let parts = key.get(1..).and_then(|key| key.split_first_chunk::<8>());
    match parts.and_then(|(revision, chunk)| Some((revision, chunk.try_into().ok()?))) {
        Some((revision, chunk)) => Ok((Revision(u64::from_be_bytes(*revision)), u32::from_be_bytes(chunk))),
        None => Err(Damaged("an entry of the log lies under a key that is none")),
    }
}

fn past_prefix(out: &mut Vec<u8>, key: &[u8], end: [u8; 2]) {
    out.push(PAST);
    for part in key.split_inclusive(|byte| *byte == 0) {
        out.extend_from_slice(part);
        if part.ends_with(&[0]) {
            out.push(u8::MAX);
        }
    }
    out.extend_from_slice(&end);
}

pub fn past(key: &[u8], revision: Revision, kind: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len() + 2 + 9);
    past_into(&mut out, key, revision, kind);
    out
}

/// As [`past`], into an empty buffer that is used again and again.
pub fn past_into(out: &mut Vec<u8>, key: &[u8], revision: Revision, kind: u8) {
    past_prefix(out, key, CLOSE);
    out.extend_from_slice(&revision.0.to_be_bytes());
    out.push(kind);
}

/// Of an entry of the past: key, revision, kind.
pub fn past_of(entry: &[u8]) -> Result<(Cow<'_, [u8]>, Revision, u8), Damaged> {
    const NONE: Damaged = Damaged("an entry of the past lies under a key that is none");
    let (body, tail) = entry.get(1..).and_then(|entry| entry.split_last_chunk::<9>()).ok_or(NONE)?;
    let escaped = body.strip_suffix(&CLOSE).ok_or(NONE)?;
    let (revision, kind) = tail.split_first_chunk::<8>().ok_or(NONE)?;
    let revision = Revision(u64::from_be_bytes(*revision));
    if !escaped.contains(&0) {
        return Ok((Cow::Borrowed(escaped), revision, kind[0]));
    }
    let mut key = Vec::with_capacity(escaped.len());
    let mut rest = escaped.iter();
    while let Some(byte) = rest.next() {
        key.push(*byte);
        if *byte == 0 && rest.next() != Some(&u8::MAX) {
            return Err(NONE);
        }
    }
    Ok((Cow::Owned(key), revision, kind[0]))
}

/// Where the current rows of a span lie, from and to.
pub fn current_span(span: &Span) -> (Vec<u8>, Vec<u8>) {
    let with = |key: &[u8]| [&[CURRENT], key].concat();
    let to = match &span.end {
        RangeEnd::Single => [&[CURRENT], &span.start[..], &[0]].concat(),
        RangeEnd::Exclusive(end) => with(end),
        RangeEnd::Unbounded => vec![CURRENT + 1],
    };
    (with(&span.start), to)
}

/// Where the past of a span lies, from and to.
pub fn past_span(span: &Span) -> (Vec<u8>, Vec<u8>) {
    let (mut from, mut to) = (Vec::new(), Vec::new());
    past_prefix(&mut from, &span.start, CLOSE);
    match &span.end {
        RangeEnd::Single => past_prefix(&mut to, &span.start, AFTER_CLOSE),
        RangeEnd::Exclusive(end) => past_prefix(&mut to, end, CLOSE),
        RangeEnd::Unbounded => to.push(PAST + 1),
    }
    (from, to)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(2), Just(255), any::<u8>()], 1..6)
    }

    proptest! {
        #[test]
        fn entries_of_the_past_sort_by_key_then_revision(a in key(), b in key(), at in 0..4_u64, bt in 0..4_u64) {
            let (left, right) = (past(&a, Revision(at), ROW), past(&b, Revision(bt), ROW));
            prop_assert_eq!(left.cmp(&right), (&a, at).cmp(&(&b, bt)));
            let (key, revision, kind) = past_of(&left).unwrap();
            prop_assert_eq!((&key[..], revision, kind), (&a[..], Revision(at), ROW));
        }

        #[test]
        fn spans_hold_what_they_should(a in key(), b in key(), c in key()) {
            let end = if b >= a { RangeEnd::Exclusive(Bytes::from(b)) } else { RangeEnd::Unbounded };
            for end in [end, RangeEnd::Single] {
                let span = Span::new(Bytes::from(a.clone()), end);
                let within = |(from, to): (Vec<u8>, Vec<u8>), key: &[u8]| *key >= from[..] && *key < to[..];
                prop_assert_eq!(within(current_span(&span), &current(&c)), span.contains(&c));
                prop_assert_eq!(within(past_span(&span), &past(&c, Revision(u64::MAX), GONE)), span.contains(&c));
                prop_assert_eq!(within(past_span(&span), &past(&c, Revision(0), ROW)), span.contains(&c));
            }
        }
    }

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        assert_eq!(log_of(&log(Revision(7), 3)), Ok((Revision(7), 3)));
        assert_eq!(term_of(&term(LeaseId(9))), Ok(LeaseId(9)));
        assert_eq!(attached_key(&attached(LeaseId(9), b"k")), Ok(&b"k"[..]));
        let (from, to) = attached_to(LeaseId(9));
        for (id, inside) in [(8, false), (9, true), (10, false)] {
            let key = attached(LeaseId(id), b"\xff\xff");
            assert_eq!(key[..] >= from[..] && key[..] < to[..], inside);
        }
        assert!(past_of(b"H").is_err());
        assert!(log_of(b"L123").is_err());
    }
}
