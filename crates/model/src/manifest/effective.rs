//! What a process runs with: its own settings over those of the env.

use std::collections::BTreeMap;

use super::{Env, Process};

/// A process's settings after the env's were laid under them. Where a value is absent, the image's own holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    pub vars: BTreeMap<String, String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    /// Empty for none.
    pub prestart: Vec<String>,
    pub prestart_timeout_seconds: u32,
}

impl Process {
    pub fn effective(&self, env: &Env) -> Effective {
        let mut vars = env.vars.clone();
        vars.extend(self.vars.clone());
        Effective {
            vars,
            workdir: self.workdir.clone().or_else(|| env.workdir.clone()),
            user: self.user.clone().or_else(|| env.user.clone()),
            prestart: self.prestart.clone().unwrap_or_else(|| env.prestart.clone()),
            prestart_timeout_seconds: env.prestart_timeout_seconds,
        }
    }
}
