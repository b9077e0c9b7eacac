//! The node's store of root images.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::credentials::Credentials;
use crate::digest::{Digest, Hasher, hash_file};
use crate::error::{Error, Result};
use crate::flight::{Cancelled, Flights};
use crate::limits::Limits;
use crate::progress::{Progress, Stage};
use crate::reference::Reference;
use crate::resolve::{Layer, Resolved};
use crate::roots::{IMAGE_FILE, Record, Roots, remove_folder};
use crate::source::Source;
use crate::unpack::{FORMAT_VERSION, Unpacker};
use crate::{decompress, fetch};

/// Layers of one image fetched at once, and so at most this many wait on disk to be unpacked.
const LAYERS_AT_ONCE: usize = 3;
/// Root images built at once; more would only share the same two cores and disk.
const BUILDS_AT_ONCE: usize = 2;
/// Root images may take this much disk where nothing else is said.
const DISK_BUDGET_BYTES: u64 = 50 << 30;

#[derive(Clone, Debug)]
pub struct Config {
    /// The store's own folder. One process at a time.
    pub dir: PathBuf,
    /// Disk for root images. Those in use are kept even beyond it.
    pub disk_budget_bytes: u64,
    pub limits: Limits,
    /// A docker-style `config.json`. Read at each use; may be missing.
    pub credentials_file: Option<PathBuf>,
    pub clock: world::Clock,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            disk_budget_bytes: DISK_BUDGET_BYTES,
            limits: Limits::default(),
            credentials_file: None,
            clock: world::Clock::real(),
        }
    }
}

/// Root images of this node. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    roots: Mutex<Roots>,
    flights: Flights<RootImage>,
    builds: Semaphore,
    built: AtomicU64,
}

/// A root file system to boot from, read-only. It stays on disk while this or a clone of it lives, or while its digest
/// is among those given to [`Store::retain`].
#[derive(Clone, Debug)]
pub struct RootImage {
    /// The manifest's digest.
    pub digest: Digest,
    /// An uncompressed EROFS image. Not to be written to.
    pub path: PathBuf,
    /// The file's length.
    pub bytes: u64,
    /// The file's own digest.
    pub sha256: Digest,
    _lease: Arc<Lease>,
}

struct Lease {
    digest: Digest,
    serial: u64,
    inner: Arc<Inner>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inner.roots.lock().release(&self.digest, self.serial);
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.digest)
    }
}

/// One root image as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub digest: Digest,
    pub bytes: u64,
    /// What it takes of the budget.
    pub disk_bytes: u64,
    pub is_in_use: bool,
    /// Milliseconds since the Unix epoch.
    pub last_used_ms: u64,
}

impl Store {
    /// Takes `config.dir`, made where it is missing, and sweeps what a process that ended early left behind.
    pub fn open(config: Config) -> Result<Self> {
        let roots = Roots::open(&config.dir)?;
        let inner = Inner {
            config,
            roots: Mutex::new(roots),
            flights: Flights::default(),
            builds: Semaphore::new(BUILDS_AT_ONCE),
            built: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn limits(&self) -> &Limits {
        &self.inner.config.limits
    }

    /// The source of `reference` with the configured credentials.
    pub async fn source(&self, reference: &Reference) -> Result<Arc<dyn Source>> {
        let credentials = match &self.inner.config.credentials_file {
            Some(path) => Credentials::read(path)?,
            None => Credentials::default(),
        };
        crate::source::open(reference, &credentials).await
    }

    /// The root image of `resolved`, built from `source` where it is not here yet. Any number of callers share one
    /// build. The first use in a process hashes the file; a damaged one is put away and refused once, then built
    /// again. `progress` hears of every step. When every caller has dropped its future, the build ends.
    pub async fn ensure(
        &self,
        resolved: &Resolved,
        source: Arc<dyn Source>,
        progress: Option<&watch::Sender<Progress>>,
    ) -> Result<RootImage> {
        let inner = self.inner.clone();
        let wanted = resolved.clone();
        let flight = self.inner.flights.join(resolved.digest, move |progress, cancelled| async move {
            let tracker = Arc::new(Tracker::new(progress, wanted.compressed_bytes));
            if let Some(image) = inner.present(&wanted.digest, &tracker, &cancelled).await? {
                return Ok(image);
            }
            let limit = inner.config.limits.total_time_max;
            let work = inner.build(&wanted, source, &tracker, &cancelled);
            tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
                Err(Error::LimitTime { what: format!("building {}", wanted.reference), limit_s: limit.as_secs() })
            })
        });
        flight.wait(progress).await
    }

