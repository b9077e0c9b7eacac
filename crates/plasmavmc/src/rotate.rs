//! A file that is appended to and does not grow beyond a bound: when full it becomes `NAME.1`, replacing the one before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Rotating {
    path: PathBuf,
    file: File,
    length: u64,
    bytes_max: u64,
}

impl Rotating {
    /// Goes on where an earlier one stopped. Up to twice `bytes_max` is kept.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = append(path)?;
        let length = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, length, bytes_max })
    }

    /// Appends the whole piece to one file.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.length > 0 && self.length + piece.len() as u64 > self.bytes_max {
            fs::rename(&self.path, older(&self.path))?;
            self.file = append(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(piece)?;
        self.length += piece.len() as u64;
        Ok(())
    }
}

/// Where the full file before this one is.
pub fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_two_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = Rotating::open(&path, 10).unwrap();
        for piece in ["aaaa\n", "bbbb\n", "cccc\n"] {
            file.write(piece.as_bytes()).unwrap();
        }
        drop(file);
        let mut file = Rotating::open(&path, 10).unwrap();
        file.write(b"dddddd\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "dddddd\n");
        assert_eq!(fs::read_to_string(older(&path)).unwrap(), "cccc\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
