//! Making a machine run.
//!
//! ```text
//!   asleep          its own memory; what was saved is verified first
//!   else            a clone of its shape's template, when it has an owner and there is one
//!   else, or after  the kernel's first instruction
//!   these failed
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use world::file;

use super::{Live, Machine, SCRATCH_FILE};
use crate::Error;
use crate::context::Prepared;
use crate::launch::{self, Launch, Launched, Memory};
use crate::record::{self, Run};
use crate::saved::{self, Manifest};
use crate::seen::{End, EndCode, Origin, Phase, Start};
use crate::spec::Spec;
use crate::template::Template;
use crate::{console, scratch, tap};

/// What a start begins with.
enum Beginning {
    Boot,
    Template(Arc<Template>),
    Sleep(Manifest),
}

impl Beginning {
    fn start(&self) -> Start {
        match self {
            Beginning::Boot => Start::Boot,
            Beginning::Template(_) => Start::Template,
            Beginning::Sleep(_) => Start::Sleep,
        }
    }
}

impl Machine {
    /// See [`crate::Engine::ensure`]. Runs to its end once begun.
    pub async fn ensure(self: &Arc<Self>, spec: Spec, prepared: &Prepared) -> Result<(), Error> {
        let _turn = self.gate.lock().await;
        let (known, same, live, phase) = {
            let state = self.state.lock();
            let same = state.record.fingerprint == spec.fingerprint(&state.record.salt);
            (state.record.spec.generation, same, state.live.clone(), state.phase)
        };
        if spec.generation < known {
            return Err(Error::StaleGeneration { id: self.id.clone(), given: spec.generation, known });
        }
        if let Some(live) = live {
            let ending = live.verdict.lock().is_some();
            if same && !ending && live.process.alive() {
                let wanted = self.state.lock().record.wanted;
                if spec.generation != known || !wanted {
                    self.keep(|record| {
                        record.wish(&spec);
                        record.wanted = true;
                    })?;
                    self.changed();
                }
                self.state.lock().spec = Some(spec);
                live.told.notify_one();
                if phase == Phase::Warm
                    && let Some(monitor) = &live.monitor
                {
                    self.go_on(monitor).await?;
                }
                return Ok(());
            }
            let grace_seconds = self.state.lock().record.spec.guest.process.grace_seconds;
            self.end_run(&live, grace_seconds).await?;
        }
        self.start(spec, prepared, same).await
    }

    async fn start(self: &Arc<Self>, spec: Spec, prepared: &Prepared, same: bool) -> Result<(), Error> {
        let _slot = self
            .context
            .starts
            .acquire()
            .await
            .map_err(|error| Error::Start { id: self.id.clone(), why: error.to_string() })?;
        let asleep = {
            // Written together with the process, or with the reason why there is none.
            let mut state = self.state.lock();
            state.record.wish(&spec);
            state.record.wanted = true;
            state.record.paused = false;
            state.spec = Some(spec.clone());
            state.guest = None;
            state.record.asleep.is_some()
        };
        self.enter(Phase::Starting);
        let started = self.begin(&spec, prepared, asleep, same).await;
        if let Err(error) = &started {
            tracing::warn!(id = %self.id, %error, "a machine did not start");
            let end = End { code: EndCode::StartFailed, detail: error.to_string(), at_ms: self.context.clock.now_ms() };
            // The error itself goes to the caller; the record is for those who look later.
            let _ = self.keep(|record| {
                record.run = None;
                record.end = Some(end);
            });
            let sleeps_on = self.state.lock().record.asleep.is_some();
            self.enter(if sleeps_on { Phase::Sleeping } else { Phase::Failed });
        }
        self.context.machine_templates.tidy(self.context.clock.now_ms());
        started
    }

