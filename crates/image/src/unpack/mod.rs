//! Layers in, a root image out, and nothing from an archive ever becomes a path on this machine.
//!
//! ```text
//! layer     members of one tar, in order          -> tree, data area
//! path      a member's name -> its parts, or why not
//! tree      folders, files, links in memory; whiteouts remove from it
//! area      file contents, block by block, straight into the image file
//! erofs     tree -> inodes and folders behind the contents, superblock in front
//! ```
//!
//! The image file is EROFS without compression: reading it back costs a guest nothing but the read. It is written in
//! one pass. A file that a later layer removed leaves a hole in it, so that it costs no disk. The same layers give the
//! same bytes: names are sorted, there is no time of building, and the identifier comes from the caller.

mod area;
mod erofs;
mod layer;
mod path;
mod tree;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::limits::Limits;

/// The layout of root images. A root image of another version is built again.
pub const FORMAT_VERSION: u32 = 1;

/// Merges layers into a root image.
pub struct Unpacker {
    tree: tree::Tree,
    area: area::Area,
    counts: layer::Counts,
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Length of the image file.
    pub bytes: u64,
    /// Files, folders and links in it.
    pub inodes: u64,
}

impl Unpacker {
    /// Writes to `file`, which is empty; `path` is for messages.
    pub fn new(file: File, path: &Path, limits: &Limits) -> Self {
        Self {
            tree: tree::Tree::new(),
            area: area::Area::new(file, path, limits.root_bytes_max),
            counts: layer::Counts::new(limits),
        }
    }

    /// Applies one layer, a plain tar, over those before it. Reads `input` to its end.
    ///
    /// After an error the unpacker is of no more use.
    pub fn apply(&mut self, input: impl Read) -> Result<()> {
        layer::apply(&mut self.tree, &mut self.area, &mut self.counts, input)
    }

    /// Writes folders, inodes and the superblock, and makes the file durable.
    pub fn finish(mut self, uuid: [u8; 16]) -> Result<Built> {
        let built = erofs::write(&self.tree, &mut self.area, uuid)?;
        self.area.sync()?;
        Ok(built)
    }
}

fn refuse(member: &[u8], problem: impl Into<String>) -> Error {
    Error::ApplyMember { layer: String::new(), member: crate::archive::show(member), problem: problem.into() }
}
