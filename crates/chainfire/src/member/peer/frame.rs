//! Frames: a length, an id, and a message in postcard.
//!
//! ```text
//!   u32 LE: bytes after this   u64 LE: id   message
//! ```
//!
//! Id 0 with an empty message is a sign of life.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest message: the entries of one append, or the answers of one batch of requests, may come to several times what
/// one request may have.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest first message of a connection, from whoever it may come.
pub const HELLO_BYTES_MAX: usize = 4 * 1024;

const ID_BYTES: usize = 8;

/// Memory for a message is taken as its bytes come in, this much at a time, so that a length alone takes none.
const READ_BYTES: usize = 256 * 1024;

pub struct Frame {
    pub id: u64,
    pub message: Vec<u8>,
}

impl Frame {
    pub fn is_sign_of_life(&self) -> bool {
        self.id == 0 && self.message.is_empty()
    }
}

pub fn sign_of_life(buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&(ID_BYTES as u32).to_le_bytes());
    buffer.extend_from_slice(&0u64.to_le_bytes());
}

/// Appends the frame to `buffer`. A message that is too long leaves the buffer as it was.
pub fn put<M: Serialize>(buffer: &mut Vec<u8>, id: u64, message: &M) -> io::Result<()> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&id.to_le_bytes());
    let written = postcard::to_io(message, &mut *buffer).map(|_| ()).map_err(io::Error::other);
    let bytes = buffer.len() - start - 4;
    let written = written.and_then(|()| {
        let too_long = bytes > MESSAGE_BYTES_MAX + ID_BYTES;
        if too_long { Err(io::Error::other(format!("a message has {bytes} bytes"))) } else { Ok(()) }
    });
    match written {
        Ok(()) => buffer[start..start + 4].copy_from_slice(&(bytes as u32).to_le_bytes()),
        Err(_) => buffer.truncate(start),
    }
    written
}

/// `None` at an end between two frames.
pub async fn take(stream: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> io::Result<Option<Frame>> {
    let mut head = [0; 4];
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let bytes = u32::from_le_bytes(head) as usize;
    if !(ID_BYTES..=bytes_max + ID_BYTES).contains(&bytes) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame says that it has {bytes} bytes")));
    }
    let mut id = [0; ID_BYTES];
    stream.read_exact(&mut id).await?;
    let bytes = bytes - ID_BYTES;
    let mut message = Vec::with_capacity(bytes.min(READ_BYTES));
    while message.len() < bytes {
        let more = (bytes - message.len()).min(READ_BYTES) as u64;
        let before = message.len();
        (&mut *stream).take(more).read_to_end(&mut message).await?;
        if message.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Some(Frame { id: u64::from_le_bytes(id), message }))
}

pub fn message<M: DeserializeOwned>(bytes: &[u8]) -> io::Result<M> {
    postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in() {
        let mut buffer = Vec::new();
        put(&mut buffer, 7, &"seven".to_owned()).unwrap();
        sign_of_life(&mut buffer);
        put(&mut buffer, 8, &vec![1u8; READ_BYTES * 2 + 1]).unwrap();
        let mut stream = &buffer[..];
        let first = take(&mut stream, MESSAGE_BYTES_MAX).await.unwrap().unwrap();
        assert_eq!((first.id, message::<String>(&first.message).unwrap()), (7, "seven".to_owned()));
        assert!(take(&mut stream, MESSAGE_BYTES_MAX).await.unwrap().unwrap().is_sign_of_life());
        let third = take(&mut stream, MESSAGE_BYTES_MAX).await.unwrap().unwrap();
        assert_eq!(message::<Vec<u8>>(&third.message).unwrap().len(), READ_BYTES * 2 + 1);
        assert!(take(&mut stream, MESSAGE_BYTES_MAX).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused() {
        let long = [0xff; 64];
        assert!(take(&mut &long[..], MESSAGE_BYTES_MAX).await.is_err(), "too long");
        let short = [3, 0, 0, 0, 1, 2, 3];
        assert!(take(&mut &short[..], MESSAGE_BYTES_MAX).await.is_err(), "no room for the id");
        let mut cut = Vec::new();
        put(&mut cut, 7, &"seven".to_owned()).unwrap();
        cut.pop();
        assert!(take(&mut &cut[..], MESSAGE_BYTES_MAX).await.is_err(), "cut off");
        assert!(take(&mut &b"GET / HTTP/1.1\r\n\r\n"[..], HELLO_BYTES_MAX).await.is_err(), "another protocol");
    }
}
