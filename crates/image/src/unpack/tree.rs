//! The root file system in memory: names, owners, links; contents are extents of the image file.

use std::collections::{BTreeMap, HashSet};

use super::path;
use crate::limits::{DEPTH_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, SYMLINK_HOPS_MAX};

/// Index into [`Tree::nodes`]. A node that no folder names any more stays unused.
pub type NodeId = u32;

pub const ROOT: NodeId = 0;

/// Owner, mode and the like, of files, folders and links alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch, not negative, and nanoseconds.
    pub mtime: (u64, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Meta {
    /// A folder that no member describes.
    pub fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: BTreeMap::new() }
    }
}

/// A name in a folder.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub node: NodeId,
    /// The layer that named it last. A whiteout removes only what is from a lower one.
    pub layer: u32,
}

#[derive(Debug)]
pub enum Content {
    Folder(BTreeMap<Box<[u8]>, Entry>),
    /// `size` bytes from `first_block` of the image file on.
    File {
        first_block: u32,
        size: u64,
    },
    Symlink(Box<[u8]>),
}

#[derive(Debug)]
pub struct Node {
    pub meta: Meta,
    pub content: Content,
}

#[derive(Debug)]
pub struct Tree {
    pub nodes: Vec<Node>,
    metadata_bytes: u64,
    /// Folders that hold nothing from below layer `cleared_in` any more.
    cleared: HashSet<NodeId>,
    cleared_in: u32,
}

/// What is wrong with a member, as the end of a sentence that begins with its name.
pub type Refusal = String;