    /// The root image where it is here, hashed on first use in this process. `None`: it has to be built.
    pub async fn get(&self, digest: &Digest) -> Result<Option<RootImage>> {
        self.inner.present(digest, &Arc::new(Tracker::quiet()), &Cancelled::default()).await
    }

    /// Hashes the file again now. A damaged one is put away and refused.
    pub async fn verify(&self, digest: &Digest) -> Result<()> {
        self.inner.verify(digest, &Arc::new(Tracker::quiet()), &Cancelled::default()).await
    }

    /// Says which digests machines run from. Those and the ones handed out stay; of the others the least recently
    /// used are removed until the rest fits the disk budget. Answers what was removed.
    pub fn retain(&self, in_use: HashSet<Digest>) -> Result<Vec<Digest>> {
        self.inner.roots.lock().set_in_use(in_use);
        self.inner.evict()
    }

    /// What is here, in no order.
    pub fn list(&self) -> Vec<Listed> {
        let roots = self.inner.roots.lock();
        let listed = |(root, is_in_use): (&crate::roots::Root, bool)| Listed {
            digest: root.record.digest,
            bytes: root.record.bytes,
            disk_bytes: root.disk_bytes,
            is_in_use,
            last_used_ms: root.last_used_ms,
        };
        roots.iter().map(listed).collect()
    }

