//! A machine that was saved: its devices' state, its memory, and what both must look like to be used again.
//!
//! ```text
//!   FOLDER/state         the monitor's, of all devices; the guest's memory too, when that is not a file
//!   FOLDER/memory        the guest's memory, sparse
//!   FOLDER/saved.json    shape, sizes, checksums; written last
//! ```
//!
//! A byte that is not what it was is found before a machine goes on from it: each MiB of memory has a checksum, and so has
//! the state. Memory that was never touched is not on the disk, and costs no time.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::SeekFrom;
use serde::{Deserialize, Serialize};
use world::file;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::qemu::Accelerator;

/// Changes when an older program could no longer read what is written.
const FORMAT: u32 = 1;
pub(crate) const STATE: &str = "state";
pub(crate) const MEMORY: &str = "memory";
const MANIFEST: &str = "saved.json";
/// Of the state of all devices; 70 KiB measured.
pub(crate) const STATE_BYTES_MAX: u64 = 64 << 20;
/// One checksum is for this much memory, in bytes.
const BLOCK_BYTES: u64 = 1 << 20;

/// What must be the same in the machine that is saved and the one that goes on from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// Version and file of the monitor.
    pub monitor: String,
    pub accelerator: Accelerator,
    pub vcpus: u32,
    pub memory_bytes: u64,
    /// It has a scratch disk.
    pub scratch: bool,
    /// It has a network.
    pub tap: bool,
}

impl Shape {
    /// What differs, for people; `None` when nothing does.
    pub fn differs(&self, now: &Self) -> Option<String> {
        if self.monitor != now.monitor {
            return Some(format!("it was saved by QEMU {}, and this one is {}", self.monitor, now.monitor));
        }
        if self.accelerator != now.accelerator {
            let (was, is) = (self.accelerator.as_str(), now.accelerator.as_str());
            return Some(format!("it was saved under {was}, and machines run under {is} now"));
        }
        (self != now).then(|| "it was saved with other virtual CPUs, memory or devices".to_owned())
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    pub shape: Shape,
    /// Milliseconds since the Unix epoch.
    pub saved_at_ms: u64,
    state_bytes: u64,
    state_sum: u64,
    /// Of each MiB in order; 0 for one that is all zeros. `None` when the memory is in the state.
    memory_sums: Option<Vec<u64>>,
}

impl Manifest {
    /// Makes what is in the folder durable and writes down what it looks like. Blocks for as long as the disk takes.
    pub fn seal(folder: &Path, shape: Shape, saved_at_ms: u64) -> io::Result<Self> {
        let state = File::open(folder.join(STATE))?;
        state.sync_all()?;
        let state_bytes = state.metadata()?.len();
        let memory = match File::open(folder.join(MEMORY)) {
            Ok(memory) => {
                memory.sync_all()?;
                Some(memory)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let memory_sums = memory.map(|memory| sums(&memory, shape.memory_bytes)).transpose()?;
        let manifest =
            Self { format: FORMAT, shape, saved_at_ms, state_bytes, state_sum: sum_of(&state)?, memory_sums };
        let bytes = serde_json::to_vec(&manifest).map_err(io::Error::from)?;
        file::write_atomic(&folder.join(MANIFEST), &bytes, 0o600)?;
        Ok(manifest)
    }

    /// `None` where nothing was saved, or not to its end.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = file::read_optional(&folder.join(MANIFEST))? else { return Ok(None) };
        let manifest: Self = serde_json::from_slice(&bytes).map_err(io::Error::from)?;
        if manifest.format != FORMAT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("its format is {}", manifest.format)));
        }
        Ok(Some(manifest))
    }

    /// The error says what is not as it was saved. Blocks for as long as it takes to read all of it.
    pub fn verify(&self, folder: &Path) -> Result<(), String> {
        let text = |what: &'static str| move |error: io::Error| format!("its {what} cannot be read: {error}");
        let state = File::open(folder.join(STATE)).map_err(text(STATE))?;
        let state_bytes = state.metadata().map_err(text(STATE))?.len();
        if state_bytes != self.state_bytes {
            return Err(format!("its state has {state_bytes} bytes, not {}", self.state_bytes));
        }
        if sum_of(&state).map_err(text(STATE))? != self.state_sum {
            return Err("its state is damaged".to_owned());
        }
        let Some(known) = &self.memory_sums else { return Ok(()) };
        let memory = File::open(folder.join(MEMORY)).map_err(text(MEMORY))?;
        let bytes = memory.metadata().map_err(text(MEMORY))?.len();
        if bytes != self.shape.memory_bytes {
            return Err(format!("its memory has {bytes} bytes, not {}", self.shape.memory_bytes));
        }
        let found = sums(&memory, bytes).map_err(text(MEMORY))?;
        match found.iter().zip(known).position(|(found, known)| found != known) {
            Some(at) => Err(format!("its memory is damaged at {at} MiB")),
            None if found.len() != known.len() => Err("its memory has another size".to_owned()),
            None => Ok(()),
        }
    }

    /// The memory is a file of its own.
    pub fn has_memory(&self) -> bool {
        self.memory_sums.is_some()
    }
}