    /// The fastest way that works. What does not is said with the way that did.
    async fn begin(self: &Arc<Self>, spec: &Spec, prepared: &Prepared, asleep: bool, same: bool) -> Result<(), Error> {
        let mut why = String::new();
        if asleep {
            let saved =
                if same { self.wakeable(spec, prepared).await } else { Err("its specification changed".to_owned()) };
            let woken = match saved {
                Ok(manifest) => self.make(spec, prepared, Beginning::Sleep(manifest), "").await,
                Err(why) => Err(Error::Wake { id: self.id.clone(), why }),
            };
            match woken {
                Ok(()) => return Ok(()),
                // What is missing is not what was saved: it sleeps on, and may be woken later.
                Err(error) if !matches!(error, Error::Start { .. } | Error::Wake { .. }) => return Err(error),
                Err(error) => {
                    tracing::warn!(id = %self.id, %error, "a sleeping machine boots");
                    why = error.to_string();
                }
            }
            // It is another boot from here on.
            self.keep(|record| record.asleep = None)?;
        }
        saved::discard(&self.folder).map_err(|source| {
            let path = self.folder.clone();
            Error::State { id: self.id.clone(), path, source }
        })?;
        if let Some(owner) = &spec.owner {
            let shape = self.context.shape(spec, prepared.accelerator);
            match self.context.template(prepared, owner, &shape).await {
                Ok(template) => match self.make(spec, prepared, Beginning::Template(template.clone()), &why).await {
                    Err(Error::Start { why: failed, .. }) => {
                        self.context.machine_templates.spoil(&template, &failed, self.context.clock.now_ms());
                        why = join(&why, &format!("its template could not be used: {failed}"));
                    }
                    done => return done,
                },
                Err(absent) => why = join(&why, &absent),
            }
        }
        self.make(spec, prepared, Beginning::Boot, &why).await
    }

    /// What was saved, when the machine can go on from it. The error is the end of a sentence.
    async fn wakeable(&self, spec: &Spec, prepared: &Prepared) -> Result<Manifest, String> {
        let (folder, shape) = (self.folder.clone(), self.context.shape(spec, prepared.accelerator));
        let look = move || {
            let manifest = Manifest::read(&folder).map_err(|error| error.to_string())?;
            let manifest = manifest.ok_or("what was saved of it is gone")?;
            if let Some(why) = manifest.shape.differs(&shape) {
                return Err(why);
            }
            manifest.verify(&folder)?;
            Ok(manifest)
        };
        tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?
    }

