//! The file of contexts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use model::{Code, Error};
use serde::{Deserialize, Serialize};

/// The largest file that is read.
const BYTES_MAX: usize = 1 << 20;
/// It may hold tokens.
const MODE: u32 = 0o600;

/// Everything in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The context that is used when nobody names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One cloud and how to speak to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `https://HOST:PORT`.
    pub api: String,
    /// PEM file with the only authority that is trusted for this API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Instead of `token_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

/// Where the file is: `$VT_CONFIG`, else `vt/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`.
pub fn path(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(path) = env("VT_CONFIG") {
        return path.into();
    }
    let home = || PathBuf::from(env("HOME").unwrap_or_else(|| "/root".to_owned())).join(".config");
    env("XDG_CONFIG_HOME").map_or_else(home, PathBuf::from).join("vt/config.toml")
}

impl File {
    /// Reads the file; one that does not exist has no contexts.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let bytes = world::file::read_optional(path).map_err(|error| {
            Error::new(Code::Failed, format!("{shown} cannot be read: {error}"))
                .hint("set VT_CONFIG to a file that you may read")
        })?;
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        if bytes.len() > BYTES_MAX {
            return Err(Error::invalid("config", format!("{shown} is larger than {BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| Error::invalid("config", format!("{shown} is not UTF-8")))?;
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            // Only the first line of the message: the rest quotes the file, which may hold a token.
            let message = error.message().lines().next().unwrap_or_default().to_owned();
            Error::invalid("config", format!("{shown}, line {line}: {message}"))
                .hint("keys of a context are api, ca_file, token_file, token, org, project, env")
        })
    }
}

/// Writes `context` under `name`, makes it the current one when there is none, and leaves the rest as it is.
pub fn save(path: &Path, name: &str, context: Context) -> Result<(), Error> {
    let mut file = File::read(path)?;
    file.contexts.insert(name.to_owned(), context);
    file.current.get_or_insert_with(|| name.to_owned());
    let text = toml::to_string(&file).map_err(|error| Error::internal(error.to_string()))?;
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        world::file::write_atomic(path, text.as_bytes(), MODE)
    };
    write().map_err(|error| Error::new(Code::Failed, format!("{} cannot be written: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_kept_beside_each_other_and_unknown_keys_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/config.toml");
        assert_eq!(File::read(&path).unwrap(), File::default());
        let context =
            Context { api: "https://127.0.0.1:7443".into(), token: Some("vt_at_x".into()), ..Context::default() };
        save(&path, "one", context.clone()).unwrap();
        save(&path, "two", context.clone()).unwrap();
        let file = File::read(&path).unwrap();
        assert_eq!((file.current.as_deref(), file.contexts.len()), (Some("one"), 2));
        std::fs::write(&path, "[contexts.one]\napi = \"https://x\"\ntokn = \"vt_at_secret\"\n").unwrap();
        let error = File::read(&path).unwrap_err();
        assert!(error.message.contains("line 3") && error.message.contains("tokn"), "{}", error.message);
        assert!(!error.message.contains("vt_at_secret"));
    }
}
