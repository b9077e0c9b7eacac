//! The tree as an EROFS image, uncompressed. Of the Linux kernel's `Documentation/filesystems/erofs.rst` and
//! `fs/erofs/erofs_fs.h`.
//!
//! ```text
//! block 0         superblock at byte 1024
//! block 1..       file contents, as the layers brought them; unused ranges are holes
//! then            blocks of folders too large to sit beside their inode
//! meta_blkaddr..  inodes of 64 bytes with their extended attributes, link targets and small folders inline
//! ```
//!
//! An inode's number is its offset in the last part in units of 32 bytes. The root comes first: the superblock has
//! 16 bits for it.

use std::collections::HashMap;

use super::Built;
use super::area::{Area, BLOCK_BYTES};
use super::tree::{Content, NodeId, ROOT, Tree};
use crate::error::Result;

const MAGIC: u32 = 0xE0F5_E1E2;
const SUPERBLOCK_AT: usize = 1024;
const BLOCK_BITS: u8 = 12;
/// Checksum present; times are modification times.
const FEATURE_COMPAT: u32 = 0x3;
const INODE_BYTES: u64 = 64;
const NID_BYTES: u64 = 32;
/// Number 0 is kept free: programs take inode 0 for a deleted entry.
const FIRST_OFFSET: u64 = 2 * NID_BYTES;
/// Version 1 (64 bytes) in bit 0, the data's layout from bit 1 on.
const FORMAT_PLAIN: u16 = 1;
const FORMAT_INLINE: u16 = 1 | 2 << 1;
const DIRENT_BYTES: usize = 12;
const XATTR_HEADER_BYTES: usize = 12;

const TYPE_FILE: u8 = 1;
const TYPE_FOLDER: u8 = 2;
const TYPE_SYMLINK: u8 = 7;

/// Where an inode goes and what it says, once known.
struct Inode {
    node: NodeId,
    parent: NodeId,
    links: u32,
    /// In bytes from the beginning of the inodes.
    offset: u64,
    xattrs: Vec<u8>,
    size: u64,
    first_block: u32,
    /// The last part of the data, where it sits behind the inode.
    tail_bytes: u64,
}

pub fn write(tree: &Tree, area: &mut Area, uuid: [u8; 16]) -> Result<Built> {
    let contents_end = u64::from(area.align()?) * BLOCK_BYTES;
    area.flush()?;
    clear_unused(tree, area, contents_end)?;
    let mut inodes = collect(tree);
    let numbers = place(tree, &mut inodes, u32::try_from(contents_end / BLOCK_BYTES).unwrap_or(u32::MAX));
    let mut tails = HashMap::new();
    for inode in &inodes {
        if let Content::Folder(_) = tree.node(inode.node).content {
            let mut data = folder_data(tree, inode, &numbers);
            let tail = data.split_off(data.len() - inode.tail_bytes as usize);
            area.append(&data)?;
            area.align()?;
            tails.insert(inode.node, tail);
        }
    }
    let meta_block = area.align()?;
    let meta_start = area.position();
    for (ordinal, inode) in inodes.iter().enumerate() {
        area.skip(meta_start + inode.offset - area.position())?;
        area.append(&encode_inode(tree, inode, ordinal as u32 + 1))?;
        area.append(&inode.xattrs)?;
        match &tree.node(inode.node).content {
            Content::Symlink(target) if inode.tail_bytes > 0 => area.append(target)?,
            Content::Folder(_) => area.append(&tails.remove(&inode.node).unwrap_or_default())?,
            Content::Symlink(_) | Content::File { .. } => {}
        }
    }
    let blocks = area.align()?;
    area.flush()?;
    let built = Built { bytes: area.position(), inodes: inodes.len() as u64 };
    area.write_at(&superblock(inodes[0].offset, built.inodes, blocks, meta_block, uuid), 0)?;
    Ok(built)
}

/// Inodes in the order they are written, each once: a folder before its children.
fn collect(tree: &Tree) -> Vec<Inode> {
    let mut inodes: Vec<Inode> = Vec::new();
    let mut places: HashMap<NodeId, usize> = HashMap::new();
    let mut todo = vec![(ROOT, ROOT)];
    while let Some((node, parent)) = todo.pop() {
        if let Some(place) = places.get(&node) {
            inodes[*place].links += 1;
            continue;
        }
        places.insert(node, inodes.len());
        let mut links = 1;
        if let Content::Folder(children) = &tree.node(node).content {
            let is_folder = |child: NodeId| matches!(tree.node(child).content, Content::Folder(_));
            links = 2 + children.values().filter(|entry| is_folder(entry.node)).count() as u32;
            todo.extend(children.values().rev().map(|entry| (entry.node, node)));
        }
        let xattrs = encode_xattrs(tree, node);
        inodes.push(Inode { node, parent, links, offset: 0, xattrs, size: 0, first_block: 0, tail_bytes: 0 });
    }
    inodes
}

