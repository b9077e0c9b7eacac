//! A reference to one platform's manifest, checked before any layer is fetched.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::limits::{CONFIG_BYTES_MAX, INDEX_DEPTH_MAX, INDEX_DOCUMENTS_MAX, Limits};
use crate::manifest::{self, Descriptor, Document, ImageConfig, Index, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::source::{Source, read_verified, verify};

/// Marks what only describes another manifest, for example a build's provenance.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// One layer as it is transferred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
    /// Digest of the plain tar, where the configuration says it.
    #[serde(default)]
    pub diff_id: Option<Digest>,
}

/// An image fixed to its bytes. A tag that moves later does not change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Canonical, as it was asked for.
    pub reference: Reference,
    pub platform: Platform,
    /// The document the reference named, where that was an index over platforms.
    pub index_digest: Option<Digest>,
    /// The platform's manifest. Names the root image.
    pub digest: Digest,
    pub config_digest: Digest,
    pub config_bytes: u64,
    /// Lowest first. At most [`Limits::layers_max`].
    pub layers: Vec<Layer>,
    pub config: ImageConfig,
    /// Sum of the layers' sizes.
    pub compressed_bytes: u64,
}

impl Resolved {
    /// The reference fixed to the manifest; what a release keeps.
    pub fn pinned(&self) -> Reference {
        self.reference.pinned(self.digest)
    }
}

/// Reads documents and no layer. Fails by name where the image is missing, is for other platforms, may not be read,
/// or is beyond `limits`.
pub async fn resolve(source: &dyn Source, platform: Platform, limits: &Limits) -> Result<Resolved> {
    let work = async {
        let root = source.root().await?;
        let digest = Digest::of(&root.bytes);
        if let Some(wanted) = root.digest {
            verify(&source.reference().to_string(), &wanted, &root.bytes)?;
        }
        let what = source.reference().to_string();
        let (index_digest, digest, manifest, config) = match manifest::parse(&what, &root.bytes)? {
            Document::Manifest(manifest) => {
                let config = read_config(source, &manifest).await?;
                if !fits(&config.os, &config.architecture, platform) {
                    let available = vec![format!("{}/{}", config.os, config.architecture)];
                    return Err(other_platform(source, platform, available));
                }
                (None, digest, manifest, config)
            }
            Document::Index(index) => {
                let (digest_found, manifest, config) = search(source, index, platform).await?;
                (Some(digest), digest_found, manifest, config)
            }
        };
        build(source, platform, limits, index_digest, digest, manifest, config)
    };
    let limit = limits.total_time_max;
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Error::LimitTime { what: format!("resolving {}", source.reference()), limit_s: limit.as_secs() })
    })
}

fn build(
    source: &dyn Source,
    platform: Platform,
    limits: &Limits,
    index_digest: Option<Digest>,
    digest: Digest,
    manifest: Manifest,
    config: manifest::ConfigDocument,
) -> Result<Resolved> {
    let what = source.reference().to_string();
    if manifest.layers.len() > limits.layers_max {
        let (found, limit) = (manifest.layers.len() as u64, limits.layers_max as u64);
        return Err(Error::LimitCount { what: "layers", found, limit });
    }
    let mut compressed_bytes = 0_u64;
    for layer in &manifest.layers {
        manifest::check_layer_type(&what, &layer.media_type)?;
        compressed_bytes = compressed_bytes.saturating_add(layer.size);
    }
    if compressed_bytes > limits.compressed_bytes_max {
        let (found, limit) = (compressed_bytes, limits.compressed_bytes_max);
        return Err(Error::LimitSize { what: format!("{what} as it is transferred"), found, limit });
    }
    if !config.diff_ids.is_empty() && config.diff_ids.len() != manifest.layers.len() {
        let problem =
            format!("it has {} layers and its configuration names {}", manifest.layers.len(), config.diff_ids.len());
        return Err(Error::ReadManifest { what, problem });
    }
    let diff_ids = config.diff_ids.iter().copied().map(Some).chain(std::iter::repeat(None));
    let layers = manifest.layers.iter().zip(diff_ids).map(|(layer, diff_id)| Layer {
        digest: layer.digest,
        size: layer.size,
        media_type: layer.media_type.clone(),
        diff_id,
    });
    Ok(Resolved {
        reference: source.reference().clone(),
        platform,
        index_digest,
        digest,
        config_digest: manifest.config.digest,
        config_bytes: manifest.config.size,
        layers: layers.collect(),
        config: config.config,
        compressed_bytes,
    })
}

