//! What clients say for the host's name, made a host's name.
//!
//! etcd's clients up to 3.4 that are given an endpoint as a URL send all of it as `:authority` when they talk to that one
//! member (status, defragment, snapshot, hash). That is no authority by RFC 9113, section 8.3.1, and the HTTP/2 beneath
//! resets such a call as malformed. So the scheme is taken off while the bytes come in.
//!
//! ```text
//!   frame ── not HEADERS ──▶ as it is
//!     └───── HEADERS ──▶ each field's length (RFC 7541, section 6) ── ":authority: http://..." ──▶ without "http://"
//! ```
//!
//! A client remembers the field it sent and refers to it later by how many fields ago it was; that stays true with a
//! shorter value, because the table of the one who reads then lets go of fields later, never sooner.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a client says first, before any frame.
const PREFACE_BYTES: usize = 24;

const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// The longest frame that anybody may send who was not told otherwise.
const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Read at once.
const READ_BYTES: usize = 16 * 1024;

/// `:authority` among the fields that everybody knows.
const AUTHORITY: usize = 1;

/// The schemes as they are, and as a Huffman code (RFC 7541, appendix B) with its length in bits.
const SCHEMES: [(&[u8], u64, u32); 2] = [(b"http://", 0x13a_535d_c618, 41), (b"https://", 0x274a_6b45_c618, 46)];

pub struct Mended<S> {
    stream: S,
    /// Came in, and not looked at.
    raw: BytesMut,
    /// Looked at, and not yet asked for.
    ready: BytesMut,
    /// Bytes that come next and are not looked at.
    pass: usize,
}

impl<S> Mended<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, raw: BytesMut::new(), ready: BytesMut::new(), pass: PREFACE_BYTES }
    }

    /// Moves from `raw` to `ready` what can be told already.
    fn look(&mut self) {
        loop {
            if self.pass > 0 {
                let bytes = self.pass.min(self.raw.len());
                let passed = self.raw.split_to(bytes);
                self.pass_on(passed);
                self.pass -= bytes;
            }
            let Some(&[long, longer, length, kind, flags, ..]) = self.raw.first_chunk::<FRAME_HEAD_BYTES>() else {
                return;
            };
            let bytes = u32::from_be_bytes([0, long, longer, length]) as usize;
            if kind != HEADERS || flags & END_HEADERS == 0 || bytes > FRAME_BYTES_MAX {
                self.pass = FRAME_HEAD_BYTES + bytes;
                continue;
            }
            if self.raw.len() < FRAME_HEAD_BYTES + bytes {
                return;
            }
            let frame = self.raw.split_to(FRAME_HEAD_BYTES + bytes);
            self.pass_on(mend(&frame).unwrap_or(frame));
        }
    }

    /// Without copying, when it lies where the last one ends.
    fn pass_on(&mut self, bytes: BytesMut) {
        if self.ready.is_empty() {
            self.ready = bytes;
        } else {
            self.ready.unsplit(bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ready.is_empty() {
            this.raw.reserve(READ_BYTES);
            let bytes = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut this.stream), cx, &mut this.raw))?;
            if bytes == 0 {
                // A frame that was cut off is for the one who reads to complain about.
                std::mem::swap(&mut this.ready, &mut this.raw);
                break;
            }
            this.look();
        }
        let bytes = this.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.ready[..bytes]);
        this.ready.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The frame with a mended field, when it has one to mend.
fn mend(frame: &[u8]) -> Option<BytesMut> {
    let (head, payload) = frame.split_first_chunk::<FRAME_HEAD_BYTES>()?;
    let flags = head[4];
    let padded = flags & PADDED != 0;
    let skip = usize::from(padded) + if flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
    let padding = if padded { usize::from(*payload.first()?) } else { 0 };
    let fields = payload.get(skip..payload.len().checked_sub(padding)?)?;
    let (value, fresh) = authority(fields)?;
    let mut mended = BytesMut::with_capacity(frame.len());
    mended.extend_from_slice(head);
    mended.extend_from_slice(&payload[..skip]);
    mended.extend_from_slice(&fields[..value.start]);
    mended.extend_from_slice(&fresh);
    mended.extend_from_slice(&fields[value.end..]);
    mended.put_bytes(0, padding);
    let bytes = (mended.len() - FRAME_HEAD_BYTES) as u32;
    mended[..3].copy_from_slice(&bytes.to_be_bytes()[1..]);
    Some(mended)
}

