//! The LZ4 legacy frame, the form in which a kernel is packed: blocks of at most 8 MiB, each behind its length.
//!
//! Source: LZ4 frame format description 1.6, section "Legacy frame"; LZ4 block format description.

/// What the frame begins with.
pub const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// No kernel is larger than this when unpacked, in bytes; more is refused before memory runs out.
const UNPACKED_BYTES_MAX: usize = 512 << 20;
/// A legacy block unpacks to this many bytes at most.
const BLOCK_BYTES_MAX: usize = 8 << 20;

/// Unpacks a legacy frame. Ends at the end of `packed`, at a zero length, or at trailing bytes too short for a block
/// (a kernel's payload carries its unpacked length in its last four bytes; cut them off before).
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut rest = packed.strip_prefix(&MAGIC).ok_or("not an LZ4 legacy frame")?;
    let mut out = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 {
            break;
        }
        let (block, after) = after.split_at_checked(length).ok_or("a block is cut short")?;
        unpack_block(block, &mut out)?;
        rest = after;
    }
    Ok(out)
}

fn unpack_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let start = out.len();
    let mut input = Input { rest: block };
    while !input.rest.is_empty() {
        let token = input.byte()?;
        let literals = input.length(token >> 4)?;
        out.extend_from_slice(input.take(literals)?);
        // The last sequence of a block has literals only.
        if input.rest.is_empty() {
            break;
        }
        let distance = usize::from(input.byte()?) | usize::from(input.byte()?) << 8;
        let length = input.length(token & 15)? + 4;
        let unpacked = out.len() - start;
        if distance == 0 || distance > unpacked {
            return Err("a match points before its block");
        }
        if unpacked + length > BLOCK_BYTES_MAX || out.len() + length > UNPACKED_BYTES_MAX {
            return Err("a block unpacks to more than its limit");
        }
        let mut from = out.len() - distance;
        let mut left = length;
        // A match may overlap what it writes; what is there already is copied, and doubles each round.
        while left > 0 {
            let piece = left.min(out.len() - from);
            out.extend_from_within(from..from + piece);
            from += piece;
            left -= piece;
        }
    }
    Ok(())
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, &'static str> {
        let (&byte, rest) = self.rest.split_first().ok_or("a sequence is cut short")?;
        self.rest = rest;
        Ok(byte)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("literals are cut short")?;
        self.rest = rest;
        Ok(taken)
    }

    /// Four bits, and when they are all set further bytes, each added, until one is not 255.
    fn length(&mut self, nibble: u8) -> Result<usize, &'static str> {
        let mut length = usize::from(nibble);
        if nibble == 15 {
            loop {
                let byte = self.byte()?;
                length += usize::from(byte);
                if byte != 255 {
                    break;
                }
                if length > BLOCK_BYTES_MAX {
                    return Err("a length exceeds its block");
                }
            }
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(block: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&(block.len() as u32).to_le_bytes());
        out.extend_from_slice(block);
        out
    }

    #[test]
    fn literals_matches_and_overlaps_unpack() {
        // "abc", then 9 bytes from 3 back (overlapping), then the literals "Z!".
        let block = [0x35, b'a', b'b', b'c', 3, 0, 0x20, b'Z', b'!'];
        assert_eq!(unpack(&frame(&block)).unwrap(), b"abcabcabcabcZ!");
        // A run: one byte, then 15 + 4 + 2 times itself.
        let block = [0x1f, b'x', 1, 0, 2, 0x00];
        assert_eq!(unpack(&frame(&block)).unwrap(), vec![b'x'; 22]);
    }

    #[test]
    fn broken_input_is_refused_and_never_panics() {
        assert!(unpack(b"nothing").is_err());
        assert!(unpack(&frame(&[0x10])).is_err());
        assert!(unpack(&frame(&[0x10, b'a', 2, 0, 0x00])).is_err());
        assert!(unpack(&frame(&[0x10, b'a', 0, 0, 0x00])).is_err());
        let good = frame(&[0x35, b'a', b'b', b'c', 3, 0, 0x20, b'Z', b'!']);
        for cut in 4..good.len() {
            let _ = unpack(&good[..cut]);
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[cut] ^= 1 << bit;
                let _ = unpack(&flipped);
            }
        }
    }
}