/// Gives each inode its offset and its data's place. Blocks of large folders begin at `block`.
fn place(tree: &Tree, inodes: &mut [Inode], mut block: u32) -> HashMap<NodeId, u64> {
    let mut numbers = HashMap::with_capacity(inodes.len());
    let mut offset = FIRST_OFFSET;
    for inode in inodes {
        let head = INODE_BYTES + inode.xattrs.len() as u64;
        let mut own_blocks = 0;
        match &tree.node(inode.node).content {
            Content::File { first_block, size } => (inode.size, inode.first_block) = (*size, *first_block),
            Content::Symlink(target) => {
                inode.size = target.len() as u64;
                (inode.tail_bytes, own_blocks) = split(inode.size, head);
            }
            Content::Folder(_) => {
                inode.size = folder_size(&folder_names(tree, inode));
                (inode.tail_bytes, own_blocks) = split(inode.size, head);
            }
        }
        if own_blocks > 0 {
            inode.first_block = block;
            block += own_blocks;
        }
        // What is inline must not cross a block's end; an inode and its attributes are kept whole too where they fit.
        let whole = head + inode.tail_bytes;
        if offset % BLOCK_BYTES + whole > BLOCK_BYTES {
            offset = offset.next_multiple_of(BLOCK_BYTES);
        }
        inode.offset = offset;
        numbers.insert(inode.node, offset / NID_BYTES);
        offset = (offset + whole).next_multiple_of(NID_BYTES);
    }
    numbers
}

/// How much of `size` bytes sits behind an inode of `head` bytes, and how many blocks the rest takes.
fn split(size: u64, head: u64) -> (u64, u32) {
    let tail = size % BLOCK_BYTES;
    if head + tail <= BLOCK_BYTES {
        (tail, (size / BLOCK_BYTES) as u32)
    } else {
        (0, size.div_ceil(BLOCK_BYTES) as u32)
    }
}

/// A folder's names with `.` and `..`, sorted, each with its node.
fn folder_names<'a>(tree: &'a Tree, inode: &Inode) -> Vec<(&'a [u8], NodeId)> {
    let mut names: Vec<(&[u8], NodeId)> = match &tree.node(inode.node).content {
        Content::Folder(children) => children.iter().map(|(name, entry)| (&**name, entry.node)).collect(),
        Content::File { .. } | Content::Symlink(_) => Vec::new(),
    };
    names.extend([(&b"."[..], inode.node), (&b".."[..], inode.parent)]);
    names.sort_unstable();
    names
}

/// Entries that share a block: their count and their bytes.
fn folder_blocks(names: &[(&[u8], NodeId)]) -> Vec<(usize, usize)> {
    let mut blocks = vec![(0, 0)];
    for (name, _) in names {
        let cost = DIRENT_BYTES + name.len();
        match blocks.last_mut() {
            Some((count, bytes)) if *bytes + cost <= BLOCK_BYTES as usize => {
                (*count, *bytes) = (*count + 1, *bytes + cost);
            }
            _ => blocks.push((1, cost)),
        }
    }
    blocks
}

fn folder_size(names: &[(&[u8], NodeId)]) -> u64 {
    let blocks = folder_blocks(names);
    let last = blocks.last().map_or(0, |(_, bytes)| *bytes as u64);
    (blocks.len() as u64 - 1) * BLOCK_BYTES + last
}

/// Each block: fixed entries (inode number, name's offset, type), then the names.
fn folder_data(tree: &Tree, inode: &Inode, numbers: &HashMap<NodeId, u64>) -> Vec<u8> {
    let names = folder_names(tree, inode);
    let mut data = Vec::new();
    let mut rest = names.as_slice();
    for (count, _) in folder_blocks(&names) {
        data.resize(data.len().next_multiple_of(BLOCK_BYTES as usize), 0);
        let (here, later) = rest.split_at(count);
        rest = later;
        let mut name_at = count * DIRENT_BYTES;
        for (name, node) in here {
            let kind = match tree.node(*node).content {
                Content::Folder(_) => TYPE_FOLDER,
                Content::File { .. } => TYPE_FILE,
                Content::Symlink(_) => TYPE_SYMLINK,
            };
            data.extend(numbers.get(node).copied().unwrap_or_default().to_le_bytes());
            data.extend((name_at as u16).to_le_bytes());
            data.extend([kind, 0]);
            name_at += name.len();
        }
        for (name, _) in here {
            data.extend_from_slice(name);
        }
    }
    data
}