    /// Root images built since this process opened the store.
    pub fn built(&self) -> u64 {
        self.inner.built.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn lease(self: &Arc<Self>, digest: &Digest) -> Option<RootImage> {
        let mut roots = self.roots.lock();
        let (record, serial) = roots.lease(digest, self.config.clock.now_ms())?;
        let path = roots.image(digest);
        let lease = Arc::new(Lease { digest: *digest, serial, inner: self.clone() });
        Some(RootImage { digest: *digest, path, bytes: record.bytes, sha256: record.sha256, _lease: lease })
    }

    async fn present(
        self: &Arc<Self>,
        digest: &Digest,
        tracker: &Arc<Tracker>,
        cancelled: &Cancelled,
    ) -> Result<Option<RootImage>> {
        // Leased before it is hashed, so that it is not removed meanwhile.
        let Some(image) = self.lease(digest) else { return Ok(None) };
        let is_verified = self.roots.lock().get(digest).is_some_and(|root| root.is_verified);
        if !is_verified {
            self.verify(digest, tracker, cancelled).await?;
        }
        Ok(Some(image))
    }

    async fn verify(self: &Arc<Self>, digest: &Digest, tracker: &Arc<Tracker>, cancelled: &Cancelled) -> Result<()> {
        let (path, wanted) = {
            let roots = self.roots.lock();
            let Some(root) = roots.get(digest) else {
                let detail = "it is not in this store".to_owned();
                return Err(Error::FindImage { reference: digest.to_string(), detail });
            };
            (roots.image(digest), root.record.clone())
        };
        let found = self.hash(path, wanted.bytes, tracker.clone(), cancelled.clone()).await;
        if found.as_ref().is_ok_and(|found| *found == wanted.sha256) {
            self.roots.lock().set_verified(digest);
            return Ok(());
        }
        let found = match found {
            Ok(found) => found.to_string(),
            Err(error) if cancelled.load(Ordering::Relaxed) => return Err(error),
            Err(error) => error.to_string(),
        };
        tracing::error!(%digest, wanted = %wanted.sha256, found, "a root image is damaged and is put away");
        let removed = self.roots.lock().take_out(digest);
        if let Ok(path) = removed {
            self.remove(path).await;
        }
        Err(Error::VerifyRoot { digest: *digest, wanted: wanted.sha256.to_string(), found })
    }

    async fn hash(&self, path: PathBuf, bytes: u64, tracker: Arc<Tracker>, cancelled: Cancelled) -> Result<Digest> {
        tracker.set(Stage::Building, 0, bytes);
        blocking(move || {
            let mut done = 0;
            let hashed = hash_file(&path, |count| {
                done += count;
                tracker.set(Stage::Building, done, bytes);
                !cancelled.load(Ordering::Relaxed)
            });
            hashed.map_err(|error| Error::disk("read", &path, error))
        })
        .await
    }

    async fn build(
        self: &Arc<Self>,
        resolved: &Resolved,
        source: Arc<dyn Source>,
        tracker: &Arc<Tracker>,
        cancelled: &Cancelled,
    ) -> Result<RootImage> {
        let _turn = self.builds.acquire().await.map_err(|error| Error::Cancelled { what: error.to_string() })?;
        let tmp = self.roots.lock().tmp();
        let folder = tempfile::Builder::new()
            .prefix(&format!("build-{}-", &resolved.digest.hex()[..12]))
            .tempdir_in(&tmp)
            .map(|folder| BuildFolder(folder.keep()))
            .map_err(|error| Error::disk("create a folder in", &tmp, error))?;
        let built = folder.0.join("root");
        std::fs::create_dir(&built).map_err(|error| Error::disk("create", &built, error))?;
        let image = built.join(IMAGE_FILE);
        let file = File::create_new(&image).map_err(|error| Error::disk("create", &image, error))?;
        let unpacker = Unpacker::new(file, &image, &self.config.limits);
        let unpacker = self.apply_layers(resolved, source, unpacker, &folder.0, tracker, cancelled).await?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&resolved.digest.bytes()[..16]);
        let size = blocking(move || unpacker.finish(uuid)).await?.bytes;
        let sha256 = self.hash(image, size, tracker.clone(), cancelled.clone()).await?;
        let record = Record { format_version: FORMAT_VERSION, digest: resolved.digest, sha256, bytes: size };
        self.roots.lock().install(&built, record, self.config.clock.now_ms())?;
        self.built.fetch_add(1, Ordering::Relaxed);
        let leased = self.lease(&resolved.digest);
        // The new one is leased by now: room is made among the others.
        self.evict()?;
        leased.ok_or_else(|| Error::Cancelled { what: format!("the root image of {}", resolved.digest) })
    }

    /// Fetches layers side by side and unpacks them in order.
    async fn apply_layers(
        &self,
        resolved: &Resolved,
        source: Arc<dyn Source>,
        mut unpacker: Unpacker,
        folder: &Path,
        tracker: &Arc<Tracker>,
        cancelled: &Cancelled,
    ) -> Result<Unpacker> {
        tracker.pulled(0);
        let fetches = resolved.layers.iter().cloned().enumerate().map(|(place, layer)| {
            let (source, limits, tracker) = (source.clone(), self.config.limits.clone(), tracker.clone());
            let path = folder.join(format!("layer-{place}"));
            AbortOnDropHandle::new(tokio::spawn(async move {
                fetch::layer(&*source, &layer, &path, &limits, &|count| tracker.pulled(count)).await?;
                Ok((layer, path))
            }))
        });
        let mut fetched = futures::stream::iter(fetches).buffered(LAYERS_AT_ONCE);
        while let Some(done) = fetched.next().await {
            let (layer, path) = done.map_err(|error| Error::Cancelled { what: error.to_string() })??;
            let (tracker, cancelled) = (tracker.clone(), cancelled.clone());
            unpacker = blocking(move || {
                apply_layer(&mut unpacker, &layer, &path, &tracker, &cancelled)?;
                std::fs::remove_file(&path).map_err(|error| Error::disk("remove", &path, error))?;
                Ok(unpacker)
            })
            .await?;
        }
        Ok(unpacker)
    }