/// Where the string with the authority lies, its length before it, and what has to be there instead.
fn authority(fields: &[u8]) -> Option<(std::ops::Range<usize>, Vec<u8>)> {
    let mut at = 0;
    while let Some(first) = fields.get(at) {
        let (bits, is_literal) = match first {
            0x80.. => (7, false),
            0x40..0x80 => (6, true),
            0x20..0x40 => (5, false),
            0x00..0x20 => (4, true),
        };
        let number = integer(fields, &mut at, bits)?;
        if !is_literal {
            continue;
        }
        if number == 0 {
            string(fields, &mut at)?;
        }
        let start = at;
        let (huffman, text) = string(fields, &mut at)?;
        if number == AUTHORITY {
            let fresh = if huffman { without_scheme_coded(text) } else { without_scheme(text) };
            return Some((start..at, fresh?));
        }
    }
    None
}

/// An integer with a prefix of `bits` bits; `None` when it is cut off or larger than any length can be.
fn integer(fields: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let prefix = (1 << bits) - 1;
    let mut number = usize::from(*fields.get(*at)?) & prefix;
    *at += 1;
    if number < prefix {
        return Some(number);
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*fields.get(*at)?);
        *at += 1;
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A string, and whether it is in the Huffman code.
fn string<'a>(fields: &'a [u8], at: &mut usize) -> Option<(bool, &'a [u8])> {
    let huffman = fields.get(*at)? & 0x80 != 0;
    let bytes = integer(fields, at, 7)?;
    let text = fields.get(*at..)?.get(..bytes)?;
    *at += bytes;
    Some((huffman, text))
}

/// What [`string`] reads.
fn written(huffman: bool, text: &[u8]) -> Vec<u8> {
    let flag = if huffman { 0x80 } else { 0 };
    let mut out = Vec::with_capacity(text.len() + 3);
    if text.len() < 127 {
        out.push(flag | text.len() as u8);
    } else {
        let mut left = text.len() - 127;
        out.push(flag | 127);
        while left >= 128 {
            out.push(0x80 | (left & 0x7f) as u8);
            left >>= 7;
        }
        out.push(left as u8);
    }
    out.extend_from_slice(text);
    out
}

fn without_scheme(text: &[u8]) -> Option<Vec<u8>> {
    let host = SCHEMES.iter().find_map(|(scheme, ..)| text.strip_prefix(*scheme))?;
    Some(written(false, host))
}

/// The same without decoding: the code of a prefix is a prefix of the code.
fn without_scheme_coded(text: &[u8]) -> Option<Vec<u8>> {
    let first = u64::from(bits_at(text, 0)) << 32 | u64::from(bits_at(text, 32));
    let (.., scheme) = SCHEMES.iter().find(|(_, code, bits)| first >> (u64::BITS - bits) == *code)?;
    let scheme = *scheme as usize;
    let mut end = scheme;
    // What is left at the end are the first bits of a code of ones alone, less than a byte of them.
    while text.len() * 8 - end >= 8 || bits_at(text, end) != u32::MAX {
        end += code_bits(bits_at(text, end))?;
        if end > text.len() * 8 {
            return None;
        }
    }
    let host: Vec<u8> = (scheme..end).step_by(8).map(|bit| (bits_at(text, bit) >> 24) as u8).collect();
    Some(written(true, &host))
}

/// 32 bits from this one on. The end is filled up with ones.
fn bits_at(text: &[u8], bit: usize) -> u32 {
    let byte = |at: usize| u64::from(text.get(at).copied().unwrap_or(0xff));
    let five = (0..5).fold(0, |bits, next| bits << 8 | byte(bit / 8 + next));
    (five >> (8 - bit % 8)) as u32
}

