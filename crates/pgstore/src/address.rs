//! Where the database is, from a URL.

use std::path::PathBuf;
use std::time::Duration;

use crate::OpenError;

/// The schema when the URL names none.
const SCHEMA_DEFAULT: &str = "photon";

/// PostgreSQL keeps 63 bytes of a name; the channel of notifications carries the schema's name and a prefix.
const SCHEMA_BYTES_MAX: usize = 48;

/// A server that does not answer for this long is as good as none.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// After this much silence the kernel asks whether the other side is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Sent and not acknowledged for this long: the connection is lost.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SslMode {
    Disable,
    /// TLS when the server has it, without asking who it is.
    Prefer,
    /// TLS or nothing. Who the server is, is asked only when `sslrootcert` is given.
    Require,
    /// The server's certificate is signed by `sslrootcert`, whatever its name.
    VerifyCa,
    /// And it carries the name in the URL.
    VerifyFull,
}

/// `postgres://user:password@host:port/database?sslmode=...&schema=...`
///
/// Options that are the store's own: `schema` (default `photon`; lower-case letters, digits, `_`), `sslmode`
/// (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`; default `prefer`), `sslrootcert`, `sslcert`, `sslkey`
/// (PEM files). All others are as in PostgreSQL's own URLs, as far as the client knows them: `host` (also a folder of
/// a Unix socket), `application_name`, `connect_timeout`, `target_session_attrs`, ... Several hosts may be given. A pooler
/// in between has to keep sessions whole: they listen, hold locks and have settings.
#[derive(Clone)]
pub struct Address {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) schema: String,
    pub(crate) ssl: Ssl,
}

#[derive(Clone, Debug)]
pub(crate) struct Ssl {
    pub mode: SslMode,
    pub root: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Address {
    /// Errors: [`OpenError::Address`], which never repeats the URL, because it holds a password.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let wrong = |reason: String| OpenError::Address { reason };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong("it does not begin with postgres://".into()));
        }
        let (place, options) = url.split_once('?').unwrap_or((url, ""));
        let mut schema = SCHEMA_DEFAULT.to_owned();
        let mut ssl = Ssl { mode: SslMode::Prefer, root: None, certificate: None, key: None };
        let mut others = Vec::new();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let value = || decoded(value).ok_or_else(|| wrong(format!("{name} is not well encoded")));
            match name {
                "schema" => schema = value()?,
                "sslmode" => ssl.mode = mode(&value()?)?,
                "sslrootcert" => ssl.root = Some(value()?.into()),
                "sslcert" => ssl.certificate = Some(value()?.into()),
                "sslkey" => ssl.key = Some(value()?.into()),
                _ => others.push(option),
            }
        }
        check_schema(&schema)?;
        check_ssl(&ssl)?;
        let rest = if others.is_empty() { place.to_owned() } else { format!("{place}?{}", others.join("&")) };
        let config = rest.parse::<tokio_postgres::Config>();
        let mut config = config.map_err(|error| wrong(crate::error::told(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong("it names no host".into()));
        }
        if config.get_user().is_none() {
            return Err(wrong("it names no user".into()));
        }
        if config.get_application_name().is_none() {
            config.application_name("photon");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_MAX);
        }
        config.keepalives_idle(KEEPALIVE_IDLE);
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(UNACKNOWLEDGED_MAX);
        }
        config.ssl_mode(match ssl.mode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
        });
        Ok(Self { config, schema, ssl })
    }

    pub fn schema(&self) -> &str {
        &self.schema
    }
}

/// Without the password.
impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address")
            .field("hosts", &self.config.get_hosts())
            .field("ports", &self.config.get_ports())
            .field("user", &self.config.get_user())
            .field("database", &self.config.get_dbname())
            .field("schema", &self.schema)
            .field("ssl", &self.ssl)
            .finish()
    }
}

fn mode(value: &str) -> Result<SslMode, OpenError> {
    Ok(match value {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            let reason = "sslmode is not one of disable, prefer, require, verify-ca, verify-full".into();
            return Err(OpenError::Address { reason });
        }
    })
}

fn check_schema(schema: &str) -> Result<(), OpenError> {
    let first = schema.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let all = schema.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !first || !all || schema.len() > SCHEMA_BYTES_MAX || schema.starts_with("pg_") {
        let reason = format!(
            "schema has to be at most {SCHEMA_BYTES_MAX} lower-case letters, digits and _, not beginning with a digit or pg_"
        );
        return Err(OpenError::Address { reason });
    }
    Ok(())
}

fn check_ssl(ssl: &Ssl) -> Result<(), OpenError> {
    let wrong = |reason: &str| Err(OpenError::Address { reason: reason.into() });
    if ssl.root.is_none() && matches!(ssl.mode, SslMode::VerifyCa | SslMode::VerifyFull) {
        return wrong("this sslmode needs sslrootcert, a PEM file with the authority's certificate");
    }
    if ssl.certificate.is_some() != ssl.key.is_some() {
        return wrong("sslcert and sslkey go together");
    }
    Ok(())
}

/// Undoes percent encoding; `None` when it is broken.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let address = Address::parse(
            "postgres://me:se%40cret@db.example:6543/cloud?schema=other&sslmode=verify-full&sslrootcert=%2Fca%20one.pem\
             &application_name=x",
        )
        .unwrap();
        assert_eq!(address.schema, "other");
        assert_eq!((address.ssl.mode, address.ssl.root), (SslMode::VerifyFull, Some("/ca one.pem".into())));
        assert_eq!(address.config.get_password(), Some(&b"se@cret"[..]));
        assert_eq!(address.config.get_ports(), [6543]);
        assert_eq!(address.config.get_application_name(), Some("x"));
        let plain = Address::parse("postgresql://me@localhost/db").unwrap();
        assert_eq!((plain.schema(), plain.ssl.mode), ("photon", SslMode::Prefer));
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for (url, says) in [
            ("mysql://me:hunter2@h/db", "postgres://"),
            ("postgres://me:hunter2@h/db?schema=Photon", "schema"),
            ("postgres://me:hunter2@h/db?schema=pg_photon", "schema"),
            ("postgres://me:hunter2@h/db?schema=a%3bb", "schema"),
            ("postgres://me:hunter2@h/db?schema=%zz", "schema"),
            ("postgres://me:hunter2@h/db?sslmode=allow", "sslmode"),
            ("postgres://me:hunter2@h/db?sslmode=verify-full", "sslrootcert"),
            ("postgres://me:hunter2@h/db?sslcert=a", "sslkey"),
            ("postgres://me:hunter2@h/db?colour=red", "colour"),
            ("postgres://me:hunter2@h:port/db", "port"),
            ("postgres://h/db", "user"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let shown = format!("{:?}", Address::parse("postgres://me:hunter2@h/db").unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
