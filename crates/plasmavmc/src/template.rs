//! Templates: machines that booted to the point where PID 1 waits for its configuration, and were saved there. A machine
//! of the same owner and shape begins as a clone of one, with its own disks, addresses, entropy, clock and secrets.
//!
//! ```text
//!   find ---> ready ---------------------------------> the clone's memory: its own copies over the template's
//!     \-----> on the disk --verified--> ready
//!      \----> nothing: the machine boots, and meanwhile   boot, prepare, halt, save, seal, store, try a clone -> ready
//! ```
//!
//! - What a kernel drew before it was saved is the same in all clones (where it lies in memory, its early keys). So a
//!   template is one owner's, holds nothing of any machine, and is made anew again and again.
//! - The memory of a template in use is a sealed file without a name: processes in a jail open it for writing, because the
//!   monitor knows no other way, and cannot write to it, by whatever way. The copy on the disk is read by this program alone.
//! - They are kept as long as the host is not restarted, within budgets: on the disk the oldest goes first, in memory the
//!   longest unused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::guest::Phase;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use world::file;

use crate::Error;
use crate::channel::Channel;
use crate::context::{Context, Prepared};
use crate::jail::cgroup::Group;
use crate::kernel::{Kernel, hex};
use crate::launch::{self, Launch, Launched, Memory, Origin};
use crate::process::Process;
use crate::saved::{self, Manifest, Shape};
use crate::{qmp, record, scratch, tap};

/// The name of its folder and cgroup while it is made; no machine's id has a dot.
const NAME: &str = ".template";
const FOLDER_PREFIX: &str = "machine-";
/// Of a folder, or a disk's template, that is not whole yet.
const MAKING_PREFIX: &str = "making-";
/// A boot takes two seconds under emulation, on a machine that does nothing else.
const BOOT_DEADLINE: Duration = Duration::from_mins(2);
/// A clone says hello after some tens of milliseconds.
const CLONE_DEADLINE: Duration = Duration::from_secs(30);
/// The monitor writes at memory's speed.
const SAVE_DEADLINE: Duration = Duration::from_mins(1);
const END_DEADLINE: Duration = Duration::from_secs(10);
/// Beside what people wait for, making one has time.
const CPU_WEIGHT: u32 = 20;
/// How long it waits for machines that are booting before it takes their processor.
const QUIET_ROUNDS_MAX: u32 = 60;
const QUIET_ROUND: Duration = Duration::from_secs(1);
/// Then another one is made while this one serves on.
const RENEW_MS: u64 = 60 * 60 * 1000;
/// Then it is not used any more.
const AGE_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Not used for this long, its memory is given back; the copy on the disk stays.
const IDLE_MS_MAX: u64 = 10 * 60 * 1000;
/// All templates in use together, in bytes of the host's memory.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// One that could not be made is tried again after this.
const RETRY_MS: u64 = 10 * 60 * 1000;
/// All templates on the disk together, in bytes.
const DISK_BYTES_MAX: u64 = 4 << 30;
/// In place of the disks a clone will have.
const PLACEHOLDER_BYTES: u64 = 1 << 20;
const PLACEHOLDER_MAC: &str = "02:00:00:00:00:01";

/// One that can be used.
#[derive(Debug)]
pub(crate) struct Template {
    key: String,
    folder: PathBuf,
    /// Kept open: a renewed template takes the folder's place, and its state does not fit this memory.
    state: File,
    /// Sealed: nobody writes to it.
    memory: File,
    made_at_ms: u64,
}

impl Template {
    /// The devices' state, for one clone.
    pub fn state(&self) -> io::Result<File> {
        // Opened anew, each reader begins at the beginning.
        File::open(format!("/proc/self/fd/{}", self.state.as_raw_fd()))
    }

    /// The memory, to begin with.
    pub fn memory(&self) -> io::Result<OwnedFd> {
        Ok(self.memory.try_clone()?.into())
    }

    /// A copy of the memory that a machine may write to.
    pub fn copy_memory(&self, to: &File) -> io::Result<()> {
        scratch::copy_data(&self.memory, to)
    }
}

enum Entry {
    Making,
    Ready { template: Arc<Template>, used_at_ms: u64 },
    Failed { why: String, at_ms: u64 },
}

