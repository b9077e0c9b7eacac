//! What a segment looks like, byte by byte.
//!
//! ```text
//! segment   header │ record │ record │ … │ zeros up to the length that the header names
//! header    magic 8 │ format u32 │ 0 u32 │ sequence u64 │ bytes u64 │ cluster u64 │ previous end u64 │ previous sum u64 │ sum u64
//! record    head: length u32 │ check u32 │ previous sum u64   payload: kind u8 │ postcard   zeros to 16 bytes less 8   sum u64
//! ```
//!
//! Numbers are little-endian. Records start at multiples of 16 bytes, so a head never lies across two sectors. `check`
//! is over the length, `sum` is over all of the record before it, and both are seeded with the segment's sequence and the
//! record's offset: a record at a wrong place is none. A record names the sum of the one before it, the first one that of
//! the header, and the header that of the last record of the segment before: what is not the next link of the chain is
//! not part of the log, however whole it is.
//!
//! Sums are XXH3 of 64 bits and not a CRC of 32: a damaged segment is searched for later records at every 16th byte,
//! and among millions of places one in four billion would be too likely.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Of header, records and payloads. Every format begins with a header of the same shape.
pub const FORMAT: u32 = 1;

pub const MAGIC: [u8; 8] = *b"chainlog";

pub const HEADER_BYTES: usize = 64;

/// Where records start.
pub const ALIGN: usize = 16;

pub const HEAD_BYTES: usize = 16;

const SUM_BYTES: usize = 8;

/// What a disk writes whole or not at all; real ones have this or a multiple.
pub const SECTOR_BYTES: usize = 512;

/// Of one record. Far above what a proposal has; a length beyond it is damage.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Of a header.
const HEADER_SEED: u64 = 0x6368_6169_6e66_6972;

/// Odd, with its bits spread: neighbouring places get seeds that are far apart.
const SEED_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The beginning of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Counts segments from 0; also the file's name.
    pub sequence: u64,
    /// Length of the file, all of it zeros before it was written to.
    pub bytes: u64,
    /// 0 when none was given.
    pub cluster: u64,
    /// Where the last record of the segment before ends; 0 for the first segment.
    pub previous_end: u64,
    /// The sum of that record; 0 for the first segment.
    pub previous_sum: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderFlaw {
    Damaged,
    /// Whole, but of another format.
    Format(u32),
}

impl Header {
    /// The bytes and their sum.
    pub fn encode(&self) -> ([u8; HEADER_BYTES], u64) {
        self.encode_as(FORMAT)
    }

    /// As another version would write it.
    pub fn encode_as(&self, format: u32) -> ([u8; HEADER_BYTES], u64) {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&format.to_le_bytes());
        let fields = [self.sequence, self.bytes, self.cluster, self.previous_end, self.previous_sum];
        for (nth, field) in fields.into_iter().enumerate() {
            out[16 + nth * 8..24 + nth * 8].copy_from_slice(&field.to_le_bytes());
        }
        let sum = xxh3_64_with_seed(&out[..56], HEADER_SEED);
        out[56..].copy_from_slice(&sum.to_le_bytes());
        (out, sum)
    }

    /// The header and its sum.
    pub fn decode(bytes: &[u8]) -> Result<(Self, u64), HeaderFlaw> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(HeaderFlaw::Damaged)?;
        let sum = u64_at(bytes, 56);
        if bytes[..8] != MAGIC || sum != xxh3_64_with_seed(&bytes[..56], HEADER_SEED) {
            return Err(HeaderFlaw::Damaged);
        }
        match u32_at(bytes, 8) {
            FORMAT => {}
            other => return Err(HeaderFlaw::Format(other)),
        }
        let field = |nth: usize| u64_at(bytes, 16 + nth * 8);
        let header = Self {
            sequence: field(0),
            bytes: field(1),
            cluster: field(2),
            previous_end: field(3),
            previous_sum: field(4),
        };
        Ok((header, sum))
    }
}

/// What a payload is; its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Entry,
    Mark,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Mark => 2,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Entry),
            2 => Some(Self::Mark),
            _ => None,
        }
    }
}

/// A record whose sums hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// `None` for a kind that this version does not know.
    pub kind: Option<Kind>,
    /// Without the kind.
    pub body: &'a [u8],
    pub previous_sum: u64,
    pub sum: u64,
    /// The offset after it.
    pub end: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// The head is damaged, or nothing was written there.
    Head,
    /// The head is whole and the record is not; it would end at `end`, perhaps beyond the segment.
    Body { end: usize },
}

