//! The one secrets file, readable by the workload's user alone, on memory and never on a disk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};

use model::guest::{Config, FailureCode};

use crate::failure::{Context, Failure};
use crate::user::Identity;

const DIR: &str = "/run/secrets";
const FILE: &str = "/run/secrets/platform.env";
const TEMPORARY: &str = "/run/secrets/.platform.env.new";

/// # Errors
/// `secrets_missing` when they are required and absent, `secrets_write_failed` when the file cannot be made.
pub fn write(config: &Config, owner: &Identity) -> Result<(), Failure> {
    let Some(text) = &config.secrets else {
        if config.secrets_required {
            return Err(Failure::new(FailureCode::SecretsMissing, "the manifest requires secrets and none are set"));
        }
        return Ok(());
    };
    let code = FailureCode::SecretsWriteFailed;
    fs::create_dir_all(DIR).context(code, "create /run/secrets")?;
    fs::set_permissions(DIR, fs::Permissions::from_mode(0o755)).context(code, "open /run/secrets")?;
    let _ = fs::remove_file(TEMPORARY);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(TEMPORARY);
    let mut file = file.context(code, "create platform.env")?;
    file.write_all(text.reveal().as_bytes()).context(code, "write platform.env")?;
    chown(TEMPORARY, Some(owner.uid), Some(owner.gid)).context(code, "give platform.env to its user")?;
    fs::rename(TEMPORARY, FILE).context(code, "place platform.env")
}
