//! One build per digest, what survives, what is removed, and what happens when the disk is full.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use image::{BlobReader, Config, Digest, Error, Progress, Reference, Resolved, Root, Source, Stage, Store};
use tokio::sync::watch;

use crate::support::{Image, Tar, folder, has, is_root, run, store};

/// Counts the layers that are asked for, and lets them wait or fail.
struct Watched {
    inner: Arc<dyn Source>,
    layers: AtomicU64,
    open: watch::Sender<bool>,
    fails: std::sync::atomic::AtomicBool,
}

impl Watched {
    fn new(inner: Arc<dyn Source>, open: bool) -> Arc<Self> {
        Arc::new(Self { inner, layers: AtomicU64::new(0), open: watch::channel(open).0, fails: false.into() })
    }
}

#[async_trait]
impl Source for Watched {
    fn reference(&self) -> &Reference {
        self.inner.reference()
    }

    async fn root(&self) -> image::Result<Root> {
        self.inner.root().await
    }

    async fn manifest(&self, digest: &Digest) -> image::Result<Bytes> {
        self.inner.manifest(digest).await
    }

    async fn blob(&self, digest: &Digest, size: u64) -> image::Result<BlobReader> {
        self.layers.fetch_add(1, Ordering::Relaxed);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::Authorize { reference: "x".into(), registry: "x".into() });
        }
        self.inner.blob(digest, size).await
    }
}

async fn image(dir: &Path, name: &str, bytes: usize) -> (Resolved, Arc<dyn Source>) {
    let noise: Vec<u8> = (0..bytes).map(|n| (n * 31 + n / 251) as u8).collect();
    let layers: Vec<_> = (0..4).map(|n| Tar::new().file(&format!("{name}-{n}"), &noise[..bytes / 4]).done()).collect();
    Image::of(&dir.join(name), &layers).open().await.unwrap()
}

fn tmp_is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir.join("store/tmp")).unwrap().count() == 0
}

/// Waits, bounded, for what another thread is about to do.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_at_once_share_one_build() {
    let dir = folder();
    let (resolved, source) = image(dir.path(), "shop", 4_000_000).await;
    let watched = Watched::new(source, false);
    let store = store(dir.path());
    let (sender, mut receiver) = watch::channel(Progress::start());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, resolved, source, sender) = (store.clone(), resolved.clone(), watched.clone(), sender.clone());
            tokio::spawn(async move { store.ensure(&resolved, source, Some(&sender)).await })
        })
        .collect();
    eventually("the first fetches", || watched.layers.load(Ordering::Relaxed) == 3).await;
    let stage = receiver.borrow_and_update().stage;
    assert!(matches!(stage, Stage::Pulling | Stage::Resolving), "{stage:?}");
    watched.open.send_replace(true);
    for task in tasks {
        let root = task.await.unwrap().unwrap();
        assert_eq!((root.digest, root.path.exists()), (resolved.digest, true));
    }
    assert_eq!((store.built(), watched.layers.load(Ordering::Relaxed)), (1, 4));
    let last = *receiver.borrow();
    assert_eq!((last.stage, last.done_bytes), (Stage::Building, last.total_bytes));
    // Later ones find it there.
    store.ensure(&resolved, watched.clone(), None).await.unwrap();
    assert_eq!((store.built(), watched.layers.load(Ordering::Relaxed)), (1, 4));
}

#[tokio::test]
async fn a_restart_finds_what_was_built_and_sweeps_what_was_not() {
    let dir = folder();
    let (resolved, source) = image(dir.path(), "shop", 100_000).await;
    let first = store(dir.path());
    let root = first.ensure(&resolved, source.clone(), None).await.unwrap();
    let Err(error) = Store::open(Config::new(dir.path().join("store"))) else { panic!("opened twice") };
    assert!(matches!(error, Error::LockStore { .. }), "{error}");
    let bytes = std::fs::read(&root.path).unwrap();
    drop((first, root));
    // As a crash leaves them: a build under way, a folder without a record, one with a record of another format.
    let (tmp, roots) = (dir.path().join("store/tmp"), dir.path().join("store/roots"));
    std::fs::create_dir(tmp.join("build-stale")).unwrap();
    std::fs::write(tmp.join("build-stale/layer-0"), "half").unwrap();
    let stale = roots.join(format!("sha256-{}", Digest::of(b"stale").hex()));
    std::fs::create_dir(&stale).unwrap();
    std::fs::write(stale.join("root.erofs"), "half").unwrap();
    let second = store(dir.path());
    assert!(tmp_is_empty(dir.path()) && !stale.exists());
    let watched = Watched::new(source, true);
    let again = second.ensure(&resolved, watched.clone(), None).await.unwrap();
    assert_eq!((second.built(), watched.layers.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(std::fs::read(&again.path).unwrap(), bytes);
    let path = again.path.with_file_name("root.json");
    drop((second, again));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"format_version\":1", "\"format_version\":0")).unwrap();
    let third = store(dir.path());
    assert!(third.list().is_empty());
    third.ensure(&resolved, watched, None).await.unwrap();
    assert_eq!(third.built(), 1);
}