/// The length of the code that these bits begin with. `None` for those of characters that no address has.
fn code_bits(bits: u32) -> Option<usize> {
    // Codes of one length follow on another, shorter ones come first.
    let is = |length: u32, codes: std::ops::RangeInclusive<u32>| codes.contains(&(bits >> (u32::BITS - length)));
    let lengths = [(5, 0..=9), (6, 20..=45), (7, 92..=123), (8, 248..=253), (13, 0x1ff8..=0x1ffd)];
    lengths.into_iter().find_map(|(length, codes)| is(length, codes).then_some(length as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Go's client sends it: `:method: POST`, `:scheme: http`, `:path: /a`, then the authority.
    fn frame(authority: &[u8], flags: u8) -> Vec<u8> {
        let mut fields = vec![0x83, 0x86, 0x44, 0x02, b'/', b'a', 0x41];
        fields.extend_from_slice(authority);
        fields.extend_from_slice(&[0x40, 0x01, b'n', 0x01, b'v']);
        let mut payload = Vec::new();
        if flags & PADDED != 0 {
            payload.push(3);
        }
        if flags & PRIORITY != 0 {
            payload.extend_from_slice(&[0, 0, 0, 0, 7]);
        }
        payload.extend_from_slice(&fields);
        if flags & PADDED != 0 {
            payload.extend_from_slice(&[0; 3]);
        }
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[HEADERS, END_HEADERS | flags, 0, 0, 0, 1]);
        frame.extend_from_slice(&payload);
        frame
    }

    #[test]
    fn the_scheme_is_taken_off_and_nothing_else() {
        let long = [b'x'; 300];
        for flags in [0, PADDED, PRIORITY, PADDED | PRIORITY] {
            for (given, mended) in [
                (&b"http://127.0.0.1:2379"[..], &b"127.0.0.1:2379"[..]),
                (b"https://store.example:2379", b"store.example:2379"),
                (&[b"http://", &long[..]].concat(), &long),
            ] {
                assert_eq!(mend(&frame(&written(false, given), flags)).unwrap(), frame(&written(false, mended), flags));
            }
            for left in [&b"127.0.0.1:2379"[..], b"httpx", b"", b"ftp://a"] {
                assert_eq!(mend(&frame(&written(false, left), flags)), None);
            }
        }
    }

    /// The code of RFC 7541 for the characters that a host's name, a port and a scheme are made of.
    fn coded(text: &str) -> Vec<u8> {
        let code = |character| match character {
            '0' => "00000",
            '1' => "00001",
            '2' => "00010",
            'a' => "00011",
            's' => "01000",
            't' => "01001",
            '.' => "010111",
            '/' => "011000",
            '3' => "011001",
            '7' => "011101",
            '9' => "011111",
            'h' => "100111",
            'p' => "101011",
            ':' => "1011100",
            'z' => "1111011",
            '[' => "1111111111011",
            ']' => "1111111111100",
            other => panic!("{other} is not needed"),
        };
        let mut bits: String = text.chars().map(code).collect();
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        bits.as_bytes()
            .chunks(8)
            .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
            .collect()
    }

    #[test]
    fn a_coded_scheme_is_taken_off_whatever_its_end_is_filled_up_with() {
        for scheme in ["http://", "https://"] {
            for host in [
                "127.0.0.1:2379",
                "a",
                "aa",
                "aaa",
                "z",
                "zz",
                "zzz",
                "az.z",
                "127.0.0.1:12379",
                "3",
                "33",
                "333",
                "[a:1]:1",
            ] {
                let given = frame(&written(true, &coded(&format!("{scheme}{host}"))), 0);
                let expected = frame(&written(true, &coded(host)), 0);
                assert_eq!(mend(&given).unwrap(), expected, "{scheme}{host}");
            }
        }
        assert_eq!(mend(&frame(&written(true, &coded("127.0.0.1:2379")), 0)), None);
    }

    #[tokio::test]
    async fn bytes_come_through_however_they_are_cut() {
        use tokio::io::AsyncReadExt;
        use tokio_util::io::StreamReader;
        let data = [&[0, 0, 4, 0, 0, 0, 0, 0, 1][..], b"data"].concat();
        let parts = |authority: &[u8]| {
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            let headers = frame(&written(false, authority), 0);
            [preface, headers.clone(), data.clone(), headers, data.clone()].concat()
        };
        let given = parts(b"http://h:1");
        for piece in 1..given.len() {
            let pieces = given.chunks(piece).map(|piece| Ok::<_, io::Error>(bytes::Bytes::copy_from_slice(piece)));
            let mut out = Vec::new();
            Mended::new(StreamReader::new(futures::stream::iter(pieces))).read_to_end(&mut out).await.unwrap();
            assert_eq!(out, parts(b"h:1"), "{piece}");
        }
    }

    #[test]
    fn what_is_cut_off_or_nonsense_is_left_as_it_is() {
        let whole = frame(&written(false, b"http://h:1"), 0);
        for end in 0..whole.len() {
            let _ = mend(&whole[..end]);
        }
        for byte in 0..=255 {
            assert_eq!(authority(&[byte; 40]), None);
        }
        assert_eq!(mend(&frame(&[0xff, 0xff, 0xff, 0xff, 0xff], PADDED)), None);
    }
}
