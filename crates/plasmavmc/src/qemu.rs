//! QEMU: how a machine is put on its command line, and what this host's QEMU can do.

mod argv;
mod tsc;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use world::process::{self, Run};

pub use argv::{Devices, KERNEL_AT, Memory, Origin, arguments, memory_limit};
pub use tsc::tsc_khz;

use crate::Error;

/// The program, looked for in `PATH`.
pub const PROGRAM: &str = "qemu-system-x86_64";
const VERSION_DEADLINE: Duration = Duration::from_secs(20);

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    Kvm,
    /// QEMU's own translator: works everywhere, some ten times slower.
    Tcg,
}

impl Accelerator {
    pub fn as_str(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

/// The QEMU of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Absolute, links resolved: what is found must also be there inside of the jail.
    pub path: PathBuf,
    /// As it says itself, for example `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)`.
    pub version: String,
    /// Tells builds of one version apart: the file's size and when it was written.
    pub build: String,
}

impl Program {
    /// Finds and asks it.
    pub async fn find() -> Result<Self, Error> {
        let folders = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin:/usr/local/bin".into());
        let found = std::env::split_paths(&folders)
            .map(|folder| folder.join(PROGRAM))
            .find_map(|path| path.canonicalize().ok());
        let missing = || Error::ProgramMissing { program: PROGRAM.to_owned() };
        let path = found.ok_or_else(missing)?;
        let broken = |why: String| Error::Program { program: PROGRAM.to_owned(), why };
        let run = Run::new(path.to_string_lossy()).args(["--version"]).deadline(VERSION_DEADLINE);
        let text = run.output().await.map_err(|error| match error {
            process::Error::Missing { .. } => missing(),
            other => broken(other.to_string()),
        })?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let version = version(&text).ok_or_else(|| broken("it does not tell its version".to_owned()))?;
        let metadata = path.metadata().map_err(|error| broken(error.to_string()))?;
        let build = format!("{}-{}.{}", metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { path, version, build })
    }

    /// The same for the same build alone.
    pub fn identity(&self) -> String {
        format!("{} [{}]", self.version, self.build)
    }

    /// True where the jail shows the program: below one of the system's folders.
    pub fn is_visible_in_jail(path: &Path) -> bool {
        ["/usr", "/bin", "/lib", "/nix/store"].iter().any(|folder| path.starts_with(folder))
    }
}

fn version(text: &str) -> Option<String> {
    let first = text.lines().next()?;
    Some(first.strip_prefix("QEMU emulator version ")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_its_first_line() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright (c) 2003-2022\n";
        assert_eq!(version(text).as_deref(), Some("7.2.22 (Debian 1:7.2+dfsg-7)"));
        assert_eq!(version("busybox"), None);
    }
}
