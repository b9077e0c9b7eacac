//! The tree on disk: a log-structured merge tree without a journal.
//!
//! The replicated log is the journal. Changes gather in memory; a seal closes them with the marks as their last write, and
//! one thread turns what is sealed into a table file, which a new version of the manifest names once it is on disk. So
//! the files always hold the state after some entry of the log, whole, and opening again goes on from there.
//!
//! ```text
//!   put, remove ──▶ memory ── seal ──▶ sealed ── flush thread: table, fsync, manifest, fsync ──▶ durable index
//!                                                    └─ merge thread: fewer, larger tables
//! ```

mod manifest;
mod parts;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lsm_tree::config::{BlockSizePolicy, PinningPolicy};
use lsm_tree::{AbstractTree, AnyTree, Cache, Config, DescriptorTable, Guard, SequenceNumberCounter, Slice};
use parking_lot::{Condvar, Mutex, RwLock};
use store::Error;
use tokio::sync::watch;

use self::parts::Parts;
use super::disk::{Disk, Items, Usage};
use super::seen::{Seen, Seq};
use crate::fault::{at, contained, damaged, io_fault};

/// Sealed parts that may wait to be flushed before writing waits too.
const SEALED_MAX: usize = 2;

/// Runs of tables that a read may have to look at before writing waits for the merge thread.
const RUNS_MAX: usize = 24;

/// How long writing waits for upkeep, at most this often: then it goes on, for memory is better than standing still.
const RELIEF: Duration = Duration::from_millis(10);
const RELIEF_ROUNDS: usize = 1000;

/// Table files held open.
const FILES_MAX: usize = 256;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Blocks of tables held in memory; the kernel's page cache comes on top.
    pub cache_bytes: u64,
    /// Rows held in memory one by one.
    pub recent_bytes: u64,
    /// Changes that gather before they become a table.
    pub gather_bytes: u64,
    /// Of one table file that merging makes.
    pub table_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 16 << 20, recent_bytes: 8 << 20, gather_bytes: 12 << 20, table_bytes: 32 << 20 }
    }
}

pub struct Lsm {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    retired: AtomicBool,
}

/// Between the writer and the threads.
struct Shared {
    tree: AnyTree,
    path: PathBuf,
    options: Options,
    seqs: SequenceNumberCounter,
    seen: Arc<Seen>,
    todo: Mutex<Todo>,
    changed: Condvar,
    /// Told once, at the end.
    ending: Condvar,
    durable: watch::Sender<u64>,
    parts: Parts,
    /// Of the part that is written to.
    gathered: AtomicU64,
    /// Sealed parts and runs of new tables that there are too many of.
    pressed: AtomicBool,
    /// Held for reading while files are being made, for writing to sweep up what failed.
    making: RwLock<()>,
}

#[derive(Default)]
struct Todo {
    /// The index of each sealed part that is not durable, oldest first.
    sealed: std::collections::VecDeque<u64>,
    merge: bool,
    stop: bool,
    problem: Option<Error>,
}

impl Shared {
    /// After sealed parts or tables became more or fewer.
    fn counted(&self, todo: &Todo) {
        let pressed = todo.sealed.len() >= SEALED_MAX || self.tree.l0_run_count() >= RUNS_MAX;
        self.pressed.store(pressed, Ordering::Relaxed);
    }
}

/// Turns an error of the tree into one of the waist. The path is filled in later.
fn fault(act: &'static str) -> impl Fn(lsm_tree::Error) -> Error {
    move |error| match error {
        lsm_tree::Error::Io(error) => match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData | std::io::ErrorKind::NotFound => {
                damaged(error.to_string())
            }
            _ => io_fault(act, error),
        },
        error => damaged(error.to_string()),
    }
}

fn config(path: &Path, options: Options) -> (Config, SequenceNumberCounter) {
    // The tree counts up the second one by itself when tables change; readers here go by what was published.
    let (seqs, unused) = (SequenceNumberCounter::new(1), SequenceNumberCounter::new(1));
    let config = Config::new(path, seqs.clone(), unused)
        .use_cache(Arc::new(Cache::with_capacity_bytes(options.cache_bytes)))
        .use_descriptor_table(Some(Arc::new(DescriptorTable::new(FILES_MAX))))
        .data_block_size_policy(BlockSizePolicy::all(4096))
        .index_block_partitioning_policy(PinningPolicy::new([false, false, false, true]))
        .filter_block_partitioning_policy(PinningPolicy::new([false, false, false, true]));
    (config, seqs)
}

/// Fills a tree that does not exist yet, with ascending keys; it is on disk when this returns.
pub fn fill(
    path: &Path,
    options: Options,
    items: impl FnOnce(&mut dyn FnMut(Slice, Slice) -> Result<(), Error>) -> Result<(), Error>,
) -> Result<(), Error> {
    contained(path, || {
        let (config, _) = config(path, options);
        let tree = config.open().map_err(fault("make the tree"))?;
        let mut ingestion = tree.ingestion().map_err(fault("fill the tree"))?;
        items(&mut |key, value| ingestion.write(key, value).map_err(fault("fill the tree")))?;
        ingestion.finish().map_err(fault("fill the tree"))
    })
}

