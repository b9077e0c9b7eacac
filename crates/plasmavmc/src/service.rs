//! The engine's front: one table of machines, opened over what an earlier one left.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::future::Future;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{OnceCell, Semaphore, broadcast};
use world::{Clock, file};

use crate::channel;
use crate::config::Config;
use crate::context::{CHANGES_MAX, Context, Prepared, STARTS_MAX};
use crate::engine::{Capabilities, Engine, ExecRequest, Facts};
use crate::jail::cgroup::Hierarchy;
use crate::kernel::{self, Progress};
use crate::logs::{LineStream, LogQuery};
use crate::machine::Machine;
use crate::qemu::{self, Accelerator, Program};
use crate::record::Record;
use crate::spec::is_id;
use crate::template::Templates;
use crate::{Error, Seen, Spec, console, probe};

/// Looks at what still holds a folder that is let go.
const CLOSE_ROUNDS_MAX: u32 = 200;
const CLOSE_ROUND: Duration = Duration::from_millis(5);

/// Opens engines.
#[derive(Debug)]
pub struct Service;

/// The QEMU engine. Clones share it.
#[derive(Clone)]
pub struct Handle {
    context: Arc<Context>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("state_dir", &self.context.config.state_dir).finish_non_exhaustive()
    }
}

impl Service {
    /// Takes back the machines that run, notes those that ended meanwhile, and removes what belongs to none. Fetches
    /// nothing: see [`Handle::prepare`].
    ///
    /// # Errors
    /// Not root, no cgroups, no QEMU; or another engine has the folder.
    pub async fn open(config: Config) -> Result<Handle, Error> {
        let folder = config.state_dir.clone();
        let tag = &config.instance_tag;
        if !(1..=8).contains(&tag.len()) || !tag.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let why = format!("the installation's tag {tag:?} is not 1 to 8 hex digits");
            return Err(Error::Cgroups { why });
        }
        let state = |source| Error::StateFolder { path: folder.clone(), source };
        file::create_folder(&folder, 0o700).map_err(state)?;
        let lock = folder.join("lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(lock).map_err(state)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::StateFolderTaken { path: folder }),
            Err(error) => return Err(state(error.into())),
            Ok(()) => {}
        }
        let hierarchy = Hierarchy::detect(tag)?;
        let program = Program::find().await?;
        let context = Arc::new(Context {
            hierarchy,
            program,
            prepared: OnceCell::new(),
            clock: Clock::real(),
            changes: broadcast::Sender::new(CHANGES_MAX),
            starts: Semaphore::new(STARTS_MAX),
            machines: parking_lot::Mutex::default(),
            machine_templates: Templates::default(),
            _lock: lock,
            config,
        });
        let handle = Handle { context };
        handle.take_over().await?;
        Ok(handle)
    }
}

impl Handle {
    /// Makes the kernel ready and finds out whether KVM works; needs the network at most once. Done by the first
    /// [`Engine::ensure`] otherwise. Callers at the same time wait for the one that works.
    pub async fn prepare(&self, progress: Progress<'_>) -> Result<Facts, Error> {
        self.prepared(progress).await?;
        Ok(self.facts())
    }

    /// Ends what this engine does beside its machines and lets go of the folder; the machines run on and the next
    /// [`Service::open`] takes them back. Clones of this handle know no machine any more. Without it all of that happens
    /// when the program ends, in whatever way.
    pub async fn close(self) {
        self.context.machine_templates.close().await;
        let machines = std::mem::take(&mut *self.context.machines.lock());
        for machine in machines.values() {
            machine.let_go().await;
        }
        drop(machines);
        // Goes only when no machine is left in it.
        self.context.hierarchy.remove_ours();
        // Tasks that were told to end hold the folder until they are polled once more; clones hold it longer.
        for _ in 0..CLOSE_ROUNDS_MAX {
            if Arc::strong_count(&self.context) == 1 {
                return;
            }
            tokio::time::sleep(CLOSE_ROUND).await;
        }
    }

    async fn prepared(&self, progress: Progress<'_>) -> Result<&Prepared, Error> {
        let context = &self.context;
        let prepare = || async {
            let config = &context.config;
            let kernel =
                kernel::prepare(&config.kernel_dir, &config.kernel_source, config.guest_init, progress).await?;
            let (accelerator, why) = probe::choose(context, &kernel, progress).await?;
            let prepared = Prepared { kernel, accelerator, why };
            context.sweep_templates(&prepared);
            Ok(prepared)
        };
        context.prepared.get_or_try_init(prepare).await
    }

