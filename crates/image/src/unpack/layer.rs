//! One layer over the tree.

use std::io::Read;

use super::area::Area;
use super::tree::{Content, Meta, Node, ROOT, Refusal, Tree};
use super::{path, refuse};
use crate::archive::{Kind, Member, Problem, Reader};
use crate::error::{Error, Result};
use crate::limits::{Limits, PATH_BYTES_MAX, XATTR_BYTES_MAX};

/// Of the OCI image specification, "Image Layer Filesystem Changeset".
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// Book-keeping of an old union file system.
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
/// A tar says more than its files hold: headers, padding, files a later member replaces.
const STREAM_OVER_ROOT: u64 = 2;
const STREAM_SLACK_BYTES: u64 = 64 << 20;
const COPY_BYTES: usize = 16 << 10;
/// 9999-12-31T23:59:59Z. Later times upset tools.
const MTIME_S_MAX: i64 = 253_402_300_799;

/// What all layers together have used up.
pub struct Counts {
    layer: u32,
    entries: u64,
    entries_max: u64,
    stream_left: u64,
    root_bytes_max: u64,
}

impl Counts {
    pub fn new(limits: &Limits) -> Self {
        Self {
            layer: 0,
            entries: 0,
            entries_max: limits.entries_max,
            stream_left: limits.root_bytes_max.saturating_mul(STREAM_OVER_ROOT).saturating_add(STREAM_SLACK_BYTES),
            root_bytes_max: limits.root_bytes_max,
        }
    }
}

/// Ends an input that goes on for too long; a small download can stand for an endless one.
struct Bounded<'a, R> {
    inner: R,
    left: &'a mut u64,
    exceeded: bool,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if *self.left == 0 && !buffer.is_empty() {
            self.exceeded = true;
            return Err(std::io::Error::other("it unpacks to more than the limit"));
        }
        let room = usize::try_from(*self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        *self.left -= count as u64;
        Ok(count)
    }
}

pub fn apply(tree: &mut Tree, area: &mut Area, counts: &mut Counts, input: impl Read) -> Result<()> {
    counts.layer += 1;
    let mut bounded = Bounded { inner: input, left: &mut counts.stream_left, exceeded: false };
    let mut reader = Reader::new(&mut bounded);
    let (layer, entries) = (counts.layer, (&mut counts.entries, counts.entries_max));
    let result = apply_members(tree, area, &mut reader, layer, entries).and_then(|()| {
        reader.drain().map_err(|error| Error::ReadLayer { layer: String::new(), problem: error.to_string() })
    });
    if bounded.exceeded {
        let limit = counts.root_bytes_max;
        return Err(Error::LimitSize { what: "the image when unpacked".into(), found: limit.saturating_add(1), limit });
    }
    result
}

fn apply_members<R: Read>(
    tree: &mut Tree,
    area: &mut Area,
    reader: &mut Reader<R>,
    layer: u32,
    (entries, entries_max): (&mut u64, u64),
) -> Result<()> {
    while let Some(member) = reader.next_member().map_err(unreadable)? {
        *entries += 1;
        if *entries > entries_max {
            return Err(Error::LimitCount { what: "members", found: *entries, limit: entries_max });
        }
        apply_member(tree, area, reader, member, layer)?;
    }
    Ok(())
}

/// A fault of the archive as a whole has no member.
fn unreadable(problem: Problem) -> Error {
    if problem.member.is_empty() {
        Error::ReadLayer { layer: String::new(), problem: problem.problem }
    } else {
        Error::ApplyMember { layer: String::new(), member: problem.member, problem: problem.problem }
    }
}