impl Lsm {
    /// Makes the tree when there is none. Answers it and the first point that sees all of it.
    pub fn open(path: &Path, options: Options, seen: Arc<Seen>, durable: watch::Sender<u64>) -> Result<Opened, Error> {
        contained(path, || {
            manifest::check(path)?;
            let (config, seqs) = config(path, options);
            let tree = config.open().map_err(fault("open the tree"))?;
            seqs.fetch_max(tree.get_highest_seqno().map_or(1, |seq| seq + 1));
            let visible = seqs.next() + 1;
            let path = path.to_path_buf();
            let parts = Parts::new(&tree);
            let shared = Shared {
                tree,
                path,
                options,
                seqs,
                seen,
                todo: Mutex::new(Todo { merge: true, ..Todo::default() }),
                changed: Condvar::new(),
                ending: Condvar::new(),
                durable,
                parts,
                gathered: AtomicU64::new(0),
                pressed: AtomicBool::new(false),
                making: RwLock::new(()),
            };
            Ok(Opened {
                lsm: Self { shared: Arc::new(shared), threads: Vec::new(), retired: AtomicBool::new(false) },
                visible,
            })
        })
    }

    /// Flushing and merging begin; before, the files stay as they are.
    pub fn start(&mut self) -> Result<(), Error> {
        self.threads = upkeep::start(&self.shared)?;
        Ok(())
    }
}

pub struct Opened {
    pub lsm: Lsm,
    pub visible: Seq,
}

impl Drop for Lsm {
    fn drop(&mut self) {
        self.shared.todo.lock().stop = true;
        self.shared.changed.notify_all();
        self.shared.ending.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        if self.retired.load(Ordering::Relaxed)
            && let Err(error) = std::fs::remove_dir_all(&self.shared.path)
        {
            tracing::warn!(%error, path = %self.shared.path.display(), "an old state could not be removed yet");
        }
    }
}

impl Disk for Lsm {
    fn get(&self, key: &[u8], at: Seq) -> Result<Option<Slice>, Error> {
        self.shared.parts.get(key, at).map_err(fault("read the tree")).map_err(self.here())
    }

    fn range(&self, from: &[u8], to: &[u8], at: Seq) -> Items {
        if from >= to {
            return Box::new(std::iter::empty());
        }
        let items = self.shared.tree.range(from..to, at, None);
        let shared = self.shared.clone();
        Box::new(
            items.map(move |item| {
                item.into_inner().map_err(fault("read the tree")).map_err(crate::fault::at(&shared.path))
            }),
        )
    }

    fn frozen(&self, from: &[u8], to: &[u8], at: Seq) -> Items {
        // It holds the tables and the parts in memory as they are.
        self.range(from, to, at)
    }

    fn next_seq(&self) -> Seq {
        self.shared.seqs.next()
    }

    fn put(&self, key: Slice, value: Slice, seq: Seq) {
        self.shared.gathered.store(self.shared.parts.write(key, Some(value), seq), Ordering::Relaxed);
    }

    fn remove(&self, key: Slice, seq: Seq) {
        self.shared.gathered.store(self.shared.parts.write(key, None, seq), Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        // Reads look at every sealed part: while the disk takes none, there are not more and more of them.
        self.shared.gathered.load(Ordering::Relaxed) >= self.shared.options.gather_bytes
            && self.shared.todo.lock().sealed.len() <= SEALED_MAX
    }

    fn seal(&self, index: u64) {
        let mut todo = self.shared.todo.lock();
        if self.shared.tree.rotate_memtable().is_some() {
            todo.sealed.push_back(index);
            self.shared.parts.seal(&self.shared.tree);
            self.shared.gathered.store(0, Ordering::Relaxed);
            self.shared.counted(&todo);
        }
        self.shared.changed.notify_all();
    }

    fn is_pressed(&self) -> bool {
        self.shared.pressed.load(Ordering::Relaxed)
    }

    fn relieve(&self) {
        for _ in 0..RELIEF_ROUNDS {
            if !self.is_pressed() {
                return;
            }
            let mut todo = self.shared.todo.lock();
            if todo.problem.is_some() {
                return;
            }
            self.shared.changed.wait_for(&mut todo, RELIEF);
        }
    }

    fn sync(&self) -> Result<(), Error> {
        let mut todo = self.shared.todo.lock();
        loop {
            if todo.sealed.is_empty() {
                return Ok(());
            }
            if let Some(problem) = &todo.problem {
                return Err(problem.clone());
            }
            if todo.stop {
                return Err(Error::Closed);
            }
            self.shared.changed.wait(&mut todo);
        }
    }

    fn usage(&self) -> Usage {
        let tree = &self.shared.tree;
        Usage { disk_bytes: tree.disk_space(), memory_bytes: tree.version_memtable_size_sum() }
    }

    fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn problem(&self) -> Option<Error> {
        self.shared.todo.lock().problem.clone()
    }
}

impl Lsm {
    fn here(&self) -> impl Fn(Error) -> Error {
        at(&self.shared.path)
    }
}
