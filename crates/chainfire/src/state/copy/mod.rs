//! A whole copy of a state, as a stream of checked pieces: for members that are too far behind, for files, for restoring.
//!
//! ```text
//! magic:8 { kind:1 length:4 body crc:4 }...
//!   1 header  the marks
//!   2 items   key_length:2 value_length:4 key value, again and again; an item may be cut between pieces
//!   3 end     items:8 sha256:32 of all bodies before it
//! ```
//!
//! Numbers are little-endian. The checksum of a piece covers its place in the stream, kind, length and body.

mod decode;
mod encode;
mod extent;
mod incoming;
mod load;

pub use decode::{Decoder, check};
pub use encode::Pieces;
pub use extent::extent;
pub use incoming::{Dump, Incoming};
pub use load::{Loaded, import, inspect, load_dump};

const MAGIC: &[u8; 8] = b"photonCF";

const HEADER: u8 = 1;
const ITEMS: u8 = 2;
const END: u8 = 3;

/// Kind and length before a body, the checksum after it.
const HEAD_BYTES: usize = 5;
const CRC_BYTES: usize = 4;

/// A piece with everything around it has at most 1 MiB.
const BODY_BYTES_MAX: usize = (1 << 20) - MAGIC.len() - HEAD_BYTES - CRC_BYTES;

/// Lengths before an item.
const ITEM_HEAD_BYTES: usize = 6;

fn crc(place: u64, head: &[u8], body: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(&place.to_le_bytes());
    crc.update(head);
    crc.update(body);
    crc.sum()
}
