//! Making a machine run.

use std::fs::File;
use std::sync::Arc;

use world::file;

use super::{Live, Machine, SCRATCH_FILE};
use crate::Error;
use crate::context::Prepared;
use crate::launch::{self, Launch};
use crate::record::{self, Run};
use crate::seen::{End, EndCode, Phase};
use crate::spec::Spec;
use crate::{console, scratch, tap};

impl Machine {
    /// See [`crate::Engine::ensure`]. Runs to its end once begun.
    pub async fn ensure(self: &Arc<Self>, spec: Spec, prepared: &Prepared) -> Result<(), Error> {
        let _turn = self.gate.lock().await;
        let (known, same, live) = {
            let state = self.state.lock();
            let same = state.record.fingerprint == spec.fingerprint(&state.record.salt);
            (state.record.spec.generation, same, state.live.clone())
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
                return Ok(());
            }
            let grace_seconds = self.state.lock().record.spec.guest.process.grace_seconds;
            self.end_run(&live, grace_seconds).await?;
        }
        self.start(spec, prepared).await
    }

    async fn start(self: &Arc<Self>, spec: Spec, prepared: &Prepared) -> Result<(), Error> {
        let _slot = self
            .context
            .starts
            .acquire()
            .await
            .map_err(|error| Error::Start { id: self.id.clone(), why: error.to_string() })?;
        {
            // Written together with the process, or with the reason why there is none.
            let mut state = self.state.lock();
            state.record.wish(&spec);
            state.record.wanted = true;
            state.record.boots += 1;
            state.spec = Some(spec.clone());
            state.guest = None;
        }
        self.enter(Phase::Starting);
        let started = self.make(&spec, prepared).await;
        if let Err(error) = &started {
            tracing::warn!(id = %self.id, %error, "a machine did not start");
            let end = End { code: EndCode::StartFailed, detail: error.to_string(), at_ms: self.context.clock.now_ms() };
            // The error itself goes to the caller; the record is for those who look later.
            let _ = self.keep(|record| {
                record.run = None;
                record.end = Some(end);
            });
            self.enter(Phase::Failed);
        }
        started
    }

    async fn make(self: &Arc<Self>, spec: &Spec, prepared: &Prepared) -> Result<(), Error> {
        let id = &self.id;
        let disk = |path: &std::path::Path| {
            let path = path.to_owned();
            move |source| Error::Disk { id: id.clone(), path, source }
        };
        let root = File::open(&spec.root_image).map_err(disk(&spec.root_image))?;
        let scratch = match spec.scratch_bytes {
            0 => None,
            bytes => {
                let template = scratch::template(&self.context.templates(), bytes).await?;
                let path = self.folder.join(SCRATCH_FILE);
                Some(scratch::copy(&template, &path).map_err(disk(&path))?)
            }
        };
        let tap = match &spec.tap {
            Some(name) => {
                let opened =
                    tap::open(name).map_err(|source| Error::Tap { id: id.clone(), tap: name.clone(), source })?;
                Some((opened, spec.mac.as_str()))
            }
            None => None,
        };
        console::clear(&self.folder);
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
            kernel: &prepared.kernel,
            accelerator: prepared.accelerator,
            vcpus: spec.vcpus,
            memory_bytes: spec.memory_bytes,
            cpu_weight: spec.cpu_weight,
            root: Some(root),
            scratch,
            tap,
        };
        let run = |pid, started_ticks| Run {
            boot_id: world::random::hex(16),
            mark: mark.clone(),
            pid,
            started_ticks,
            host_boot_id: record::host_boot_id(),
            started_at_ms: self.context.clock.now_ms(),
            accelerator: prepared.accelerator,
        };
        let launched = launch::launch(order, |process| {
            self.keep(|record| record.run = Some(run(process.pid, process.started_ticks)))
        });
        let launched = launched.await?;
        let live = Live::new(launched.process, launched.group, Some(launched.monitor));
        {
            let mut state = self.state.lock();
            state.live = Some(live.clone());
            state.phase = Phase::Running;
        }
        self.watch(
            live,
            Some(launched.child),
            Some(launched.complaints),
            Some(launched.events),
            Some(launched.console),
        );
        self.changed();
        Ok(())
    }
}
