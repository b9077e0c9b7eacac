//! Names and passwords for registries, from a docker-style `config.json`.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::limits::CREDENTIALS_BYTES_MAX;

/// Credentials by registry host. Only `auths` is read; credential helpers are programs and are not run.
#[derive(Clone, Default)]
pub struct Credentials {
    by_host: HashMap<String, Login>,
}

/// One registry's user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Credentials {
    /// Reads `path`; a file that does not exist has no credentials.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |detail: String| Error::ReadCredentials { path: path.display().to_string(), detail };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() > CREDENTIALS_BYTES_MAX => return Err(refuse("it is too large".into())),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(refuse(error.to_string())),
        }
        let text = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        Self::parse(&text).map_err(refuse)
    }

    /// The problem never quotes the file: it holds secrets.
    fn parse(text: &[u8]) -> std::result::Result<Self, String> {
        let file: File = serde_json::from_slice(text).map_err(|error| {
            format!("it is not such a document at line {}, column {}", error.line(), error.column())
        })?;
        let mut by_host = HashMap::new();
        for (key, entry) in file.auths {
            let host = host(&key);
            let login = if entry.auth.is_empty() {
                Login { user: entry.username, password: entry.password }
            } else {
                let plain = base64::engine::general_purpose::STANDARD
                    .decode(entry.auth.trim())
                    .ok()
                    .and_then(|plain| String::from_utf8(plain).ok())
                    .ok_or_else(|| format!("`auth` of {key} is not base64"))?;
                let (user, password) = plain.split_once(':').ok_or_else(|| format!("`auth` of {key} has no colon"))?;
                // Some writers pad the password with NUL.
                Login { user: user.into(), password: password.trim_end_matches('\0').into() }
            };
            if !login.user.is_empty() {
                by_host.insert(host, login);
            }
        }
        Ok(Self { by_host })
    }

    /// The login for `HOST[:PORT]`.
    pub fn for_registry(&self, registry: &str) -> Option<&Login> {
        self.by_host.get(&host(registry))
    }

    /// Adds or replaces one login; for tests and for callers with a secret store of their own.
    pub fn with(mut self, registry: &str, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.by_host.insert(host(registry), Login { user: user.into(), password: password.into() });
        self
    }
}

/// `https://index.docker.io/v1/` and `docker.io` are the same host.
fn host(key: &str) -> String {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest).to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        _ => host,
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} registries)", self.by_host.len())
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_under_every_way_to_write_a_host() {
        let text = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"},
            "127.0.0.1:5000":{"username":"u","password":"p"},"empty.example":{}},"credsStore":"x"}"#;
        let credentials = Credentials::parse(text).unwrap();
        assert_eq!(credentials.for_registry("docker.io").unwrap().password, "b");
        assert_eq!(credentials.for_registry("127.0.0.1:5000").unwrap().user, "u");
        assert!(credentials.for_registry("empty.example").is_none());
    }

    #[test]
    fn a_wrong_file_is_refused_without_quoting_it() {
        for text in
            [&b"secret"[..], br#"{"auths":{"h":{"auth":"c2VjcmV0"}}}"#, br#"{"auths":{"h":{"auth":"secret!"}}}"#]
        {
            let problem = Credentials::parse(text).unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
