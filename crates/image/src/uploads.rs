//! Blobs that tenants sent, each project's apart.
//!
//! ```text
//! DIR/PROJECT/blobs/sha256/HEX   whole and verified
//! DIR/PROJECT/incoming/          what is arriving; emptied at open
//! ```
//!
//! A project sees its own blobs and no others: not even whether another project has the same one.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::limits::{Limits, MANIFEST_BYTES_MAX};
use crate::manifest::{self, Document};
use crate::reference::Reference;
use crate::source::local::{Blobs, Local, blob_path};
use crate::source::{Root, Source};

const PROJECT_BYTES_MAX: usize = 64;
const CHUNK_BYTES: usize = 256 << 10;
const FOLDER_MODE: u32 = 0o700;

/// The uploads of all projects on this machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Uploads {
    dir: Arc<Path>,
    blob_bytes_max: u64,
}

impl Uploads {
    /// Uses `dir`, made where it is missing, and throws away what was arriving when a process ended.
    pub fn open(dir: impl Into<PathBuf>, limits: &Limits) -> Result<Self> {
        let dir = dir.into();
        world::file::create_folder(&dir, FOLDER_MODE).map_err(|error| Error::disk("create", &dir, error))?;
        for project in entries(&dir)? {
            remove_folder(&project.join("incoming"))?;
        }
        Ok(Self { dir: dir.into(), blob_bytes_max: limits.compressed_bytes_max })
    }

    /// True where the project has the blob, whole.
    pub fn has(&self, project: &str, digest: &Digest) -> Result<bool> {
        Ok(blob_path(&self.blobs(project)?, digest).is_file())
    }

    /// Takes one blob from `reader`. Durable and verified when this returns; answers its size. A blob that is there
    /// already is not read. Dropping the future leaves nothing but a file that the next open removes.
    pub async fn put(&self, project: &str, digest: &Digest, reader: impl AsyncRead + Send) -> Result<u64> {
        let folder = self.blobs(project)?;
        let path = blob_path(&folder, digest);
        if let Ok(metadata) = tokio::fs::metadata(&path).await {
            return Ok(metadata.len());
        }
        let incoming = self.dir.join(project).join("incoming");
        let sha256 = folder.join("sha256");
        for folder in [&incoming, &sha256] {
            tokio::fs::create_dir_all(folder).await.map_err(|error| Error::disk("create", folder, error))?;
        }
        let temporary = tempfile::Builder::new()
            .prefix("blob-")
            .tempfile_in(&incoming)
            .map_err(|error| Error::disk("create a file in", &incoming, error))?;
        let disk = |error: io::Error| Error::disk("write", &incoming, error);
        let file = temporary.as_file().try_clone().map_err(disk)?;
        let size =
            self.receive(tokio::fs::File::from_std(file), digest, reader).await.map_err(|error| match error {
                Received::Disk(error) => disk(error),
                Received::Refused(error) => error,
            })?;
        temporary.persist(&path).map_err(|error| Error::disk("write", &path, error.error))?;
        world::file::sync_folder(&sha256).map_err(|error| Error::disk("sync", &sha256, error))?;
        Ok(size)
    }

    async fn receive(
        &self,
        mut file: tokio::fs::File,
        digest: &Digest,
        reader: impl AsyncRead + Send,
    ) -> std::result::Result<u64, Received> {
        let what = || format!("blob {digest}");
        let mut reader = std::pin::pin!(reader);
        let mut hasher = Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut size = 0_u64;
        loop {
            let count = reader.read(&mut chunk).await.map_err(|error| {
                Received::Refused(Error::Reach { registry: "the sender".into(), detail: error.to_string() })
            })?;
            if count == 0 {
                break;
            }
            size += count as u64;
            if size > self.blob_bytes_max {
                let limit = self.blob_bytes_max;
                return Err(Received::Refused(Error::LimitSize { what: what(), found: size, limit }));
            }
            hasher.update(&chunk[..count]);
            file.write_all(&chunk[..count]).await.map_err(Received::Disk)?;
        }
        file.flush().await.map_err(Received::Disk)?;
        let found = hasher.finish();
        if found != *digest {
            let found = found.to_string();
            return Err(Received::Refused(Error::VerifyDigest { what: what(), wanted: *digest, found }));
        }
        file.sync_all().await.map_err(Received::Disk)?;
        Ok(size)
    }