    async fn make(
        self: &Arc<Self>,
        spec: &Spec,
        prepared: &Prepared,
        beginning: Beginning,
        why: &str,
    ) -> Result<(), Error> {
        let id = &self.id;
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Disk { id: id.clone(), path, source }
        };
        let root = File::open(&spec.root_image).map_err(disk(&spec.root_image))?;
        let scratch = self.scratch(spec, &beginning).await?;
        let tap = match &spec.tap {
            Some(name) => {
                let opened =
                    tap::open(name).map_err(|source| Error::Tap { id: id.clone(), tap: name.clone(), source })?;
                Some((opened, spec.mac.as_str()))
            }
            None => None,
        };
        let memory = self.memory(spec, &beginning).await.map_err(disk(&self.folder.join(saved::MEMORY)))?;
        let state = self.folder.join(saved::STATE);
        let origin = match &beginning {
            Beginning::Boot => launch::Origin::Kernel(&prepared.kernel),
            Beginning::Template(template) => {
                let opened = template.state();
                launch::Origin::Saved(opened.map_err(|error| Error::Start { id: id.clone(), why: error.to_string() })?)
            }
            Beginning::Sleep(_) => launch::Origin::Saved(File::open(&state).map_err(disk(&state))?),
        };
        let slept = self.state.lock().record.asleep.clone();
        if slept.is_none() {
            console::clear(&self.folder);
        }
        file::create_folder(&self.context.mount_point(), 0o700).map_err(disk(&self.context.mount_point()))?;
        let mark = self.context.mark(id);
        let order = Launch {
            id,
            mark: &mark,
            uid: spec.uid,
            folder: &self.folder,
            mount_point: &self.context.mount_point(),
            hierarchy: &self.context.hierarchy,
            program: &self.context.program,
            origin,
            accelerator: prepared.accelerator,
            vcpus: spec.vcpus,
            memory_bytes: spec.memory_bytes,
            memory,
            cpu_weight: spec.cpu_weight,
            root: Some(root),
            scratch,
            tap,
        };
        let now_ms = self.context.clock.now_ms();
        let run = |pid, started_ticks| Run {
            // A machine that wakes is the one that fell asleep.
            boot_id: slept.as_ref().map_or_else(|| world::random::hex(16), |slept| slept.boot_id.clone()),
            mark: mark.clone(),
            pid,
            started_ticks,
            host_boot_id: record::host_boot_id(),
            started_at_ms: slept.as_ref().map_or(now_ms, |slept| slept.started_at_ms),
            accelerator: prepared.accelerator,
            origin: Origin { from: beginning.start(), why: why.to_owned() },
        };
        let born = |process: &crate::process::Process| {
            self.keep(|record| {
                record.boots += u64::from(slept.is_none());
                record.run = Some(run(process.pid, process.started_ticks));
            })
        };
        // With the next instruction what was saved fits the machine no more.
        let going = || {
            if slept.is_none() {
                return Ok(());
            }
            self.keep(|record| record.asleep = None)?;
            saved::use_up(&self.folder).map_err(disk(&self.folder))
        };
        let launched = launch::launch(order, born, going).await?;
        self.live(launched);
        Ok(())
    }

    fn live(self: &Arc<Self>, launched: Launched) {
        let Launched { process, child, group, monitor, events, console, guest, complaints } = launched;
        let live = Live::new(process, group, Some(monitor));
        {
            let mut state = self.state.lock();
            state.live = Some(live.clone());
            state.phase = Phase::Running;
        }
        self.watch(live, Some(child), Some(complaints), Some(events), Some(console), Some(guest));
        self.changed();
    }

    /// The writable layer: empty, or as the sleeping machine left it.
    async fn scratch(&self, spec: &Spec, beginning: &Beginning) -> Result<Option<File>, Error> {
        let bytes = spec.scratch_bytes;
        if bytes == 0 {
            return Ok(None);
        }
        let path = self.folder.join(SCRATCH_FILE);
        if let Beginning::Sleep(_) = beginning {
            let opened = OpenOptions::new().read(true).write(true).open(&path);
            let gone = |error| Error::Wake { id: self.id.clone(), why: format!("its disk cannot be opened: {error}") };
            return opened.map(Some).map_err(gone);
        }
        let template = scratch::template(&self.context.templates(), bytes).await?;
        let copied = scratch::copy(&template, &path);
        copied.map(Some).map_err(|source| Error::Disk { id: self.id.clone(), path, source })
    }

    async fn memory(&self, spec: &Spec, beginning: &Beginning) -> io::Result<Memory> {
        let path = self.folder.join(saved::MEMORY);
        let file = match beginning {
            Beginning::Sleep(manifest) if manifest.has_memory() => {
                let file = OpenOptions::new().read(true).write(true).open(&path)?;
                // Its user may have been given another number since.
                std::os::unix::fs::fchown(&file, Some(spec.uid), Some(spec.uid))?;
                file
            }
            Beginning::Sleep(_) => return Ok(Memory::Own),
            Beginning::Boot | Beginning::Template(_) if spec.sleeps => {
                match reserve(&path, spec.memory_bytes, spec.uid) {
                    Ok(file) => file,
                    Err(error) => {
                        // It runs all the same; it will only fall asleep more slowly, if there is room then.
                        tracing::warn!(id = %self.id, %error, "there is no room on the disk for a machine's memory");
                        let _ = fs::remove_file(&path);
                        return self.memory_in_process(beginning);
                    }
                }
            }
            Beginning::Boot | Beginning::Template(_) => return self.memory_in_process(beginning),
        };
        let file = match beginning {
            Beginning::Template(template) => {
                let template = template.clone();
                let copy = move || template.copy_memory(&file).map(|()| file);
                tokio::task::spawn_blocking(copy).await??
            }
            Beginning::Boot | Beginning::Sleep(_) => file,
        };
        Ok(Memory::File { file: OwnedFd::from(file), share: true })
    }

    #[expect(clippy::unused_self, reason = "it stands beside its sibling")]
    fn memory_in_process(&self, beginning: &Beginning) -> io::Result<Memory> {
        Ok(match beginning {
            Beginning::Template(template) => Memory::File { file: template.memory()?, share: false },
            Beginning::Boot | Beginning::Sleep(_) => Memory::Own,
        })
    }
}

/// A file with room for all of the memory: a guest that writes where the disk has none left would be killed.
fn reserve(path: &Path, bytes: u64, uid: u32) -> io::Result<File> {
    let file = saved::create(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    std::os::unix::fs::fchown(&file, Some(uid), Some(uid))?;
    Ok(file)
}

fn join(one: &str, two: &str) -> String {
    if one.is_empty() { two.to_owned() } else { format!("{one}; {two}") }
}