/// All templates of one engine.
#[derive(Default)]
pub(crate) struct Templates {
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Read from the disk one after the other: many machines of one shape start at once.
    loading: tokio::sync::Mutex<()>,
    /// Made one after the other.
    making: tokio::sync::Mutex<()>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Templates {
    /// Gives up what is being made.
    pub async fn close(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        self.entries.lock().clear();
    }

    /// Not to be used again: a machine could not go on from it.
    pub fn spoil(&self, template: &Template, why: &str, now_ms: u64) {
        tracing::warn!(key = %template.key, why, "a template is given up");
        let _ = fs::remove_dir_all(&template.folder);
        let failed = Entry::Failed { why: why.to_owned(), at_ms: now_ms };
        self.entries.lock().insert(template.key.clone(), failed);
    }

    /// Gives back the memory of those that nobody used for long, and of the longest unused while all together hold too
    /// much. Clones go on with what they share.
    pub fn tidy(&self, now_ms: u64) {
        let mut entries = self.entries.lock();
        let mut ready: Vec<(u64, String, u64)> = Vec::new();
        for (key, entry) in &*entries {
            if let Entry::Ready { template, used_at_ms } = entry {
                let bytes = template.memory.metadata().map_or(0, |metadata| metadata.blocks() * 512);
                ready.push((*used_at_ms, key.clone(), bytes));
            }
        }
        ready.sort_unstable();
        let mut total: u64 = ready.iter().map(|(_, _, bytes)| bytes).sum();
        for (used_at_ms, key, bytes) in ready {
            if total > MEMORY_BYTES_MAX || now_ms.saturating_sub(used_at_ms) >= IDLE_MS_MAX {
                entries.remove(&key);
                total -= bytes;
            }
        }
    }
}

impl Context {
    /// The template for a machine of this owner and shape. Where there is none the error says why, and one is being made.
    pub(crate) async fn template(
        self: &Arc<Self>,
        prepared: &Prepared,
        owner: &str,
        shape: &Shape,
    ) -> Result<Arc<Template>, String> {
        let key = key(prepared, owner, shape);
        if let Some(found) = self.known(prepared, &key, shape) {
            return found;
        }
        let _loading = self.machine_templates.loading.lock().await;
        if let Some(found) = self.known(prepared, &key, shape) {
            return found;
        }
        let (folder, wanted, now_ms) = (self.template_folder(prepared, &key), shape.clone(), self.clock.now_ms());
        let name = key.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&folder, &name, &wanted, now_ms)).await;
        match loaded.map_err(|error| error.to_string()).and_then(|loaded| loaded) {
            Ok(Some(template)) => {
                let ready = Entry::Ready { template: template.clone(), used_at_ms: now_ms };
                self.machine_templates.entries.lock().insert(key, ready);
                return Ok(template);
            }
            Ok(None) => {}
            Err(why) => {
                tracing::warn!(key, why, "a template is given up");
                let _ = fs::remove_dir_all(self.template_folder(prepared, &key));
            }
        }
        self.order(prepared, &key, shape);
        Err("there was no template for machines of its owner and shape; one is being made".to_owned())
    }

    /// `None` when nothing is known in memory.
    fn known(self: &Arc<Self>, prepared: &Prepared, key: &str, shape: &Shape) -> Option<Result<Arc<Template>, String>> {
        let now_ms = self.clock.now_ms();
        let (found, renew) = {
            let mut entries = self.machine_templates.entries.lock();
            match entries.get_mut(key)? {
                Entry::Making => return Some(Err("its template is being made".to_owned())),
                Entry::Failed { at_ms, .. } if now_ms.saturating_sub(*at_ms) >= RETRY_MS => return None,
                Entry::Failed { why, .. } => return Some(Err(format!("its template cannot be used: {why}"))),
                Entry::Ready { template, used_at_ms } => {
                    *used_at_ms = now_ms;
                    let age_ms = now_ms.saturating_sub(template.made_at_ms);
                    if age_ms >= AGE_MS_MAX {
                        entries.remove(key);
                        return None;
                    }
                    (template.clone(), age_ms >= RENEW_MS)
                }
            }
        };
        if renew {
            self.order(prepared, key, shape);
        }
        Some(Ok(found))
    }

    fn template_folder(&self, prepared: &Prepared, key: &str) -> PathBuf {
        self.templates().join(format!("{FOLDER_PREFIX}{}-{key}", stamp(self, prepared)))
    }

    /// Has it made in the background, unless it is being made.
    fn order(self: &Arc<Self>, prepared: &Prepared, key: &str, shape: &Shape) {
        let templates = &self.machine_templates;
        {
            let mut entries = templates.entries.lock();
            match entries.get(key) {
                Some(Entry::Making) => return,
                // The old one serves until the new one is there.
                Some(Entry::Ready { .. }) if self.is_making() => return,
                Some(Entry::Ready { .. }) => {}
                _ => drop(entries.insert(key.to_owned(), Entry::Making)),
            }
        }
        let (context, prepared, key, shape) = (self.clone(), prepared.clone(), key.to_owned(), shape.clone());
        let task = tokio::spawn(async move {
            let made = context.make_template(&prepared, &key, &shape).await;
            let now_ms = context.clock.now_ms();
            let mut entries = context.machine_templates.entries.lock();
            match made {
                Ok(template) => drop(entries.insert(key, Entry::Ready { template, used_at_ms: now_ms })),
                Err(why) => {
                    tracing::warn!(key, why, "a template could not be made");
                    // One that was to be renewed serves on.
                    if matches!(entries.get(&key), Some(Entry::Making)) {
                        entries.insert(key, Entry::Failed { why, at_ms: now_ms });
                    }
                }
            }
        });
        let mut tasks = templates.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    fn is_making(&self) -> bool {
        self.machine_templates.making.try_lock().is_err()
    }

    async fn make_template(
        self: &Arc<Self>,
        prepared: &Prepared,
        key: &str,
        shape: &Shape,
    ) -> Result<Arc<Template>, String> {
        let _making = self.machine_templates.making.lock().await;
        self.until_quiet().await;
        let started_ms = self.clock.now_ms();
        let folder = tempfile::Builder::new().prefix(MAKING_PREFIX).tempdir_in(self.templates_folder()?);
        let folder = folder.map_err(|error| format!("a folder cannot be made: {error}"))?;
        let memory = self.save_template(prepared, shape, folder.path()).await?;
        let (path, shape, now_ms) = (folder.path().to_owned(), shape.clone(), self.clock.now_ms());
        let kept = memory.try_clone().map_err(|error| error.to_string())?;
        let stored = tokio::task::spawn_blocking(move || {
            let copy = saved::create(&path.join(saved::MEMORY))?;
            scratch::copy_data(&kept, &copy)?;
            Manifest::seal(&path, shape, now_ms)
        });
        let manifest = stored.await.map_err(|error| error.to_string())?;
        let manifest = manifest.map_err(|error| format!("it cannot be stored: {error}"))?;
        let made_at_ms = manifest.saved_at_ms;
        let state = File::open(folder.path().join(saved::STATE)).map_err(|error| error.to_string())?;
        let mut template =
            Template { key: key.to_owned(), folder: folder.path().to_owned(), state, memory, made_at_ms };
        self.try_clone(&manifest.shape, &template).await?;
        let place = self.template_folder(prepared, key);
        let moved = move_over(&folder.keep(), &place);
        moved.map_err(|error| format!("it cannot be stored: {error}"))?;
        template.folder = place;
        trim(&self.templates(), &stamp(self, prepared));
        let millis = self.clock.now_ms().saturating_sub(started_ms);
        tracing::info!(key, millis, "a template was made");
        Ok(Arc::new(template))
    }

    fn templates_folder(&self) -> Result<PathBuf, String> {
        let folder = self.templates();
        file::create_folder(&folder, 0o700).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder)
    }

    /// Machines that boot go first.
    async fn until_quiet(&self) {
        for _ in 0..QUIET_ROUNDS_MAX {
            let booting = self.machines.lock().values().any(|machine| machine.is_booting());
            if !booting {
                return;
            }
            tokio::time::sleep(QUIET_ROUND).await;
        }
    }

    /// Boots a machine, has it prepared, halts and saves it; gives its memory, sealed.
    async fn save_template(
        self: &Arc<Self>,
        prepared: &Prepared,
        shape: &Shape,
        folder: &Path,
    ) -> Result<File, String> {
        let text = |error: io::Error| error.to_string();
        let memory = memory(shape.memory_bytes).map_err(text)?;
        let file = memory.try_clone().map_err(text)?.into();
        let memory_file = Memory::File { file, share: true };
        let making = self.launch_template(shape, Saved::Nothing(prepared.kernel.clone()), memory_file, folder).await?;
        let channel = making.hello(BOOT_DEADLINE).await?;
        channel.prepare_template().await.map_err(|error| error.to_string())?;
        let state = saved::create(&folder.join(saved::STATE)).map_err(text)?;
        let save = async {
            making.monitor.stop().await?;
            making.monitor.save(state.into()).await
        };
        let saved = tokio::time::timeout(SAVE_DEADLINE, save).await;
        saved.map_err(|_| "it was not saved in time".to_owned())?.map_err(|error| error.to_string())?;
        drop(channel);
        making.end().await?;
        // The process that could write to it is gone.
        seal(&memory).map_err(|error| format!("its memory cannot be sealed: {error}"))?;
        Ok(memory)
    }

    /// A clone must come up and wait for its configuration as one that booted does.
    async fn try_clone(self: &Arc<Self>, shape: &Shape, template: &Template) -> Result<(), String> {
        let wrong = |error: io::Error| error.to_string();
        let origin = Saved::State(template.state().map_err(wrong)?);
        let memory = Memory::File { file: template.memory().map_err(wrong)?, share: false };
        let making = self.launch_template(shape, origin, memory, &template.folder).await?;
        let channel = making.hello(CLONE_DEADLINE).await.map_err(|why| format!("its first clone failed: {why}"))?;
        drop(channel);
        making.end().await
    }

    /// Runs to its end even when nobody waits for it any more, and ends what it started then.
    async fn launch_template(
        self: &Arc<Self>,
        shape: &Shape,
        saved: Saved,
        memory: Memory,
        folder: &Path,
    ) -> Result<Making, String> {
        let (context, shape, folder) = (self.clone(), shape.clone(), folder.to_owned());
        let launch = async move { context.launch_placeholder(&shape, &saved, memory, &folder).await };
        tokio::spawn(launch).await.map_err(|error| error.to_string())?
    }

    async fn launch_placeholder(
        &self,
        shape: &Shape,
        saved: &Saved,
        memory: Memory,
        folder: &Path,
    ) -> Result<Making, String> {
        let text = |error: io::Error| error.to_string();
        file::create_folder(&self.mount_point(), 0o700).map_err(text)?;
        let disk = self::memory(PLACEHOLDER_BYTES).map_err(text)?;
        // The monitor takes a descriptor as it is to be used: the root one is for reading alone.
        let root = File::open(format!("/proc/self/fd/{}", disk.as_raw_fd())).map_err(text)?;
        let tap = shape.tap.then(tap::placeholder).transpose().map_err(|error| format!("its network: {error}"))?;
        let order = Launch {
            id: NAME,
            mark: &self.mark(NAME),
            // Below all machines' own, beside the probe's.
            uid: self.config.uid_base - 2,
            folder,
            mount_point: &self.mount_point(),
            hierarchy: &self.hierarchy,
            program: &self.program,
            origin: match saved {
                Saved::Nothing(kernel) => Origin::Kernel(kernel),
                Saved::State(state) => Origin::Saved(state.try_clone().map_err(text)?),
            },
            accelerator: shape.accelerator,
            vcpus: shape.vcpus,
            memory_bytes: shape.memory_bytes,
            memory,
            cpu_weight: CPU_WEIGHT,
            root: Some(root),
            scratch: shape.scratch.then_some(disk),
            tap: tap.map(|tap| (tap, PLACEHOLDER_MAC)),
        };
        let launched = launch::launch(order, |_| Ok(()), || Ok(())).await;
        Ok(Making::new(launched.map_err(|error: Error| error.to_string())?))
    }
}