fn encode_inode(tree: &Tree, inode: &Inode, ordinal: u32) -> Vec<u8> {
    const S_IFREG: u16 = 0o100_000;
    const S_IFDIR: u16 = 0o040_000;
    const S_IFLNK: u16 = 0o120_000;
    let node = tree.node(inode.node);
    let mode = match node.content {
        Content::Folder(_) => S_IFDIR | node.meta.mode,
        Content::File { .. } => S_IFREG | node.meta.mode,
        Content::Symlink(_) => S_IFLNK | 0o777,
    };
    let xattr_count = if inode.xattrs.is_empty() { 0 } else { (inode.xattrs.len() - XATTR_HEADER_BYTES) / 4 + 1 };
    let mut bytes = Vec::with_capacity(INODE_BYTES as usize);
    bytes.extend(if inode.tail_bytes > 0 { FORMAT_INLINE } else { FORMAT_PLAIN }.to_le_bytes());
    bytes.extend((xattr_count as u16).to_le_bytes());
    bytes.extend(mode.to_le_bytes());
    bytes.extend(0_u16.to_le_bytes());
    bytes.extend(inode.size.to_le_bytes());
    bytes.extend(inode.first_block.to_le_bytes());
    bytes.extend(ordinal.to_le_bytes());
    bytes.extend(node.meta.uid.to_le_bytes());
    bytes.extend(node.meta.gid.to_le_bytes());
    bytes.extend(node.meta.mtime.0.to_le_bytes());
    bytes.extend(node.meta.mtime.1.to_le_bytes());
    bytes.extend(inode.links.to_le_bytes());
    bytes.resize(INODE_BYTES as usize, 0);
    bytes
}

/// Header and entries, each padded to four bytes. Namespaces that EROFS has no number for are left out.
fn encode_xattrs(tree: &Tree, node: NodeId) -> Vec<u8> {
    let mut entries = Vec::new();
    for (name, value) in &tree.node(node).meta.xattrs {
        let Some((index, suffix)) = namespace(name) else {
            tracing::debug!(name = %crate::archive::show(name), "extended attribute of an unknown namespace left out");
            continue;
        };
        let (Ok(suffix_length), Ok(value_length)) = (u8::try_from(suffix.len()), u16::try_from(value.len())) else {
            continue;
        };
        entries.extend([suffix_length, index]);
        entries.extend(value_length.to_le_bytes());
        entries.extend_from_slice(suffix);
        entries.extend_from_slice(value);
        entries.resize(entries.len().next_multiple_of(4), 0);
    }
    if entries.is_empty() {
        return entries;
    }
    [vec![0; XATTR_HEADER_BYTES], entries].concat()
}

fn namespace(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((2, b"")),
        b"system.posix_acl_default" => return Some((3, b"")),
        _ => {}
    }
    [(&b"user."[..], 1), (b"trusted.", 4), (b"security.", 6)]
        .into_iter()
        .find_map(|(prefix, index)| name.strip_prefix(prefix).map(|suffix| (index, suffix)))
        .filter(|(_, suffix)| !suffix.is_empty())
}

/// Gives back what lies between the contents that the tree still names.
fn clear_unused(tree: &Tree, area: &Area, end: u64) -> Result<()> {
    let mut used: Vec<(u64, u64)> = Vec::new();
    let mut todo = vec![ROOT];
    while let Some(id) = todo.pop() {
        match &tree.node(id).content {
            Content::Folder(children) => todo.extend(children.values().map(|entry| entry.node)),
            Content::File { first_block, size } if *size > 0 => {
                let from = u64::from(*first_block) * BLOCK_BYTES;
                used.push((from, from + size.next_multiple_of(BLOCK_BYTES)));
            }
            Content::File { .. } | Content::Symlink(_) => {}
        }
    }
    used.sort_unstable();
    let mut at = BLOCK_BYTES;
    for (from, to) in used {
        area.clear(at, from)?;
        at = at.max(to);
    }
    area.clear(at, end)
}

fn superblock(root_offset: u64, inodes: u64, blocks: u32, meta_block: u32, uuid: [u8; 16]) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES as usize];
    let mut put =
        |at: usize, bytes: &[u8]| block[SUPERBLOCK_AT + at..SUPERBLOCK_AT + at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC.to_le_bytes());
    put(8, &FEATURE_COMPAT.to_le_bytes());
    put(12, &[BLOCK_BITS]);
    put(14, &((root_offset / NID_BYTES) as u16).to_le_bytes());
    put(16, &inodes.to_le_bytes());
    put(36, &blocks.to_le_bytes());
    put(40, &meta_block.to_le_bytes());
    put(48, &uuid);
    let checksum = crc32c(&block[SUPERBLOCK_AT..]);
    block[SUPERBLOCK_AT + 4..SUPERBLOCK_AT + 8].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// CRC-32C without the final inversion, as the kernel stores it. Three kilobytes once per image: no table.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }
}
