//! Files with holes. All four forms become one map: sorted extents of data in a file of a stated size.

use std::io::{self, Read};

use super::extension::decimal;
use super::header::{BLOCK_BYTES, Block, number};

/// Extents of one file.
const EXTENTS_MAX: usize = 1 << 16;
/// Continuation blocks of GNU's old form hold 21 extents each.
const CONTINUATIONS_MAX: usize = EXTENTS_MAX / 21;
/// A line of the map in pax form 1.0.
const LINE_BYTES_MAX: usize = 24;

/// Data at `offset` of the file, `length` bytes long. The archive stores the lengths one after the other.
pub type Extent = (u64, u64);

const UNREADABLE: &str = "has an unreadable map of holes";
const TOO_MANY: &str = "has too many holes";

/// Why a map was not had.
pub enum Trouble {
    Wrong(&'static str),
    Read(io::Error),
}

/// GNU's old form: four extents in the header, the rest in blocks behind it. Answers extents and the file's size.
pub fn read_gnu(header: &Block, input: &mut impl Read) -> Result<(Vec<Extent>, u64), Trouble> {
    let size = number(&header[483..495]).and_then(|size| u64::try_from(size).ok()).ok_or(Trouble::Wrong(UNREADABLE))?;
    let mut extents = Vec::new();
    push_pairs(&header[386..482], &mut extents)?;
    let mut more = header[482] != 0;
    let mut blocks = 0;
    while more {
        blocks += 1;
        if blocks > CONTINUATIONS_MAX {
            return Err(Trouble::Wrong(TOO_MANY));
        }
        let mut block = [0; BLOCK_BYTES];
        input.read_exact(&mut block).map_err(Trouble::Read)?;
        push_pairs(&block[..504], &mut extents)?;
        more = block[504] != 0;
    }
    Ok((extents, size))
}

fn push_pairs(field: &[u8], extents: &mut Vec<Extent>) -> Result<(), Trouble> {
    for pair in field.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        let one = |field| number(field).and_then(|value| u64::try_from(value).ok()).ok_or(Trouble::Wrong(UNREADABLE));
        extents.push((one(&pair[..12])?, one(&pair[12..])?));
    }
    Ok(())
}

/// Pax form 1.0: decimal lines at the head of the data, padded to a block. Answers extents and the bytes consumed.
pub fn read_pax_1(input: &mut impl Read) -> Result<(Vec<Extent>, u64), Trouble> {
    let mut consumed = 0;
    let mut line = |input: &mut dyn Read| -> Result<u64, Trouble> {
        let mut text = Vec::new();
        loop {
            let mut byte = [0];
            input.read_exact(&mut byte).map_err(Trouble::Read)?;
            consumed += 1;
            if byte[0] == b'\n' {
                return decimal(&text).and_then(|value| u64::try_from(value).ok()).ok_or(Trouble::Wrong(UNREADABLE));
            }
            text.push(byte[0]);
            if text.len() > LINE_BYTES_MAX {
                return Err(Trouble::Wrong(UNREADABLE));
            }
        }
    };
    let count = line(input)?;
    if count > EXTENTS_MAX as u64 {
        return Err(Trouble::Wrong(TOO_MANY));
    }
    let mut extents = Vec::new();
    for _ in 0..count {
        extents.push((line(input)?, line(input)?));
    }
    let padding = (BLOCK_BYTES as u64 - consumed % BLOCK_BYTES as u64) % BLOCK_BYTES as u64;
    io::copy(&mut input.take(padding), &mut io::sink()).map_err(Trouble::Read)?;
    Ok((extents, consumed + padding))
}

/// Pax forms 0.0 and 0.1: offsets and lengths by turns.
pub fn pairs(numbers: &[i64]) -> Result<Vec<Extent>, Trouble> {
    if !numbers.len().is_multiple_of(2) {
        return Err(Trouble::Wrong(UNREADABLE));
    }
    if numbers.len() / 2 > EXTENTS_MAX {
        return Err(Trouble::Wrong(TOO_MANY));
    }
    let one = |value: i64| u64::try_from(value).map_err(|_| Trouble::Wrong(UNREADABLE));
    numbers.chunks_exact(2).map(|pair| Ok((one(pair[0])?, one(pair[1])?))).collect()
}

/// Extents must rise, not overlap, lie within the file and have exactly `stored` bytes.
pub fn check(extents: &[Extent], size: u64, stored: u64) -> Result<(), Trouble> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in extents {
        if *offset < end {
            return Err(Trouble::Wrong("has holes out of order"));
        }
        end = offset.checked_add(*length).ok_or(Trouble::Wrong(UNREADABLE))?;
        sum = sum.checked_add(*length).ok_or(Trouble::Wrong(UNREADABLE))?;
    }
    if end > size || sum != stored {
        return Err(Trouble::Wrong("has a map of holes that does not fit its size"));
    }
    Ok(())
}
