//! One frame: a header that proves itself, then a payload.
//!
//! ```text
//!  0      4      5       6          8        12       16            20           24
//!  | vtG1 | kind | flags | zero u16 | stream | length | crc payload | crc header |  payload ...
//! ```
//!
//! Numbers are little-endian. The header has a checksum of its own, so a length is believed only when it was sent:
//! after a damaged payload the reader skips exactly that frame and never looks for frames inside of data.

use serde::Serialize;

use super::crc::crc32;
use super::{CONTROL_MAX, PAYLOAD_MAX};

pub const HEADER_LEN: usize = 24;
pub(super) const MAGIC: [u8; 4] = *b"vtG1";
/// On a control frame: the message goes on in the next control frame.
pub const FLAG_MORE: u8 = 1;
/// On a log frame: the line goes on in the next log frame of the same stream.
pub const FLAG_PARTIAL: u8 = 2;

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON, stream 0.
    Control,
    /// [`LogLine`]; stream 0.
    LogStdout,
    LogStderr,
    ExecStdin,
    /// The input ends; no payload.
    ExecStdinEof,
    ExecStdout,
    ExecStderr,
}

impl Kind {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::Control => 0x01,
            Self::LogStdout => 0x02,
            Self::LogStderr => 0x03,
            Self::ExecStdin => 0x10,
            Self::ExecStdinEof => 0x11,
            Self::ExecStdout => 0x12,
            Self::ExecStderr => 0x13,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x01 => Self::Control,
            0x02 => Self::LogStdout,
            0x03 => Self::LogStderr,
            0x10 => Self::ExecStdin,
            0x11 => Self::ExecStdinEof,
            0x12 => Self::ExecStdout,
            0x13 => Self::ExecStderr,
            _ => return None,
        })
    }
}

/// A whole frame, or a control message put together from several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: Kind,
    pub flags: u8,
    /// The exec session; 0 for everything else.
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A payload that is not what its kind says, or a message too large to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

impl Frame {
    /// The message of a control frame.
    pub fn message<T: serde::de::DeserializeOwned>(&self) -> Result<T, Malformed> {
        if self.kind != Kind::Control {
            return Err(Malformed(format!("{:?} is not a control frame", self.kind)));
        }
        serde_json::from_slice(&self.payload).map_err(|error| Malformed(error.to_string()))
    }

    /// The line of a log frame.
    pub fn log_line(&self) -> Result<LogLine, Malformed> {
        let stream = match self.kind {
            Kind::LogStdout => LogStream::Stdout,
            Kind::LogStderr => LogStream::Stderr,
            other => return Err(Malformed(format!("{other:?} is not a log frame"))),
        };
        let number = |at: usize| {
            let bytes = self.payload.get(at..at + 8).and_then(|slice| slice.try_into().ok());
            bytes.map(u64::from_le_bytes).ok_or_else(|| Malformed("a log frame is too short".to_owned()))
        };
        let (seq, unix_ns) = (number(0)?, number(8)?);
        let partial = self.flags & FLAG_PARTIAL != 0;
        Ok(LogLine { seq, unix_ns, stream, partial, text: self.payload[16..].to_vec() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

impl LogStream {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One line of the workload's output, without its newline; at most [`super::LOG_LINE_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// From 0 at boot, over both streams, without gaps.
    pub seq: u64,
    /// By the guest's clock.
    pub unix_ns: u64,
    pub stream: LogStream,
    /// The line was longer and goes on in the next one of this stream.
    pub partial: bool,
    pub text: Vec<u8>,
}

impl LogLine {
    /// Appends the line as a frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(16 + self.text.len());
        payload.extend_from_slice(&self.seq.to_le_bytes());
        payload.extend_from_slice(&self.unix_ns.to_le_bytes());
        payload.extend_from_slice(&self.text);
        let kind = match self.stream {
            LogStream::Stdout => Kind::LogStdout,
            LogStream::Stderr => Kind::LogStderr,
        };
        one(kind, if self.partial { FLAG_PARTIAL } else { 0 }, 0, &payload, out);
    }
}

/// Appends `payload` as one frame.
///
/// # Panics
/// When the payload is larger than [`PAYLOAD_MAX`]; the caller cuts its data.
pub fn encode(kind: Kind, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    one(kind, 0, stream, payload, out);
}

fn one(kind: Kind, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    assert!(payload.len() <= PAYLOAD_MAX, "a payload of {} bytes does not fit a frame", payload.len());
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[kind.to_byte(), flags, 0, 0]);
    out.extend_from_slice(&stream.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32(payload).to_le_bytes());
    let header = crc32(&out[start..]);
    out.extend_from_slice(&header.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Appends a control message, as several frames when it is long.
///
/// # Errors
/// When it is larger than [`CONTROL_MAX`]; nothing was appended then.
pub fn control<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let bytes = serde_json::to_vec(message).map_err(|error| Malformed(error.to_string()))?;
    if bytes.len() > CONTROL_MAX {
        return Err(Malformed(format!("a control message of {} bytes; the limit is {CONTROL_MAX}", bytes.len())));
    }
    let mut pieces = bytes.chunks(PAYLOAD_MAX).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_some() { FLAG_MORE } else { 0 };
        one(Kind::Control, flags, 0, piece, out);
    }
    Ok(())
}

impl super::ToGuest {
    /// Appends the message in its frames.
    ///
    /// # Errors
    /// When it is larger than [`CONTROL_MAX`]; nothing was appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        control(self, out)
    }
}

impl super::ToHost {
    /// Appends the message in its frames.
    ///
    /// # Errors
    /// When it is larger than [`CONTROL_MAX`]; nothing was appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        control(self, out)
    }
}

/// The quiet bytes before a hello: as many zeros as the largest frame has bytes.
///
/// The peer may be in the middle of a frame whose sender is gone. The zeros complete that frame, its checksum fails,
/// it is skipped as a whole, and the hello after it is seen. A fresh reader that starts inside of old data is led out
/// of it the same way.
pub fn preamble(out: &mut Vec<u8>) {
    out.resize(out.len() + HEADER_LEN + PAYLOAD_MAX, 0);
}