#[tokio::test]
async fn a_flipped_byte_is_refused_and_built_again_the_next_time() {
    let dir = folder();
    let (resolved, source) = image(dir.path(), "shop", 100_000).await;
    let first = store(dir.path());
    let root = first.ensure(&resolved, source.clone(), None).await.unwrap();
    let path = root.path.clone();
    drop((first, root));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let second = store(dir.path());
    let error = second.ensure(&resolved, source.clone(), None).await.unwrap_err();
    assert!(matches!(error, Error::VerifyRoot { .. }), "{error}");
    assert_eq!(error.code(), "rootfs_build_failed");
    assert!(tmp_is_empty(dir.path()) && !path.exists());
    let root = second.ensure(&resolved, source, None).await.unwrap();
    second.verify(&root.digest).await.unwrap();
    // On demand as well, while the process that built it still runs.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[9000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(second.verify(&root.digest).await.unwrap_err(), Error::VerifyRoot { .. }));
    assert!(second.get(&root.digest).await.unwrap().is_none());
}

#[tokio::test]
async fn the_oldest_that_nobody_uses_go_first() {
    let dir = folder();
    let mut images = Vec::new();
    for name in ["a", "b", "c", "d"] {
        images.push(image(dir.path(), name, 400_000).await);
    }
    let digest = |n: usize| images[n].0.digest;
    let clock = world::Clock::simulated(1_000_000_000);
    let config = Config { disk_budget_bytes: 1_000_000, clock: clock.clone(), ..Config::new(dir.path().join("store")) };
    let store = Store::open(config).unwrap();
    let ensure = async |n: usize| {
        clock.advance(Duration::from_secs(1));
        store.ensure(&images[n].0, images[n].1.clone(), None).await.unwrap()
    };
    let here = || store.list().into_iter().map(|listed| listed.digest).collect::<HashSet<_>>();
    let a = ensure(0).await;
    drop(ensure(1).await);
    assert_eq!(here(), HashSet::from([digest(0), digest(1)]));
    // `a` is older and handed out: `b` goes for `c`.
    drop(ensure(2).await);
    assert_eq!(here(), HashSet::from([digest(0), digest(2)]));
    assert!(a.path.exists());
    // A machine runs from `a` after its holder here is gone: now `c` goes for `d`.
    assert_eq!(store.retain(HashSet::from([digest(0)])).unwrap(), []);
    drop(a);
    drop(ensure(3).await);
    assert_eq!(here(), HashSet::from([digest(0), digest(3)]));
    // Everything in use stays, however little the budget.
    let (c, d) = (ensure(2).await, ensure(3).await);
    let all = HashSet::from([digest(0), digest(2), digest(3)]);
    assert_eq!(here(), all);
    assert_eq!(store.retain(all.clone()).unwrap(), []);
    drop((c, d));
    assert_eq!(store.retain(all).unwrap(), []);
    // `a` was used first.
    assert_eq!(store.retain(HashSet::new()).unwrap(), [digest(0)]);
    assert!(!dir.path().join(format!("store/roots/sha256-{}", digest(0).hex())).exists());
    assert!(tmp_is_empty(dir.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_ends_when_nobody_waits_and_a_failed_one_is_not_joined() {
    let dir = folder();
    let (resolved, source) = image(dir.path(), "shop", 100_000).await;
    let watched = Watched::new(source, false);
    let store = store(dir.path());
    let waiting = tokio::spawn({
        let (store, resolved, source) = (store.clone(), resolved.clone(), watched.clone());
        async move { store.ensure(&resolved, source, None).await }
    });
    eventually("the first fetches", || watched.layers.load(Ordering::Relaxed) == 3).await;
    assert!(!tmp_is_empty(dir.path()));
    waiting.abort();
    eventually("the end of the build", || tmp_is_empty(dir.path())).await;
    watched.open.send_replace(true);
    watched.fails.store(true, Ordering::Relaxed);
    let error = store.ensure(&resolved, watched.clone(), None).await.unwrap_err();
    assert!(matches!(error, Error::Authorize { .. }), "{error}");
    watched.fails.store(false, Ordering::Relaxed);
    store.ensure(&resolved, watched, None).await.unwrap();
    assert_eq!(store.built(), 1);
}

/// A small file system of its own.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path, size: &str) -> Option<Self> {
        if !is_root() || !has(&["mount", "umount"]) {
            return None;
        }
        std::fs::create_dir_all(path).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", path.to_str().unwrap()]);
        Some(Self(path))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_nothing_else_is_lost() {
    let dir = folder();
    let store_dir = dir.path().join("store");
    let Some(_small) = Small::mount(&store_dir, "4m") else { return };
    let (fits, fits_source) = image(dir.path(), "fits", 500_000).await;
    let store = store(dir.path());
    let root = store.ensure(&fits, fits_source, None).await.unwrap();
    // Too large while it is fetched; small to fetch and too large when unpacked; and with room for all but the end.
    let (pulled, pulled_source) = image(dir.path(), "pulled", 8_000_000).await;
    let zeros = Tar::new().file("zeros", vec![0; 8_000_000]).done();
    let packed = Image::new(&dir.path().join("packed"));
    let (digest, size) = packed.manifest("amd64", &[(crate::support::gzip(&zeros), zeros)]);
    packed.index(&[crate::support::entry(digest, size)]);
    let (unpacked, unpacked_source) = packed.open().await.unwrap();
    for (resolved, source) in [(pulled, pulled_source), (unpacked, unpacked_source)] {
        let error = store.ensure(&resolved, source, None).await.unwrap_err();
        assert_eq!(error.code(), "disk_full", "{error}");
        assert!(tmp_is_empty(dir.path()));
        store.verify(&fits.digest).await.unwrap();
    }
    assert!(root.path.exists());
    // Space again, and it works.
    run("mount", &["-o", "remount,size=64m", store_dir.to_str().unwrap()]);
    let (again, source) = image(dir.path(), "again", 8_000_000).await;
    store.ensure(&again, source, None).await.unwrap();
    assert_eq!(store.list().len(), 2);
}