    /// The image whose manifest or index is the project's blob `manifest`.
    pub async fn source(&self, project: &str, manifest: Digest) -> Result<Arc<dyn Source>> {
        let folder = self.blobs(project)?;
        let reference = Reference::Upload(manifest);
        let probe = Local {
            reference: reference.clone(),
            root: Root { bytes: bytes::Bytes::new(), digest: None },
            blobs: Blobs::Folder(folder.clone()),
        };
        let bytes = probe.manifest(&manifest).await?;
        Ok(Arc::new(Local { root: Root { bytes, digest: Some(manifest) }, ..probe }))
    }

    /// Removes the project's blobs that no manifest in `manifests` needs and that are older than `age_min`, so that
    /// an upload under way keeps what it has sent. Answers the bytes freed.
    pub fn sweep(&self, project: &str, manifests: &HashSet<Digest>, age_min: Duration) -> Result<u64> {
        let folder = self.blobs(project)?;
        let needed = needed(&folder, manifests);
        let mut freed = 0;
        for path in entries(&folder.join("sha256"))? {
            let digest = path.file_name().and_then(|name| name.to_str()).and_then(Digest::from_hex);
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let is_old = metadata.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= age_min);
            if is_old && digest.is_none_or(|digest| !needed.contains(&digest)) {
                std::fs::remove_file(&path).map_err(|error| Error::disk("remove", &path, error))?;
                freed += metadata.len();
            }
        }
        Ok(freed)
    }

    /// Removes everything of a project that is gone.
    pub fn remove_project(&self, project: &str) -> Result<()> {
        self.blobs(project)?;
        remove_folder(&self.dir.join(project))
    }

    /// Bytes on disk of one project's blobs, for its quota.
    pub fn bytes(&self, project: &str) -> Result<u64> {
        let paths = entries(&self.blobs(project)?.join("sha256"))?;
        Ok(paths.iter().filter_map(|path| path.symlink_metadata().ok()).map(|metadata| metadata.len()).sum())
    }

    /// The project's folder of blobs; an id that could be a path is refused.
    fn blobs(&self, project: &str) -> Result<PathBuf> {
        let is_id = (1..=PROJECT_BYTES_MAX).contains(&project.len())
            && project.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !is_id {
            let detail = "its project's id is not an id".to_owned();
            return Err(Error::FindImage { reference: crate::archive::show(project.as_bytes()), detail });
        }
        Ok(self.dir.join(project).join("blobs"))
    }
}

enum Received {
    Disk(io::Error),
    Refused(Error),
}

/// The manifests and all they name. What cannot be read names nothing.
fn needed(folder: &Path, manifests: &HashSet<Digest>) -> HashSet<Digest> {
    let mut needed = HashSet::new();
    let mut todo: Vec<Digest> = manifests.iter().copied().collect();
    while let Some(digest) = todo.pop() {
        if !needed.insert(digest) {
            continue;
        }
        let path = blob_path(folder, &digest);
        if path.metadata().is_ok_and(|metadata| metadata.len() > MANIFEST_BYTES_MAX) {
            continue;
        }
        match std::fs::read(&path).ok().and_then(|bytes| manifest::parse("", &bytes).ok()) {
            Some(Document::Manifest(manifest)) => {
                needed.insert(manifest.config.digest);
                needed.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
            Some(Document::Index(index)) => todo.extend(index.manifests.iter().map(|entry| entry.digest)),
            None => {}
        }
    }
    needed
}

/// The paths in `folder`; none where it is missing.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::disk("list", folder, error);
    match std::fs::read_dir(folder) {
        Ok(listing) => listing.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>().map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

fn remove_folder(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::disk("remove", folder, error)),
        _ => Ok(()),
    }
}