fn apply_member<R: Read>(
    tree: &mut Tree,
    area: &mut Area,
    reader: &mut Reader<R>,
    member: Member,
    layer: u32,
) -> Result<()> {
    let wrong = |problem: Refusal| refuse(&member.path, problem);
    let parts = path::parts(&member.path).map_err(wrong)?;
    let Some((name, folders)) = parts.split_last() else {
        if member.kind != Kind::Folder {
            return Err(wrong("is the root and not a folder".into()));
        }
        let meta = meta(&member)?;
        let root = tree.node_mut(ROOT);
        root.meta = meta;
        return Ok(());
    };
    if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
        let is_opaque = *name == WHITEOUT_OPAQUE;
        if !is_opaque && name.starts_with(WHITEOUT_META_PREFIX) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(wrong("removes nothing that can have a name".into()));
        }
        if let Some(folder) = tree.folder(folders, None).map_err(wrong)? {
            if is_opaque {
                tree.whiteout_below(folder, layer);
            } else {
                tree.whiteout(folder, hidden, layer);
            }
        }
        return Ok(());
    }
    let content = match member.kind {
        Kind::File => {
            // Looked up before the contents are written, so that a refused member costs no disk.
            let folder = tree.folder(folders, Some(layer)).map_err(wrong)?.unwrap_or(ROOT);
            let meta = meta(&member)?;
            let (first_block, size) = write_contents(area, reader, &member)?;
            let node = Node { meta, content: Content::File { first_block, size } };
            return tree.link_new(folder, name, node, layer).map(|_| ()).map_err(wrong);
        }
        Kind::HardLink => {
            let target = tree.link_target(&member.link).map_err(wrong)?;
            let folder = tree.folder(folders, Some(layer)).map_err(wrong)?.unwrap_or(ROOT);
            if tree.child(folder, name) == Some(target) {
                return Ok(());
            }
            return tree.link_existing(folder, name, target, layer).map_err(wrong);
        }
        Kind::Folder => Content::Folder(std::collections::BTreeMap::new()),
        Kind::Symlink => {
            if member.link.is_empty() || member.link.len() >= PATH_BYTES_MAX || member.link.contains(&0) {
                return Err(wrong("is a symbolic link with an impossible target".into()));
            }
            Content::Symlink(member.link.as_slice().into())
        }
        Kind::CharDevice | Kind::BlockDevice => return Err(wrong("is a device".into())),
        Kind::Fifo => return Err(wrong("is a named pipe".into())),
        Kind::Other(kind) => return Err(wrong(format!("is of the unknown type {:?}", char::from(kind)))),
        Kind::GnuSparse | Kind::PaxNext | Kind::PaxGlobal | Kind::GnuLongName | Kind::GnuLongLink => {
            return Err(wrong("is an extension and not a member".into()));
        }
    };
    let folder = tree.folder(folders, Some(layer)).map_err(wrong)?.unwrap_or(ROOT);
    let node = Node { meta: meta(&member)?, content };
    tree.link_new(folder, name, node, layer).map(|_| ()).map_err(wrong)
}

fn meta(member: &Member) -> Result<Meta> {
    let mut xattrs = member.xattrs.clone();
    // A guest puts a writable layer over the root image with overlayfs, whose own marks must not come from an image.
    xattrs.retain(|name, _| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay."));
    let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    if bytes > XATTR_BYTES_MAX {
        return Err(refuse(&member.path, format!("has more than {XATTR_BYTES_MAX} bytes of extended attributes")));
    }
    let (seconds, nanoseconds) = member.mtime;
    let mtime = if seconds < 0 { (0, 0) } else { (seconds.min(MTIME_S_MAX) as u64, nanoseconds) };
    Ok(Meta { mode: member.mode as u16, uid: member.uid, gid: member.gid, mtime, xattrs })
}

/// Streams a file's data into the image; answers its first block and its size.
fn write_contents<R: Read>(area: &mut Area, reader: &mut Reader<R>, member: &Member) -> Result<(u32, u64)> {
    if member.size == 0 {
        return Ok((0, 0));
    }
    area.reserve(member.size)?;
    let first_block = area.align()?;
    let start = area.position();
    match &member.extents {
        None => copy(area, reader, member, member.size)?,
        Some(extents) => {
            for (offset, length) in extents {
                let hole = (start + offset).saturating_sub(area.position());
                area.skip(hole)?;
                copy(area, reader, member, *length)?;
            }
            let hole = (start + member.size).saturating_sub(area.position());
            area.skip(hole)?;
        }
    }
    Ok((first_block, member.size))
}

fn copy<R: Read>(area: &mut Area, reader: &mut Reader<R>, member: &Member, mut left: u64) -> Result<()> {
    let mut chunk = [0; COPY_BYTES];
    while left > 0 {
        let room = left.min(COPY_BYTES as u64) as usize;
        let count = match reader.read(&mut chunk[..room]) {
            Ok(0) => return Err(refuse(&member.path, "is cut off")),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(refuse(&member.path, "is cut off"));
            }
            Err(error) => return Err(refuse(&member.path, format!("cannot be read: {error}"))),
        };
        area.append(&chunk[..count])?;
        left -= count as u64;
    }
    Ok(())
}
