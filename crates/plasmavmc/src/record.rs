//! What is kept of a machine on disk: `machine.json` in its folder, replaced whole and synced at each change.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use world::file;

use crate::qemu::Accelerator;
use crate::seen::{End, Origin};
use crate::spec::Spec;

/// Changes when an older program could no longer read what is written.
const FORMAT: u32 = 1;
const NAME: &str = "machine.json";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub format: u32,
    /// Without secrets.
    pub spec: Spec,
    pub salt: String,
    pub fingerprint: String,
    /// Starts of its process so far.
    pub boots: u64,
    /// It is to run.
    pub wanted: bool,
    /// The process that was started last, until its end was seen.
    pub run: Option<Run>,
    /// Its virtual CPUs are to stand still, if they do; a machine that runs may say it still.
    #[serde(default)]
    pub paused: bool,
    /// It was saved; written when all of it is on the disk, and gone before the first instruction after that.
    #[serde(default)]
    pub asleep: Option<Asleep>,
    pub end: Option<End>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asleep {
    pub since_ms: u64,
    /// Of the run that was saved; it goes on under this name.
    pub boot_id: String,
    pub started_at_ms: u64,
}

/// One process, so described that it is known again and never mistaken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Of this attempt; random.
    pub boot_id: String,
    /// On the process's command line.
    pub mark: String,
    pub pid: u32,
    /// Clock ticks between the host's boot and the process's start.
    pub started_ticks: u64,
    /// The host's boot; no process outlives it.
    pub host_boot_id: String,
    pub started_at_ms: u64,
    pub accelerator: Accelerator,
    #[serde(default)]
    pub origin: Origin,
}

impl Record {
    pub fn new(spec: &Spec) -> Self {
        let salt = world::random::hex(16);
        let fingerprint = spec.fingerprint(&salt);
        let spec = spec.without_secrets();
        Self {
            format: FORMAT,
            spec,
            salt,
            fingerprint,
            boots: 0,
            wanted: true,
            run: None,
            paused: false,
            asleep: None,
            end: None,
        }
    }

    pub fn wish(&mut self, spec: &Spec) {
        self.fingerprint = spec.fingerprint(&self.salt);
        self.spec = spec.without_secrets();
    }

    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).map_err(io::Error::from)?;
        file::write_atomic(&folder.join(NAME), &bytes, 0o600)
    }

    /// `None` where there is none. An error when there is one that cannot be read.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = file::read_optional(&folder.join(NAME))? else { return Ok(None) };
        let record: Self = serde_json::from_slice(&bytes).map_err(io::Error::from)?;
        if record.format != FORMAT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("its format is {}", record.format)));
        }
        Ok(Some(record))
    }
}

/// Changes with each boot of the host.
pub(crate) fn host_boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seen::EndCode;
    use crate::spec::tests::sample;
    use model::guest::Hidden;

    #[test]
    fn a_record_comes_back_without_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(folder.path()).unwrap(), None);
        let mut spec = sample("vm_1");
        spec.guest.secrets = Some(Hidden::new("# VT_SECRETS_V1\nKEY=canary\n"));
        let mut record = Record::new(&spec);
        record.end = Some(End { code: EndCode::OomKilled, detail: String::new(), at_ms: 5 });
        record.write(folder.path()).unwrap();
        assert_eq!(Record::read(folder.path()).unwrap(), Some(record.clone()));
        let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
        assert!(!text.contains("canary"), "{text}");
        assert_eq!(record.fingerprint, spec.fingerprint(&record.salt));
        fs::write(folder.path().join(NAME), "{").unwrap();
        assert!(Record::read(folder.path()).is_err());
    }
}
