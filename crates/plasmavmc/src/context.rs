//! What all machines of one engine share.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, broadcast};
use world::Clock;

use crate::config::Config;
use crate::jail::cgroup::Hierarchy;
use crate::kernel::Kernel;
use crate::machine::Machine;
use crate::qemu::{Accelerator, Program};
use crate::saved::Shape;
use crate::spec::Spec;
use crate::template::Templates;

/// Changes that a slow listener may leave untaken before it is told that it lags.
pub(crate) const CHANGES_MAX: usize = 1024;
/// Processes being made at the same time. More would only take turns, and each holds its memory while it waits.
pub(crate) const STARTS_MAX: usize = 4;

pub(crate) struct Context {
    pub config: Config,
    pub hierarchy: Hierarchy,
    pub program: Program,
    pub prepared: OnceCell<Prepared>,
    pub clock: Clock,
    pub changes: broadcast::Sender<String>,
    pub starts: Semaphore,
    pub machines: Mutex<BTreeMap<String, Arc<Machine>>>,
    pub machine_templates: Templates,
    /// Held for as long as the engine lives: one engine per folder.
    pub _lock: File,
}

/// What [`crate::Handle::prepare`] finds out.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub kernel: Kernel,
    pub accelerator: Accelerator,
    pub why: String,
}

impl Context {
    pub fn changed(&self, id: &str) {
        // Nobody listening is no failure.
        let _ = self.changes.send(id.to_owned());
    }

    /// Over this empty folder each jail mounts its root.
    pub fn mount_point(&self) -> PathBuf {
        self.config.state_dir.join(".root")
    }

    pub fn templates(&self) -> PathBuf {
        self.config.state_dir.join(".templates")
    }

    pub fn folder(&self, id: &str) -> PathBuf {
        self.config.state_dir.join(id)
    }

    /// The shape of a machine of this specification.
    pub fn shape(&self, spec: &Spec, accelerator: Accelerator) -> Shape {
        Shape {
            monitor: self.program.identity(),
            accelerator,
            vcpus: spec.vcpus,
            memory_bytes: spec.memory_bytes,
            scratch: spec.scratch_bytes > 0,
            tap: spec.tap.is_some(),
        }
    }

    /// What stands on the command line of a machine's process.
    pub fn mark(&self, id: &str) -> String {
        format!("vt-{}-{id}", self.config.instance_tag)
    }
}