impl Tree {
    pub fn new() -> Self {
        let root = Node { meta: Meta::implied(), content: Content::Folder(BTreeMap::new()) };
        Self { nodes: vec![root], metadata_bytes: 0, cleared: HashSet::new(), cleared_in: 0 }
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn children(&self, id: NodeId) -> Option<&BTreeMap<Box<[u8]>, Entry>> {
        match &self.node(id).content {
            Content::Folder(children) => Some(children),
            Content::File { .. } | Content::Symlink(_) => None,
        }
    }

    pub fn child(&self, folder: NodeId, name: &[u8]) -> Option<NodeId> {
        self.children(folder)?.get(name).map(|entry| entry.node)
    }

    /// The folder that `parts` name, through symbolic links as a process inside the image would follow them: an
    /// absolute target starts at the image's root. Missing folders are made where `make` is the current layer; else
    /// a missing one answers `None`. A link that climbs above the root is refused.
    pub fn folder(&mut self, parts: &[&[u8]], make: Option<u32>) -> Result<Option<NodeId>, Refusal> {
        // Folders from the root to here, for `..` in link targets.
        let mut trail = vec![ROOT];
        // Parts still to walk, last first.
        let mut todo: Vec<Box<[u8]>> = parts.iter().rev().map(|part| Box::from(*part)).collect();
        let mut hops = 0;
        while let Some(part) = todo.pop() {
            let here = *trail.last().unwrap_or(&ROOT);
            match &*part {
                b"" | b"." => continue,
                b".." => {
                    if trail.len() == 1 {
                        return Err("goes through a symbolic link that leaves the root".into());
                    }
                    trail.pop();
                    continue;
                }
                _ => {}
            }
            let Some(child) = self.child(here, &part) else {
                let Some(layer) = make else { return Ok(None) };
                if trail.len() > DEPTH_MAX || part.len() > NAME_BYTES_MAX {
                    return Err("goes through a symbolic link to an impossible path".into());
                }
                let node = Node { meta: Meta::implied(), content: Content::Folder(BTreeMap::new()) };
                trail.push(self.link_new(here, &part, node, layer)?);
                continue;
            };
            match &self.node(child).content {
                Content::Folder(_) => trail.push(child),
                Content::File { .. } => {
                    return Err(format!("lies under `{}`, which is not a folder", crate::archive::show(&part)));
                }
                Content::Symlink(target) => {
                    hops += 1;
                    if hops > SYMLINK_HOPS_MAX {
                        return Err("goes through too many symbolic links".into());
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    let target = target.clone();
                    todo.extend(target.split(|byte| *byte == b'/').rev().map(Box::from));
                }
            }
        }
        Ok(trail.last().copied())
    }

    /// The node a hard link names: folders on the way are followed, the last name is not.
    pub fn link_target(&mut self, target: &[u8]) -> Result<NodeId, Refusal> {
        let parts = path::parts(target).map_err(|problem| format!("links to a target that {problem}"))?;
        let Some((name, folders)) = parts.split_last() else { return Err("links to the root".into()) };
        let missing = || format!("links to `{}`, which is not there", crate::archive::show(target));
        let folder = self.folder(folders, None)?.ok_or_else(missing)?;
        let id = self.child(folder, name).ok_or_else(missing)?;
        match self.node(id).content {
            Content::Folder(_) => Err("links to a folder".into()),
            Content::File { .. } | Content::Symlink(_) => Ok(id),
        }
    }

    /// Puts a new node under `name`. A folder over a folder keeps its children; anything else is replaced whole.
    pub fn link_new(&mut self, folder: NodeId, name: &[u8], node: Node, layer: u32) -> Result<NodeId, Refusal> {
        let cost = node.meta.xattrs.iter().map(|(key, value)| key.len() + value.len() + 64).sum::<usize>()
            + match &node.content {
                Content::Symlink(target) => target.len(),
                _ => 0,
            };
        self.charge(name.len() + cost)?;
        if let (Some(old), Content::Folder(_)) = (self.child(folder, name), &node.content)
            && self.children(old).is_some()
        {
            self.node_mut(old).meta = node.meta;
            self.set_child(folder, name, Entry { node: old, layer });
            return Ok(old);
        }
        let id = NodeId::try_from(self.nodes.len()).map_err(|_| "is one member too many".to_owned())?;
        self.nodes.push(node);
        self.set_child(folder, name, Entry { node: id, layer });
        Ok(id)
    }

    /// Puts an existing node under one more name.
    pub fn link_existing(&mut self, folder: NodeId, name: &[u8], id: NodeId, layer: u32) -> Result<(), Refusal> {
        self.charge(name.len())?;
        self.set_child(folder, name, Entry { node: id, layer });
        Ok(())
    }

    fn set_child(&mut self, folder: NodeId, name: &[u8], entry: Entry) {
        if let Content::Folder(children) = &mut self.node_mut(folder).content {
            children.insert(name.into(), entry);
        }
    }

    /// Names are never given back: a layer that adds and replaces without end is bounded too.
    fn charge(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.metadata_bytes += bytes as u64;
        if self.metadata_bytes > METADATA_BYTES_MAX {
            return Err(format!("brings names and attributes to more than {METADATA_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    /// Removes `name` as far as it comes from layers below `layer`.
    pub fn whiteout(&mut self, folder: NodeId, name: &[u8], layer: u32) {
        let Some(entry) = self.children(folder).and_then(|children| children.get(name)).copied() else { return };
        self.whiteout_below(entry.node, layer);
        let is_kept = self.is_kept(entry, layer);
        if !is_kept && let Content::Folder(children) = &mut self.node_mut(folder).content {
            children.remove(name);
        }
    }

    fn is_kept(&self, entry: Entry, layer: u32) -> bool {
        entry.layer >= layer || self.children(entry.node).is_some_and(|children| !children.is_empty())
    }

    /// Removes what is in `folder`, at any depth, as far as it comes from layers below `layer`. What is left is of
    /// this layer, so a second call has nothing to do and does not look: many marks on a large tree stay cheap.
    pub fn whiteout_below(&mut self, folder: NodeId, layer: u32) {
        if self.cleared_in != layer {
            self.cleared.clear();
            self.cleared_in = layer;
        }
        // Folders in order of discovery: a parent always stands before its children, so backwards is bottom up.
        let mut folders = Vec::new();
        let mut next = 0;
        if self.cleared.insert(folder) {
            folders.push(folder);
        }
        while let Some(id) = folders.get(next).copied() {
            next += 1;
            let Some(children) = self.children(id) else { continue };
            let below: Vec<NodeId> =
                children.values().map(|entry| entry.node).filter(|child| self.children(*child).is_some()).collect();
            for child in below {
                if self.cleared.insert(child) {
                    folders.push(child);
                }
            }
        }
        for id in folders.into_iter().rev() {
            let Content::Folder(children) = &mut self.nodes[id as usize].content else { continue };
            let mut children = std::mem::take(children);
            children.retain(|_, entry| self.is_kept(*entry, layer));
            self.node_mut(id).content = Content::Folder(children);
        }
    }
}
