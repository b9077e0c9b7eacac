//! What `docker save` writes: a tar with `manifest.json`, a configuration and one tar per layer. A manifest is made
//! from it whose digests are those of its parts, so that everything after this looks like any other image.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;

use super::Root;
use super::layout::{Members, members, normal};
use super::local::{Blobs, Local, Slice, open_archive_file};
use crate::decompress::Compression;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::limits::{CONFIG_BYTES_MAX, Limits, MANIFEST_BYTES_MAX};
use crate::manifest::{Descriptor, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST};
use crate::reference::Reference;

/// A repeated layer is a link to the first; a chain of them is odd.
const LINK_HOPS_MAX: usize = 8;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub fn open(reference: &Reference, path: &Path, name: Option<&str>) -> Result<Local> {
    let limits = Limits::default();
    let file = open_archive_file(reference, path, limits.root_bytes_max)?;
    let members = members(reference, &file)?;
    let not_found = |detail: String| Error::FindImage { reference: reference.to_string(), detail };
    let Some(listing) = find(&members, "manifest.json") else {
        return Err(not_found(format!("{} has no manifest.json: it is not a docker archive", path.display())));
    };
    let listing = read(path, &listing, MANIFEST_BYTES_MAX)?;
    let images: Vec<Image> = serde_json::from_slice(&listing)
        .map_err(|error| Error::ReadManifest { what: "manifest.json".into(), problem: error.to_string() })?;
    let image = choose(images, name).map_err(not_found)?;
    if image.layers.len() > limits.layers_max {
        let limit = limits.layers_max as u64;
        return Err(Error::LimitCount { what: "layers", found: image.layers.len() as u64, limit });
    }
    let part = |name: &str| {
        find(&members, name).ok_or_else(|| Error::FindImage {
            reference: reference.to_string(),
            detail: format!("it lacks its part `{name}`"),
        })
    };
    let config = read(path, &part(&image.config)?, CONFIG_BYTES_MAX)?;
    let mut documents = HashMap::new();
    let mut slices = HashMap::new();
    let mut layers = Vec::new();
    for name in &image.layers {
        let slice = part(name)?;
        let (digest, media_type) = hash(slice.clone()).map_err(|error| Error::disk("read", path, error))?;
        layers.push(descriptor(media_type, digest, slice.length));
        slices.insert(digest, slice);
    }
    let config_digest = Digest::of(&config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.into()),
        config: descriptor(OCI_CONFIG, config_digest, config.len() as u64),
        layers,
    };
    let manifest = serde_json::to_vec(&manifest)
        .map_err(|error| Error::ReadManifest { what: "manifest.json".into(), problem: error.to_string() })?;
    let manifest = Bytes::from(manifest);
    let digest = Digest::of(&manifest);
    documents.insert(config_digest, Bytes::from(config));
    documents.insert(digest, manifest.clone());
    Ok(Local {
        reference: reference.clone(),
        root: Root { bytes: manifest, digest: Some(digest) },
        blobs: Blobs::Archive { slices, documents },
    })
}

fn choose(images: Vec<Image>, name: Option<&str>) -> std::result::Result<Image, String> {
    let names: Vec<String> = images.iter().flat_map(|image| image.repo_tags.clone().unwrap_or_default()).collect();
    let names =
        if names.is_empty() { "its images have no names".into() } else { format!("it has {}", names.join(", ")) };
    let count = images.len();
    let mut matching = images.into_iter().filter(|image| match name {
        Some(name) => image.repo_tags.iter().flatten().any(|tag| is_same(tag, name)),
        None => count == 1,
    });
    match (matching.next(), name) {
        (Some(image), _) => Ok(image),
        (None, Some(_)) => Err(names),
        (None, None) if count == 0 => Err("it holds no image".into()),
        (None, None) => Err(format!("it holds several images, name one: {names}")),
    }
}

/// Archives say `shop:1.4`, `docker.io/shop:1.4` or `docker.io/library/shop:1.4` for one name.
fn is_same(tag: &str, name: &str) -> bool {
    tag == name || matches!((tag.parse::<Reference>(), name.parse::<Reference>()), (Ok(tag), Ok(name)) if tag == name)
}

fn find(members: &Members, name: &str) -> Option<Slice> {
    let mut name = normal(name);
    for _ in 0..LINK_HOPS_MAX {
        if let Some(slice) = members.files.get(&name) {
            return Some(slice.clone());
        }
        name = members.links.get(&name)?.clone();
    }
    None
}

fn read(path: &Path, slice: &Slice, bytes_max: u64) -> Result<Vec<u8>> {
    if slice.length > bytes_max {
        return Err(Error::LimitSize { what: path.display().to_string(), found: slice.length, limit: bytes_max });
    }
    let mut bytes = Vec::new();
    slice.clone().read_to_end(&mut bytes).map_err(|error| Error::disk("read", path, error))?;
    Ok(bytes)
}

fn hash(mut slice: Slice) -> std::io::Result<(Digest, &'static str)> {
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; 1 << 20];
    let mut media_type = None;
    loop {
        let count = slice.read(&mut chunk)?;
        media_type.get_or_insert_with(|| match Compression::of(&chunk[..count.min(4)]) {
            None => OCI_LAYER,
            Some(Compression::Gzip) => OCI_LAYER_GZIP,
            Some(Compression::Zstd) => OCI_LAYER_ZSTD,
        });
        if count == 0 {
            return Ok((hasher.finish(), media_type.unwrap_or(OCI_LAYER)));
        }
        hasher.update(&chunk[..count]);
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.into(), digest, size, platform: None, annotations: None }
}
