//! `vt.toml`, version v1: what an app is made of.
//!
//! The CLI and the server read it through the same door, so that they refuse the same things in the same words:
//!
//! ```text
//! text  -> tree (positions) ┐
//!                           ├-> shape (keys, types) -> types (defaults) -> validate (limits) -> Manifest
//! JSON  -> tree             ┘
//! Manifest -> canonical text -> hash
//! ```
//!
//! Unknown keys are errors everywhere: a typing mistake that is silently ignored is worse than one that is refused.

mod canonical;
mod effective;
mod nearest;
mod shape;
#[cfg(test)]
mod tests;
mod tree;
mod types;
mod validate;

use crate::Error;

pub use self::effective::Effective;
pub use self::nearest::nearest;
pub use self::types::{
    App, Env, Filesystem, Health, HealthType, Image, Manifest, Mount, Port, PortRef, Process, Protocol, PullPolicy,
    Resources, Restart, RestartPolicy, Scaling, SecretsNeed, Volume,
};

/// The one schema version this program reads.
pub const SCHEMA_VERSION: &str = "v1";
/// The longest manifest that is read.
pub const BYTES_MAX: usize = 256 << 10;
/// Where the manifest lies when nobody says otherwise.
pub const FILE_NAME: &str = "vt.toml";
/// Where the secrets bundle appears inside a guest.
pub const SECRETS_PATH: &str = "/run/secrets/platform.env";

/// Reads a manifest from its text.
///
/// # Errors
/// `invalid_argument` whose message ends with the line and column, whose `field` is the path of the field, and whose
/// hint shows the nearest right form. The writer of the manifest can mend each of them.
pub fn parse(text: &str) -> Result<Manifest, Error> {
    if text.len() > BYTES_MAX {
        let message = format!("the manifest has {} bytes; at most {BYTES_MAX} are read", text.len());
        return Err(Error::invalid("manifest", message).hint("move what is not configuration out of it"));
    }
    let root = tree::from_toml(text)?;
    from_tree(&root).map_err(|error| tree::locate(error, &root, text))
}

/// Reads a manifest from JSON, as the API carries it. The same rules and the same words, without line numbers.
pub fn from_json(value: &serde_json::Value) -> Result<Manifest, Error> {
    from_tree(&tree::from_json(value))
}

fn from_tree(root: &tree::Node) -> Result<Manifest, Error> {
    shape::check(root)?;
    let manifest: Manifest = serde_json::from_value(root.to_json())
        .map_err(|error| Error::invalid("manifest", format!("the manifest cannot be read: {error}")))?;
    manifest.validate()?;
    Ok(manifest)
}

impl Manifest {
    /// Checks every limit. What [`parse`] and [`from_json`] return has passed.
    pub fn validate(&self) -> Result<(), Error> {
        validate::manifest(self)
    }

    /// The one text of this manifest: fixed order, defaults left out. Reads back as the same manifest.
    pub fn canonical(&self) -> String {
        canonical::text(self)
    }

    /// SHA-256 of the canonical text, in lower-case hexadecimal.
    pub fn hash(&self) -> String {
        use sha2::{Digest as _, Sha256};
        use std::fmt::Write as _;
        Sha256::digest(self.canonical()).iter().fold(String::with_capacity(64), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }
}
