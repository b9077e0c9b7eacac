//! The guest's serial console: kernel messages and PID 1's, for diagnosing a boot that failed.
//!
//! The monitor offers it on a socket; a task here writes it to a bounded file. A tenant can write anything to it, so it
//! is cleaned where it is shown.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::rotate::{Rotating, older};

/// Each of the two files, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("console")
}

/// Writes what comes until the socket closes.
pub(crate) async fn record(folder: &Path, mut socket: UnixStream) -> io::Result<()> {
    let mut file = Rotating::open(&path(folder), FILE_BYTES_MAX)?;
    let mut buffer = vec![0; 4096];
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        file.write(&buffer[..read])?;
    }
}

/// Starts over, so that what is read afterwards is of one boot.
pub(crate) fn clear(folder: &Path) {
    for path in [path(folder), older(&path(folder))] {
        // What is not there need not go; what cannot go will be overwritten by rotation.
        let _ = std::fs::remove_file(path);
    }
}

/// The last `bytes_max` bytes as text: no control characters but line ends and tabs.
pub(crate) fn tail(folder: &Path, bytes_max: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    for path in [older(&path(folder)), path(folder)] {
        match File::open(path) {
            Ok(file) => {
                let length = file.metadata()?.len();
                let start = length.saturating_sub(bytes_max as u64);
                let mut piece = vec![0; (length - start) as usize];
                file.read_exact_at(&mut piece, start)?;
                bytes.extend(piece);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let start = bytes.len().saturating_sub(bytes_max);
    let text = String::from_utf8_lossy(&bytes[start..]);
    Ok(text.chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect())
}

/// The line with which a kernel says that it gives up.
pub(crate) fn panic_line(tail: &str) -> Option<&str> {
    let line = tail.lines().rev().find(|line| line.contains("Kernel panic - not syncing"))?;
    Some(line.split_once("] ").map_or(line, |(_, message)| message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_console_is_kept_bounded_and_shown_clean() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(tail(folder.path(), 100).unwrap(), "");
        let (mut guest, host) = UnixStream::pair().unwrap();
        let writer = tokio::spawn(async move {
            for _ in 0..4000 {
                guest.write_all(&[b'x'; 99]).await.unwrap();
                guest.write_all(b"\n").await.unwrap();
            }
            guest.write_all(b"[    1.5] Kernel panic - not syncing: \x1b[31mno init\r\n").await.unwrap();
        });
        record(folder.path(), host).await.unwrap();
        writer.await.unwrap();
        let kept: u64 =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(kept <= 2 * FILE_BYTES_MAX, "{kept}");
        let text = tail(folder.path(), 1000).unwrap();
        assert!(text.len() <= 1000);
        assert_eq!(panic_line(&text), Some("Kernel panic - not syncing: [31mno init"));
        clear(folder.path());
        assert_eq!(tail(folder.path(), 100).unwrap(), "");
    }
}