/// Finds the platform's manifest in an index, in the indexes it names too. Entries that state the platform come first.
async fn search(
    source: &dyn Source,
    index: Index,
    platform: Platform,
) -> Result<(Digest, Manifest, manifest::ConfigDocument)> {
    let mut available = Vec::new();
    let mut documents = 0;
    // Depth first; the next to look at is last.
    let mut todo: Vec<(Descriptor, usize)> = candidates(index, platform, 1, &mut available);
    while let Some((descriptor, depth)) = todo.pop() {
        documents += 1;
        if documents > INDEX_DOCUMENTS_MAX {
            let problem = format!("it leads to more than {INDEX_DOCUMENTS_MAX} documents");
            return Err(Error::ReadManifest { what: source.reference().to_string(), problem });
        }
        let what = format!("manifest {} of {}", descriptor.digest, source.reference());
        let bytes = source.manifest(&descriptor.digest).await?;
        verify(&what, &descriptor.digest, &bytes)?;
        match manifest::parse(&what, &bytes)? {
            Document::Manifest(manifest) => {
                let config = read_config(source, &manifest).await?;
                if fits(&config.os, &config.architecture, platform) {
                    return Ok((descriptor.digest, manifest, config));
                }
                available.push(format!("{}/{}", config.os, config.architecture));
            }
            Document::Index(_) if depth >= INDEX_DEPTH_MAX => {
                let problem = format!("it has more than {INDEX_DEPTH_MAX} indexes within each other");
                return Err(Error::ReadManifest { what, problem });
            }
            Document::Index(index) => todo.extend(candidates(index, platform, depth + 1, &mut available)),
        }
    }
    Err(other_platform(source, platform, available))
}

/// The entries worth a look, best last. The others' platforms go to `available`.
fn candidates(index: Index, platform: Platform, depth: usize, available: &mut Vec<String>) -> Vec<(Descriptor, usize)> {
    let mut ranked = Vec::new();
    for descriptor in index.manifests {
        if descriptor.annotation(ATTESTATION).is_some() {
            continue;
        }
        let rank = match &descriptor.platform {
            None => 0,
            Some(stated) if fits(&stated.os, &stated.architecture, platform) => match stated.variant.as_deref() {
                // The plain one runs everywhere; others may want newer processors.
                None | Some("" | "v8" | "v1") => 2,
                Some(_) => 1,
            },
            Some(stated) => {
                if stated.os != "unknown" {
                    available.push(format!("{}/{}", stated.os, stated.architecture));
                }
                continue;
            }
        };
        ranked.push((rank, descriptor));
    }
    // Of equals the first one in the index wins, so it has to come last.
    ranked.reverse();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, descriptor)| (descriptor, depth)).collect()
}

/// A configuration that states no platform fits: images made by hand often leave it out.
fn fits(os: &str, architecture: &str, platform: Platform) -> bool {
    (os.is_empty() || os == platform.os()) && (architecture.is_empty() || architecture == platform.architecture())
}

fn other_platform(source: &dyn Source, platform: Platform, mut available: Vec<String>) -> Error {
    available.sort();
    available.dedup();
    Error::PickPlatform { reference: source.reference().to_string(), wanted: platform.to_string(), available }
}

async fn read_config(source: &dyn Source, manifest: &Manifest) -> Result<manifest::ConfigDocument> {
    let Descriptor { digest, size, .. } = &manifest.config;
    let what = format!("configuration {digest} of {}", source.reference());
    if *size > CONFIG_BYTES_MAX {
        return Err(Error::LimitSize { what, found: *size, limit: CONFIG_BYTES_MAX });
    }
    let bytes = crate::retry::transient(|| async {
        let reader = source.blob(digest, *size).await?;
        read_verified(reader, &what, digest, *size, CONFIG_BYTES_MAX).await
    })
    .await?;
    manifest::parse_config(&what, &bytes)
}