    fn evict(&self) -> Result<Vec<Digest>> {
        let evicted = self.roots.lock().evict(self.config.disk_budget_bytes);
        let mut digests = Vec::new();
        for (digest, folder) in evicted {
            remove_folder(&folder)?;
            digests.push(digest);
        }
        Ok(digests)
    }

    async fn remove(&self, folder: PathBuf) {
        if let Err(error) = blocking(move || remove_folder(&folder)).await {
            tracing::warn!(%error, "a root image that was put away could not be removed");
        }
    }
}

/// Where one build keeps its files. Removed with it, however it ends.
struct BuildFolder(PathBuf);

impl Drop for BuildFolder {
    fn drop(&mut self) {
        // A fetch that was just told to stop may still be creating its file, and then the folder is not empty after
        // all. It does so once, so few attempts are enough; what is left even then goes at the next open.
        const ATTEMPTS_MAX: usize = 1000;
        let mut result = Ok(());
        for _ in 0..ATTEMPTS_MAX {
            result = remove_folder(&self.0);
            if result.is_ok() {
                return;
            }
            std::thread::yield_now();
        }
        if let Err(error) = result {
            tracing::warn!(%error, "the files of a build were not removed");
        }
    }
}

fn apply_layer(
    unpacker: &mut Unpacker,
    layer: &Layer,
    path: &Path,
    tracker: &Tracker,
    cancelled: &Cancelled,
) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::disk("open", path, error))?;
    let watched = Watched { file, tracker, cancelled };
    let unreadable = |error: io::Error| Error::ReadLayer { layer: layer.digest.short(), problem: error.to_string() };
    let plain = decompress::reader(watched).map_err(unreadable)?;
    let mut hashed = Hashed { inner: plain, hasher: layer.diff_id.map(|_| Hasher::new()) };
    unpacker.apply(&mut hashed).map_err(|error| error.in_layer(&layer.digest))?;
    if let (Some(wanted), Some(hasher)) = (layer.diff_id, hashed.hasher) {
        let found = hasher.finish();
        if found != wanted {
            let what = format!("layer {} when unpacked", layer.digest.short());
            return Err(Error::VerifyDigest { what, wanted, found: found.to_string() });
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Cancelled { what: error.to_string() }),
    }
}

/// Counts what is read of a layer and stops when nobody waits any more.
struct Watched<'a> {
    file: File,
    tracker: &'a Tracker,
    cancelled: &'a Cancelled,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let count = self.file.read(buffer)?;
        self.tracker.unpacked(count as u64);
        Ok(count)
    }
}

/// Hashes what passes, where there is something to compare it with.
struct Hashed<R> {
    inner: R,
    hasher: Option<Hasher>,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

/// Brings the counts of several tasks to one progress.
struct Tracker {
    sender: watch::Sender<Progress>,
    pulled_bytes: AtomicI64,
    unpacked_bytes: AtomicU64,
    total_bytes: u64,
}

impl Tracker {
    fn new(sender: watch::Sender<Progress>, total_bytes: u64) -> Self {
        Self { sender, pulled_bytes: AtomicI64::new(0), unpacked_bytes: AtomicU64::new(0), total_bytes }
    }

    fn quiet() -> Self {
        Self::new(watch::channel(Progress::start()).0, 0)
    }

    fn pulled(&self, count: i64) {
        self.pulled_bytes.fetch_add(count, Ordering::Relaxed);
        self.publish();
    }

    fn unpacked(&self, count: u64) {
        self.unpacked_bytes.fetch_add(count, Ordering::Relaxed);
        self.publish();
    }

    fn publish(&self) {
        let pulled = self.pulled_bytes.load(Ordering::Relaxed).max(0) as u64;
        let (stage, done) = if pulled < self.total_bytes {
            (Stage::Pulling, pulled)
        } else {
            (Stage::Unpacking, self.unpacked_bytes.load(Ordering::Relaxed))
        };
        self.set(stage, done, self.total_bytes);
    }

    fn set(&self, stage: Stage, done_bytes: u64, total_bytes: u64) {
        self.sender.send_replace(Progress { stage, done_bytes, total_bytes });
    }
}
