//! Frames out of a byte stream that may start in the middle, break off, or lie.

use super::crc::crc32;
use super::frame::{FLAG_MORE, Frame, HEADER_LEN, Kind, MAGIC};
use super::{CONTROL_MAX, PAYLOAD_MAX};

/// What was thrown away so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// Bytes outside of any frame, the zeros of preambles included.
    pub bytes: u64,
    /// Frames with a good header and a damaged payload, of an unknown kind, or part of a message that grew too long.
    pub frames: u64,
}

/// An incremental reader: push bytes as they come, pop frames until there are none.
///
/// It holds at most what was pushed and not popped, plus one control message of [`CONTROL_MAX`] bytes. No input makes
/// it panic, and it finds the first whole frame after any garbage that ends in a [`super::preamble`].
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Everything before this index is used up.
    start: usize,
    /// The pieces of a control message so far.
    control: Vec<u8>,
    /// The rest of a too long control message is being skipped.
    overflow: bool,
    noise: Noise,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Forgets everything pushed: the peer at the other end is a new one.
    pub fn reset(&mut self) {
        self.buffer.clear();
        self.start = 0;
        self.control.clear();
        self.overflow = false;
    }

    pub fn noise(&self) -> Noise {
        self.noise
    }

    /// The next whole frame. Control messages of several frames come as one, with their flags cleared.
    pub fn pop(&mut self) -> Option<Frame> {
        loop {
            self.seek();
            let rest = &self.buffer[self.start..];
            let header = rest.get(..HEADER_LEN)?;
            let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let length = word(12) as usize;
            if word(20) != crc32(&header[..20]) || length > PAYLOAD_MAX {
                self.start += 1;
                self.noise.bytes += 1;
                continue;
            }
            let payload = rest.get(HEADER_LEN..HEADER_LEN + length)?;
            let (kind, flags, stream) = (Kind::from_byte(header[4]), header[5], word(8));
            let sound = word(16) == crc32(payload);
            let payload = if sound { payload.to_vec() } else { Vec::new() };
            self.start += HEADER_LEN + length;
            let (true, Some(kind)) = (sound, kind) else {
                self.noise.frames += 1;
                continue;
            };
            if let Some(frame) = self.assemble(Frame { kind, flags, stream, payload }) {
                return Some(frame);
            }
        }
    }

    /// Moves to the next byte that could start a frame.
    fn seek(&mut self) {
        let rest = &self.buffer[self.start..];
        let mut skip = 0;
        while let Some(first) = rest[skip..].iter().position(|byte| *byte == MAGIC[0]) {
            skip += first;
            // A candidate cut off by the end of the buffer may still become one.
            if MAGIC.starts_with(&rest[skip..rest.len().min(skip + MAGIC.len())]) {
                break;
            }
            skip += 1;
        }
        if rest[skip..].first() != Some(&MAGIC[0]) {
            skip = rest.len();
        }
        self.start += skip;
        self.noise.bytes += skip as u64;
    }

    fn assemble(&mut self, frame: Frame) -> Option<Frame> {
        if frame.kind != Kind::Control {
            return Some(frame);
        }
        let more = frame.flags & FLAG_MORE != 0;
        if self.overflow || self.control.len() + frame.payload.len() > CONTROL_MAX {
            self.noise.frames += 1;
            self.control = Vec::new();
            self.overflow = more;
            return None;
        }
        if more {
            self.control.extend_from_slice(&frame.payload);
            return None;
        }
        if self.control.is_empty() {
            return Some(Frame { flags: 0, ..frame });
        }
        let mut payload = std::mem::take(&mut self.control);
        payload.extend_from_slice(&frame.payload);
        Some(Frame { kind: Kind::Control, flags: 0, stream: frame.stream, payload })
    }
}
