//! The OCI image layout (image specification, "Image Layout"), as a folder or as a tar of one.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::local::{Blobs, Local, Slice, open_archive_file, read_document};
use super::{Root, verify};
use crate::archive::{Kind, Reader, show};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::{Limits, MANIFEST_BYTES_MAX};
use crate::manifest::{self, Descriptor, Document, Index, OCI_INDEX};
use crate::reference::Reference;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Members of an archive that are looked at: each is a blob, and an image has hundreds at most.
pub const MEMBERS_MAX: usize = 10_000;
/// Tags named in a message.
const SHOWN_TAGS_MAX: usize = 20;

pub fn open_folder(reference: &Reference, path: &Path, tag: Option<&str>) -> Result<Local> {
    let file = path.join("index.json");
    let index = match std::fs::metadata(&file) {
        Ok(metadata) if metadata.len() > MANIFEST_BYTES_MAX => {
            let limit = MANIFEST_BYTES_MAX;
            return Err(Error::LimitSize { what: file.display().to_string(), found: metadata.len(), limit });
        }
        Ok(_) => std::fs::read(&file).map_err(|error| Error::disk("read", &file, error))?,
        Err(_) => {
            let what =
                if path.is_dir() { "has no index.json: it is not an OCI image layout" } else { "is not a folder" };
            let detail = format!("{} {what}", path.display());
            return Err(Error::FindImage { reference: reference.to_string(), detail });
        }
    };
    choose(reference, &index, tag, Blobs::Folder(path.join("blobs")))
}

pub fn open_archive(reference: &Reference, path: &Path, tag: Option<&str>) -> Result<Local> {
    let file = open_archive_file(reference, path, Limits::default().root_bytes_max)?;
    let mut index = None;
    let mut slices = HashMap::new();
    for (name, slice) in members(reference, &file)?.files {
        if name == "index.json" {
            let mut bytes = Vec::new();
            slice.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| Error::disk("read", path, error))?;
            index = Some(bytes);
        } else if let Some(digest) = name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex) {
            slices.insert(digest, slice);
        }
    }
    let index = index.ok_or_else(|| Error::FindImage {
        reference: reference.to_string(),
        detail: format!("{} has no index.json: it is not an OCI archive", path.display()),
    })?;
    choose(reference, &index, tag, Blobs::Archive { slices, documents: HashMap::new() })
}

/// What an archive holds, by normalised name.
pub struct Members {
    pub files: HashMap<String, Slice>,
    /// Symbolic links: older archives store a repeated layer as one.
    pub links: HashMap<String, String>,
}

/// Lists an archive's files without unpacking it.
pub fn members(reference: &Reference, file: &Arc<std::fs::File>) -> Result<Members> {
    let unreadable = |problem: String| Error::ReadManifest {
        what: reference.to_string(),
        problem: format!("the archive {problem}"),
    };
    let length = file.metadata().map_err(|error| unreadable(error.to_string()))?.len();
    let whole = Slice { file: file.clone(), offset: 0, length };
    let mut reader = Reader::new(std::io::BufReader::with_capacity(1 << 20, whole));
    let mut members = Members { files: HashMap::new(), links: HashMap::new() };
    while let Some(member) = reader
        .next_member()
        .map_err(|problem| unreadable(format!("member `{}` {}", problem.member, problem.problem)))?
    {
        if members.files.len() + members.links.len() >= MEMBERS_MAX {
            return Err(unreadable(format!("has more than {MEMBERS_MAX} members")));
        }
        let name = normal(&show(&member.path));
        match member.kind {
            Kind::File if member.extents.is_none() => {
                let slice = Slice { file: file.clone(), offset: reader.offset(), length: member.size };
                members.files.insert(name, slice);
            }
            Kind::Symlink | Kind::HardLink => {
                let target = show(&member.link);
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target =
                    if member.kind == Kind::Symlink { normal(&format!("{folder}/{target}")) } else { normal(&target) };
                members.links.insert(name, target);
            }
            _ => {}
        }
    }
    Ok(members)
}

/// A name without `.`, `..` and empty parts. Names here are keys of a map, never paths on a disk.
pub fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The one image that `tag` means, or the only one there is, or one image's platforms.
fn choose(reference: &Reference, index: &[u8], tag: Option<&str>, blobs: Blobs) -> Result<Local> {
    let what = format!("index.json of {reference}");
    let Document::Index(index) = manifest::parse(&what, index)? else {
        return Err(Error::ReadManifest { what, problem: "it is a manifest, not an index".into() });
    };
    let name = |descriptor: &Descriptor| descriptor.annotation(REF_NAME).map(str::to_owned);
    let matches = |descriptor: &&Descriptor| tag.is_none() || name(descriptor).as_deref() == tag;
    let found: Vec<Descriptor> = index.manifests.iter().filter(matches).cloned().collect();
    let not_found = |detail: String| Error::FindImage { reference: reference.to_string(), detail };
    let tags = || {
        let tags: Vec<String> = index.manifests.iter().filter_map(name).take(SHOWN_TAGS_MAX).collect();
        if tags.is_empty() { "it has no tags".to_owned() } else { format!("it has the tags {}", tags.join(", ")) }
    };
    let root = match found.as_slice() {
        [] if index.manifests.is_empty() => return Err(not_found("it holds no image".into())),
        [] => return Err(not_found(tags())),
        [one] => {
            let bytes = read_document(reference, &blobs, &one.digest)?;
            verify(&format!("manifest {}", one.digest), &one.digest, &bytes)?;
            Root { bytes, digest: Some(one.digest) }
        }
        many if many.iter().all(|descriptor| descriptor.platform.is_some()) => {
            let several = Index { schema_version: 2, media_type: Some(OCI_INDEX.into()), manifests: many.to_vec() };
            let bytes = serde_json::to_vec(&several)
                .map_err(|error| Error::ReadManifest { what, problem: error.to_string() })?;
            Root { bytes: Bytes::from(bytes), digest: None }
        }
        _ => return Err(not_found(format!("it holds several images: name one as {reference}:TAG; {}", tags()))),
    };
    Ok(Local { reference: reference.clone(), root, blobs })
}
