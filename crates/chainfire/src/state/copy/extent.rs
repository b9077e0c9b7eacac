//! How long a copy is in a file that goes on after it: whoever carries copies may add a digest of their own.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use store::Error;

use super::{BODY_BYTES_MAX, CRC_BYTES, END, HEAD_BYTES, MAGIC};
use crate::fault::io_fault;

/// Bytes of the copy that the file begins with. Nothing but lengths is looked at.
///
/// Errors: [`Error::Corrupt`] when there is no copy or it has no end.
pub fn extent(copy: &Path) -> Result<u64, Error> {
    let wrong = |reason: &str| Error::Corrupt { path: copy.to_path_buf(), reason: format!("the copy {reason}") };
    let fault = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => wrong("was cut off"),
        _ => io_fault("read a copy", error),
    };
    let mut file = File::open(copy).map_err(|error| io_fault("open a copy", error))?;
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic).map_err(fault)?;
    if magic != *MAGIC {
        return Err(wrong("is none"));
    }
    let mut at = MAGIC.len() as u64;
    loop {
        let mut head = [0; HEAD_BYTES];
        file.read_exact(&mut head).map_err(fault)?;
        let [kind, length @ ..] = head;
        let body = u32::from_le_bytes(length) as usize;
        if body > BODY_BYTES_MAX {
            return Err(wrong("has a piece that is too large"));
        }
        at += (HEAD_BYTES + body + CRC_BYTES) as u64;
        file.seek(SeekFrom::Start(at)).map_err(fault)?;
        if kind == END {
            return Ok(at);
        }
    }
}