/// What a machine with placeholders for devices goes on from.
enum Saved {
    Nothing(Kernel),
    State(File),
}

/// A process that is gone when this is dropped.
struct Making {
    process: Process,
    group: Group,
    monitor: qmp::Client,
    guest: Mutex<Option<tokio::net::UnixStream>>,
    /// What it says is of no use; a pipe that nobody holds would stop it.
    rest: (std::process::Child, OwnedFd, tokio::net::UnixStream, mpsc::Receiver<qmp::Event>),
}

impl Making {
    fn new(launched: Launched) -> Self {
        let Launched { process, child, group, monitor, events, console, guest, complaints } = launched;
        Self { process, group, monitor, guest: Mutex::new(Some(guest)), rest: (child, complaints, console, events) }
    }

    /// The guest's first words.
    async fn hello(&self, deadline: Duration) -> Result<Channel, String> {
        let guest = self.guest.lock().take().ok_or("its guest was heard already")?;
        let channel = tokio::select! {
            channel = Channel::over(guest, deadline) => channel.map_err(|error| error.to_string())?,
            () = self.process.ended() => return Err("its process ended".to_owned()),
        };
        let hello = channel.hello();
        if hello.configured || hello.state.phase != Phase::Waiting {
            return Err("it does not wait for its configuration".to_owned());
        }
        Ok(channel)
    }

