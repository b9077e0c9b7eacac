//! Reading the pieces, however they were cut on their way. Whatever is not exactly what was made is refused.

use lsm_tree::Slice;
use sha2::{Digest, Sha256};
use store::Error;

use super::{BODY_BYTES_MAX, CRC_BYTES, END, HEAD_BYTES, HEADER, ITEM_HEAD_BYTES, ITEMS, MAGIC, crc};
use crate::fault::damaged;
use crate::record;
use crate::state::keys;
use crate::state::marks::Marks;

pub type Take<'t> = &'t mut dyn FnMut(Slice, Slice) -> Result<(), Error>;

/// Longest key and value of an item: a key with every byte escaped, a value as large as a request may be, and what the
/// records add. An entry of the log is far smaller.
const KEY_BYTES_MAX: usize = 2 * store::limits::KEY_BYTES_MAX + 64;
const VALUE_BYTES_MAX: usize = 2 * store::limits::REQUEST_BYTES_MAX;

#[derive(Default)]
pub struct Decoder {
    /// What came and is no whole piece yet.
    rest: Vec<u8>,
    place: u64,
    marks: Option<Marks>,
    /// What came of items and is no whole item yet.
    items: Vec<u8>,
    last: Slice,
    count: u64,
    sha: Sha256,
    over: bool,
}

fn wrong(what: &str) -> Error {
    damaged(format!("the copy {what}"))
}

impl Decoder {
    /// From the first piece on.
    pub fn marks(&self) -> Option<&Marks> {
        self.marks.as_ref()
    }

    /// Gives each item to `take` once its piece was checked. Errors: [`Error::Corrupt`], [`Error::FormatUnknown`].
    pub fn feed(&mut self, bytes: &[u8], take: Take<'_>) -> Result<(), Error> {
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        let mut at = 0;
        if self.place == 0 && self.marks.is_none() {
            let Some(magic) = rest.get(..MAGIC.len()) else {
                if MAGIC[..rest.len()] != rest[..] {
                    return Err(wrong("is none"));
                }
                self.rest = rest;
                return Ok(());
            };
            if magic != MAGIC {
                return Err(wrong("is none"));
            }
            // The magic is looked at again while the first piece is not whole.
            at = MAGIC.len();
        }
        let mut used = 0;
        while let Some(piece) = rest.get(at..).and_then(|rest| whole(rest).transpose()) {
            let (head, body, sum) = piece?;
            if crc(self.place, head, body) != sum {
                return Err(wrong("has a piece with a wrong checksum"));
            }
            self.piece(head[0], body, take)?;
            self.place += 1;
            at += HEAD_BYTES + body.len() + CRC_BYTES;
            used = at;
        }
        if self.over && used < rest.len() {
            return Err(wrong("goes on after its end"));
        }
        rest.drain(..used);
        self.rest = rest;
        Ok(())
    }

    fn piece(&mut self, kind: u8, body: &[u8], take: Take<'_>) -> Result<(), Error> {
        match (kind, &self.marks) {
            _ if self.over => return Err(wrong("goes on after its end")),
            (HEADER, None) => self.marks = Some(Marks::from_body(body)?),
            (ITEMS, Some(_)) => self.items(body, take)?,
            (END, Some(_)) => {
                let mut expected = self.count.to_le_bytes().to_vec();
                expected.extend_from_slice(&self.sha.clone().finalize());
                if body != expected || !self.items.is_empty() {
                    return Err(wrong("does not add up"));
                }
                self.over = true;
            }
            _ => return Err(wrong("has a piece where it does not belong")),
        }
        self.sha.update(body);
        Ok(())
    }

    fn items(&mut self, body: &[u8], take: Take<'_>) -> Result<(), Error> {
        let mut items = std::mem::take(&mut self.items);
        items.extend_from_slice(body);
        let mut rest = &items[..];
        while let Some((head, tail)) = rest.split_first_chunk::<ITEM_HEAD_BYTES>() {
            let [k0, k1, v0, v1, v2, v3] = *head;
            let key_bytes = usize::from(u16::from_le_bytes([k0, k1]));
            let value_bytes = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
            if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
                return Err(wrong("has an item that is too large"));
            }
            let Some((item, tail)) = tail.split_at_checked(key_bytes + value_bytes) else { break };
            let (key, value) = item.split_at(key_bytes);
            if key <= &self.last[..] {
                return Err(wrong("has items out of order"));
            }
            if *key == [keys::MARKS] {
                return Err(wrong("has marks where they do not belong"));
            }
            check(key, value)?;
            self.last = Slice::from(key);
            take(self.last.clone(), Slice::from(value))?;
            self.count += 1;
            rest = tail;
        }
        self.items = rest.to_vec();
        Ok(())
    }

    /// After everything was fed: was it all?
    pub fn finish(self) -> Result<Marks, Error> {
        match self.marks {
            Some(marks) if self.over => Ok(marks),
            _ => Err(wrong("was cut off")),
        }
    }
}

type Piece<'p> = (&'p [u8], &'p [u8], u32);

/// Head, body and checksum of the first piece, when it is there as a whole.
fn whole(bytes: &[u8]) -> Result<Option<Piece<'_>>, Error> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Ok(None) };
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > BODY_BYTES_MAX {
        return Err(wrong("has a piece that is too large"));
    }
    let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    let Some((sum, _)) = rest.split_first_chunk::<CRC_BYTES>() else { return Ok(None) };
    Ok(Some((head, body, u32::from_le_bytes(*sum))))
}

/// Is this an item of a state, sound in itself?
pub fn check(key: &[u8], value: &[u8]) -> Result<(), Error> {
    match key.split_first() {
        Some((&keys::CURRENT, row)) => drop(record::current(row, value)?),
        Some((&keys::PAST, _)) => {
            let (row, _, _) = keys::past_of(key)?;
            record::stored(&row, value)?;
        }
        Some((&keys::LOG, _)) => drop(record::trace(keys::log_of(key)?.0, value)?),
        Some((&keys::MARKS, [])) => drop(Marks::decode(value)?),
        Some((&(keys::ATTACHED | keys::SYSTEM | keys::TERM), _)) => drop(record::plainly(key, value)?),
        _ => return Err(damaged("something lies under a key that is none")),
    }
    Ok(())
}