    async fn take_over(&self) -> Result<(), Error> {
        let context = &self.context;
        let folder = &context.config.state_dir;
        let entries = fs::read_dir(folder).map_err(|source| Error::StateFolder { path: folder.clone(), source })?;
        let names =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_id(name));
        for name in names {
            let path = folder.join(&name);
            if !path.is_dir() {
                continue;
            }
            match Record::read(&path) {
                Ok(Some(record)) if record.spec.id == name => {
                    let machine = Machine::new(context.clone(), record)?;
                    machine.adopt().await;
                    context.machines.lock().insert(name, machine);
                }
                // A folder without a record: its machine was never acknowledged, or was being removed.
                Ok(_) => {
                    let _ = fs::remove_dir_all(&path);
                }
                // Not ours to judge: kept for people, and nothing of it runs.
                Err(error) => tracing::error!(%error, path = %path.display(), "the record of a machine cannot be read"),
            }
        }
        let alive: BTreeSet<String> = {
            let machines = context.machines.lock();
            machines.values().filter(|machine| machine.is_active()).map(|machine| machine.id.clone()).collect()
        };
        for name in context.hierarchy.names() {
            if !alive.contains(&name) {
                tracing::info!(%name, "removing what is left of a machine");
                let removed = context.hierarchy.group(&name).remove().await;
                removed.map_err(|error| Error::Cgroups { why: format!("{name}: {error}") })?;
            }
        }
        Ok(())
    }

    fn machine(&self, id: &str) -> Result<Arc<Machine>, Error> {
        let machines = self.context.machines.lock();
        machines.get(id).cloned().ok_or_else(|| Error::Unknown { id: id.to_owned() })
    }

    /// The machine of this specification, made when it is new.
    fn admit(&self, spec: &Spec) -> Result<Arc<Machine>, Error> {
        let context = &self.context;
        spec.check(context.config.uid_base)?;
        let mut machines = context.machines.lock();
        let refuse = |why: String| Err(Error::Spec { id: spec.id.clone(), why });
        if let Some(other) = machines.values().find(|other| other.id != spec.id && other.uid() == spec.uid) {
            return refuse(format!("user {} is machine {}'s", spec.uid, other.id));
        }
        let active = machines.values().filter(|other| other.id != spec.id && other.is_active()).count();
        if active >= context.config.vms_max {
            return Err(Error::TooMany { count: active });
        }
        if let Some(machine) = machines.get(&spec.id) {
            return Ok(machine.clone());
        }
        let folder = context.folder(&spec.id);
        let failed = |source| Error::State { id: spec.id.clone(), path: folder.clone(), source };
        file::create_folder(&folder, 0o700).map_err(failed)?;
        let record = Record::new(spec);
        record.write(&folder).map_err(failed)?;
        let machine = Machine::new(context.clone(), record)?;
        machines.insert(spec.id.clone(), machine.clone());
        Ok(machine)
    }
}

/// Runs an act to its end even when its caller stops waiting: half an act would leave half a machine.
async fn to_the_end<F>(id: &str, act: F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    match tokio::spawn(act).await {
        Ok(result) => result,
        Err(error) => Err(Error::Start { id: id.to_owned(), why: error.to_string() }),
    }
}

#[async_trait]
impl Engine for Handle {
    fn facts(&self) -> Facts {
        let context = &self.context;
        let prepared = context.prepared.get();
        let accelerator = prepared.map_or(Accelerator::Tcg, |prepared| prepared.accelerator);
        Facts {
            engine: "qemu",
            engine_version: context.program.version.clone(),
            accelerator: prepared.map_or("unknown", |prepared| prepared.accelerator.as_str()),
            accelerator_why: prepared.map_or_else(|| "not tried yet".to_owned(), |prepared| prepared.why.clone()),
            kernel_version: prepared.map(|prepared| prepared.kernel.version.clone()).unwrap_or_default(),
            cgroups: context.hierarchy.version(),
            overhead_bytes: qemu::memory_limit(accelerator, 1 << 30) - (1 << 30),
            can: Capabilities { adopt: true, pause: true, snapshot: true, ..Capabilities::default() },
        }
    }

    async fn ensure(&self, spec: Spec) -> Result<(), Error> {
        spec.check(self.context.config.uid_base)?;
        let prepared = self.prepared(&|_| ()).await?.clone();
        let machine = self.admit(&spec)?;
        let id = spec.id.clone();
        to_the_end(&id, async move { machine.ensure(spec, &prepared).await }).await
    }

    async fn pause(&self, id: &str) -> Result<(), Error> {
        let machine = self.machine(id)?;
        to_the_end(id, async move { machine.pause().await }).await
    }

    async fn resume(&self, id: &str) -> Result<(), Error> {
        let machine = self.machine(id)?;
        to_the_end(id, async move { machine.resume().await }).await
    }

    async fn sleep(&self, id: &str) -> Result<(), Error> {
        let machine = self.machine(id)?;
        to_the_end(id, async move { machine.sleep().await }).await
    }

    async fn stop(&self, id: &str, grace_seconds: u32) -> Result<(), Error> {
        let Ok(machine) = self.machine(id) else { return Ok(()) };
        to_the_end(id, async move { machine.stop(grace_seconds).await }).await
    }

    async fn destroy(&self, id: &str) -> Result<(), Error> {
        let Ok(machine) = self.machine(id) else { return Ok(()) };
        let context = self.context.clone();
        let act = async move {
            machine.destroy().await?;
            // Another machine of this id may have taken the place while this one waited for its turn.
            let mut machines = context.machines.lock();
            if machines.get(&machine.id).is_some_and(|now| Arc::ptr_eq(now, &machine)) {
                machines.remove(&machine.id);
            }
            drop(machines);
            context.changed(&machine.id);
            Ok(())
        };
        to_the_end(id, act).await
    }

    fn list(&self) -> Vec<String> {
        self.context.machines.lock().keys().cloned().collect()
    }

    fn observe(&self, id: &str) -> Option<Seen> {
        self.machine(id).ok().map(|machine| machine.observe())
    }

    async fn exec(&self, id: &str, request: ExecRequest) -> Result<channel::Session, Error> {
        self.machine(id)?.exec(request).await
    }

    fn logs(&self, id: &str, query: LogQuery) -> Result<LineStream, Error> {
        let log = |source| Error::Log { id: id.to_owned(), source };
        self.machine(id)?.logs.read(query).map_err(log)
    }

    fn console_tail(&self, id: &str, bytes_max: usize) -> Result<String, Error> {
        let log = |source| Error::Log { id: id.to_owned(), source };
        console::tail(&self.machine(id)?.folder, bytes_max).map_err(log)
    }

    fn changes(&self) -> broadcast::Receiver<String> {
        self.context.changes.subscribe()
    }
}