    async fn end(mut self) -> Result<(), String> {
        self.process.kill();
        if !self.process.ended_within(END_DEADLINE).await {
            return Err("its process does not end".to_owned());
        }
        let _ = self.rest.0.wait();
        self.group.remove().await.map_err(|error| error.to_string())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// A file in memory, all zeros.
fn memory(bytes: u64) -> io::Result<File> {
    let file: File = memfd_create(c"vt-template", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into();
    file.set_len(bytes)?;
    Ok(file)
}

/// From now on nobody writes to it, by whatever descriptor.
fn seal(memory: &File) -> io::Result<()> {
    Ok(fcntl_add_seals(memory, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?)
}

/// Everything that must be equal, and whose it is.
fn key(prepared: &Prepared, owner: &str, shape: &Shape) -> String {
    let shape = serde_json::to_vec(shape).expect("a shape is always JSON");
    let kernel = prepared.kernel.id();
    let digest = Sha256::new().chain_update(owner).chain_update([0]).chain_update(kernel).chain_update([0]);
    hex(&digest.chain_update(shape).finalize()[..12])
}

/// Of this boot of the host with its kernel and monitor: templates of another are of no use.
fn stamp(context: &Context, prepared: &Prepared) -> String {
    let digest = Sha256::new().chain_update(record::host_boot_id()).chain_update(prepared.kernel.id());
    hex(&digest.chain_update(context.program.identity()).finalize()[..6])
}

/// From the disk into memory. `None` where there is none, or it is too old.
fn load(folder: &Path, key: &str, shape: &Shape, now_ms: u64) -> Result<Option<Arc<Template>>, String> {
    let Some(manifest) = Manifest::read(folder).map_err(|error| error.to_string())? else { return Ok(None) };
    if let Some(why) = manifest.shape.differs(shape) {
        return Err(why);
    }
    if now_ms.saturating_sub(manifest.saved_at_ms) >= AGE_MS_MAX {
        return Ok(None);
    }
    manifest.verify(folder)?;
    let read = || {
        let memory = memory(shape.memory_bytes)?;
        scratch::copy_data(&File::open(folder.join(saved::MEMORY))?, &memory)?;
        seal(&memory)?;
        Ok::<_, io::Error>((File::open(folder.join(saved::STATE))?, memory))
    };
    let (state, memory) = read().map_err(|error| error.to_string())?;
    let (key, folder, made_at_ms) = (key.to_owned(), folder.to_owned(), manifest.saved_at_ms);
    Ok(Some(Arc::new(Template { key, folder, state, memory, made_at_ms })))
}

fn move_over(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(from, to)?;
    match to.parent() {
        Some(parent) => file::sync_folder(parent),
        None => Ok(()),
    }
}

impl Context {
    /// Before the first machine starts: removes what is of no use to this engine.
    pub(crate) fn sweep_templates(&self, prepared: &Prepared) {
        let folder = self.templates();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(MAKING_PREFIX) {
                let _ = fs::remove_dir_all(entry.path());
                let _ = fs::remove_file(entry.path());
            }
        }
        trim(&folder, &stamp(self, prepared));
    }
}

/// Removes what another boot, kernel or monitor left, and what is over the budget, oldest first.
fn trim(folder: &Path, stamp: &str) {
    let ours = format!("{FOLDER_PREFIX}{stamp}-");
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with(&ours) {
            let made = entry.metadata().and_then(|metadata| metadata.modified());
            kept.push((made.ok(), entry.path(), disk_bytes(&entry.path())));
        } else if name.starts_with(FOLDER_PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    kept.sort_unstable();
    let mut total: u64 = kept.iter().map(|(_, _, bytes)| bytes).sum();
    for (_, path, bytes) in kept {
        if total <= DISK_BYTES_MAX {
            return;
        }
        tracing::info!(path = %path.display(), "a template is removed: all together take too much of the disk");
        let _ = fs::remove_dir_all(&path);
        total -= bytes;
    }
}

/// What the files in it take of the disk.
fn disk_bytes(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}