/// Removes all that was saved; what it looks like goes first, so that no half of it is ever taken for the whole.
pub(crate) fn discard(folder: &Path) -> io::Result<()> {
    for name in [MANIFEST, STATE, MEMORY] {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The memory file stays and is written to from now on; the state would not fit it any more.
pub(crate) fn use_up(folder: &Path) -> io::Result<()> {
    for name in [MANIFEST, STATE] {
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    file::sync_folder(folder)
}

/// A new file that the caller alone may read.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn sum_of(file: &File) -> io::Result<u64> {
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; BLOCK_BYTES as usize];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut buffer, at)?;
        if read == 0 {
            return Ok(hasher.digest());
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
}

/// Blocks without data are not read.
fn sums(file: &File, bytes: u64) -> io::Result<Vec<u64>> {
    let blocks = bytes.div_ceil(BLOCK_BYTES);
    let mut sums = vec![0; blocks as usize];
    let mut buffer = vec![0; BLOCK_BYTES as usize];
    let mut block = 0;
    while block < blocks {
        let data = match rustix::fs::seek(file.as_fd(), SeekFrom::Data(block * BLOCK_BYTES)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        block = data / BLOCK_BYTES;
        if block >= blocks {
            break;
        }
        let piece = (bytes - block * BLOCK_BYTES).min(BLOCK_BYTES) as usize;
        file.read_exact_at(&mut buffer[..piece], block * BLOCK_BYTES)?;
        sums[block as usize] = sum(&buffer[..piece]);
        block += 1;
    }
    Ok(sums)
}

/// 0 means zeros, and only zeros are 0.
fn sum(block: &[u8]) -> u64 {
    if block.iter().all(|byte| *byte == 0) { 0 } else { xxh3_64(block).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            monitor: "7.2".to_owned(),
            accelerator: Accelerator::Tcg,
            vcpus: 1,
            memory_bytes: 64 << 20,
            scratch: true,
            tap: false,
        }
    }

    fn saved(folder: &Path) -> Manifest {
        fs::write(folder.join(STATE), vec![7; 70_000]).unwrap();
        let memory = create(&folder.join(MEMORY)).unwrap();
        memory.set_len(64 << 20).unwrap();
        memory.write_all_at(b"in the middle", (30 << 20) + 5).unwrap();
        // Data, and all zeros.
        memory.write_all_at(&[0; 4096], 40 << 20).unwrap();
        Manifest::seal(folder, shape(), 5).unwrap()
    }

    #[test]
    fn what_was_saved_is_known_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), None);
        let manifest = saved(folder.path());
        let read = Manifest::read(folder.path()).unwrap().unwrap();
        assert_eq!(read, manifest);
        read.verify(folder.path()).unwrap();
        assert!(read.has_memory());
        // Where the holes are does not count.
        let memory = OpenOptions::new().write(true).open(folder.path().join(MEMORY)).unwrap();
        memory.write_all_at(&[0; 4096], 50 << 20).unwrap();
        read.verify(folder.path()).unwrap();
        use_up(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), None);
        assert!(folder.path().join(MEMORY).exists());
        discard(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_sort_of_damage_is_found() {
        let flip = |folder: &Path, name: &str, at: u64| {
            let file = OpenOptions::new().read(true).write(true).open(folder.join(name)).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        };
        let cut = |folder: &Path, name: &str, bytes: u64| {
            OpenOptions::new().write(true).open(folder.join(name)).unwrap().set_len(bytes).unwrap();
        };
        type Spoil<'a> = &'a dyn Fn(&Path);
        let cases: [(Spoil, &str); 7] = [
            (&|folder| flip(folder, STATE, 0), "state is damaged"),
            (&|folder| flip(folder, STATE, 69_999), "state is damaged"),
            (&|folder| cut(folder, STATE, 69_998), "state has 69998 bytes"),
            (&|folder| flip(folder, MEMORY, (30 << 20) + 6), "damaged at 30 MiB"),
            // In a hole.
            (&|folder| flip(folder, MEMORY, 3), "damaged at 0 MiB"),
            (&|folder| cut(folder, MEMORY, 63 << 20), "memory has 66060288 bytes"),
            (&|folder| fs::remove_file(folder.join(MEMORY)).unwrap(), "memory cannot be read"),
        ];
        for (spoil, word) in cases {
            let folder = tempfile::tempdir().unwrap();
            let manifest = saved(folder.path());
            spoil(folder.path());
            let why = manifest.verify(folder.path()).unwrap_err();
            assert!(why.contains(word), "{why}, not {word}");
        }
    }

    #[test]
    fn another_monitor_is_named() {
        assert_eq!(shape().differs(&shape()), None);
        let newer = Shape { monitor: "8.0".to_owned(), ..shape() };
        assert_eq!(shape().differs(&newer).unwrap(), "it was saved by QEMU 7.2, and this one is 8.0");
        assert!(shape().differs(&Shape { vcpus: 2, ..shape() }).is_some());
    }
}
