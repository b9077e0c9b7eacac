//! Is the manifest what was written? Asked before the tree is opened, which believes it.
//!
//! The tables check themselves block by block as they are read. But which tables there are is said by a file whose
//! checksum lies beside it, and a flipped bit there would lose a table as if it had never been.

use std::fs;
use std::io;
use std::path::Path;

use store::Error;

use crate::fault::{damaged, io_fault};

/// Names the newest version: id:8 checksum:16 kind:1, little-endian.
const CURRENT: &str = "current";

pub fn check(path: &Path) -> Result<(), Error> {
    let current = match fs::read(path.join(CURRENT)) {
        Ok(current) => current,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return unused(path),
        Err(error) => return Err(io_fault("read the manifest", error)),
    };
    let parts = current.split_first_chunk::<8>().and_then(|(id, rest)| Some((id, rest.split_first_chunk::<16>()?)));
    let Some((id, (sum, [0]))) = parts else { return Err(damaged("its manifest is not named")) };
    let version = path.join(format!("v{}", u64::from_le_bytes(*id)));
    let version = match fs::read(version) {
        Ok(version) => version,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("its manifest is missing")),
        Err(error) => return Err(io_fault("read the manifest", error)),
    };
    if xxhash_rust::xxh3::xxh3_128(&version) != u128::from_le_bytes(*sum) {
        return Err(damaged("its manifest has a wrong checksum"));
    }
    Ok(())
}

/// A tree without a manifest may only be one that was never finished.
fn unused(path: &Path) -> Result<(), Error> {
    match fs::read_dir(path.join("tables")) {
        Ok(mut tables) => match tables.next() {
            Some(_) => Err(damaged("it has tables and no manifest")),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_fault("look for tables", error)),
    }
}