/// Bytes that a record with this payload takes, the kind counted in.
pub const fn record_bytes(payload_bytes: usize) -> usize {
    (HEAD_BYTES + payload_bytes + SUM_BYTES).next_multiple_of(ALIGN)
}

fn seed(sequence: u64, offset: usize) -> u64 {
    (sequence.rotate_left(32) ^ offset as u64 ^ HEADER_SEED).wrapping_mul(SEED_FACTOR)
}

/// Appends a record to `out`, which holds what the segment has from `out_offset` on; answers its sum.
pub fn put<T: Serialize>(
    out: &mut Vec<u8>,
    out_offset: usize,
    sequence: u64,
    previous_sum: u64,
    kind: Kind,
    body: &T,
) -> postcard::Result<u64> {
    let start = out.len();
    let seed = seed(sequence, out_offset + start);
    out.extend_from_slice(&[0; HEAD_BYTES]);
    out.push(kind.byte());
    postcard::to_io(body, &mut *out)?;
    let payload_bytes = out.len() - start - HEAD_BYTES;
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(postcard::Error::SerializeBufferFull);
    }
    let length = (payload_bytes as u32).to_le_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..start + 8].copy_from_slice(&(xxh3_64_with_seed(&length, seed) as u32).to_le_bytes());
    out[start + 8..start + HEAD_BYTES].copy_from_slice(&previous_sum.to_le_bytes());
    out.resize(start + record_bytes(payload_bytes) - SUM_BYTES, 0);
    let sum = xxh3_64_with_seed(&out[start..], seed);
    out.extend_from_slice(&sum.to_le_bytes());
    Ok(sum)
}

/// The end of the record at `offset` by its head alone; `bytes` is what the segment has from there on.
pub fn head(bytes: &[u8], sequence: u64, offset: usize) -> Option<usize> {
    let head = bytes.get(..HEAD_BYTES)?;
    let length = u32_at(head, 0);
    // Most of a segment that is searched is zeros.
    if length == 0 || length as usize > PAYLOAD_BYTES_MAX {
        return None;
    }
    let check = xxh3_64_with_seed(&length.to_le_bytes(), seed(sequence, offset)) as u32;
    (check == u32_at(head, 4)).then(|| offset + record_bytes(length as usize))
}

/// The record at `offset`; `bytes` is what the segment has from there on.
pub fn read(bytes: &[u8], sequence: u64, offset: usize) -> Result<Record<'_>, Flaw> {
    let end = head(bytes, sequence, offset).ok_or(Flaw::Head)?;
    let record = bytes.get(..end - offset).ok_or(Flaw::Body { end })?;
    let (summed, sum) = record.split_at(record.len() - SUM_BYTES);
    let sum = u64_at(sum, 0);
    if sum != xxh3_64_with_seed(summed, seed(sequence, offset)) {
        return Err(Flaw::Body { end });
    }
    let payload = &record[HEAD_BYTES..HEAD_BYTES + u32_at(record, 0) as usize];
    Ok(Record { kind: Kind::of(payload[0]), body: &payload[1..], previous_sum: u64_at(record, 8), sum, end })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The body of a mark: what holds at this place of the log, and how far the segment had been synced when it was written.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Mark {
    /// An offset in the same segment; 0 when nothing of it was known to be synced.
    pub synced: u32,
    pub marks: super::marks::Marks,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_at_its_place_only() {
        let mut out = vec![0; 64];
        let sum = put(&mut out, 0, 7, 99, Kind::Entry, &"content").unwrap();
        let record = read(&out[64..], 7, 64).unwrap();
        assert_eq!((record.kind, record.previous_sum, record.sum), (Some(Kind::Entry), 99, sum));
        assert_eq!(postcard::from_bytes(record.body), Ok("content"));
        assert_eq!(record.end, out.len());
        assert_eq!(read(&out[64..], 8, 64), Err(Flaw::Head));
        assert_eq!(read(&out[64..], 7, 80), Err(Flaw::Head));
        assert_eq!(read(&out[64..out.len() - 1], 7, 64), Err(Flaw::Body { end: out.len() }));
    }

    /// Neither the check nor the sum is taken from nothing.
    #[test]
    fn zeros_are_no_record() {
        assert_eq!(read(&[0; 4096], 0, 64), Err(Flaw::Head));
        assert_eq!(read(&[], 0, 64), Err(Flaw::Head));
        assert_eq!(Header::decode(&[0; 64]), Err(HeaderFlaw::Damaged));
    }
}
