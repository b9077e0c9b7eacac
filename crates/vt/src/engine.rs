//! The engines of the store, each by its URL.
//!
//! ```text
//! embedded                      in this process, in the folder that the caller names
//! embedded:DIR                  the same, in that folder
//! replicated                    a member of a cluster, in this process; for a cloud alone, with settings of its own
//! etcd://HOST:PORT,HOST:PORT    any cluster that speaks etcd's protocol, ChainFire's door among them
//! postgres://USER@HOST/DATABASE one ordered table of revisions in a database
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use model::{Code, Error};
use store::Store;

/// In a folder, this file is an embedded store.
pub const EMBEDDED_FILE: &str = "chainfire.redb";
/// While a copy into a store is under way, and after one that was not finished, this key is there.
pub const COPYING: &str = "cloud/copying";
/// Which installation a store belongs to.
pub const IDENTITY: &str = "cloud/identity";

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `None`: where the caller keeps it.
    Embedded(Option<PathBuf>),
    Replicated,
    /// `host:port` or URLs.
    Etcd(Vec<String>),
    /// Without a password.
    Postgres(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "write embedded, embedded:DIR, replicated, etcd://HOST:PORT,... or postgres://USER@HOST/DATABASE";
        if text == "embedded" {
            return Ok(Place::Embedded(None));
        }
        if text == "replicated" {
            return Ok(Place::Replicated);
        }
        if text == "memory" {
            return Err("memory keeps nothing and is for tests alone".into());
        }
        if let Some(dir) = text.strip_prefix("embedded:") {
            let dir = dir.strip_prefix("//").unwrap_or(dir);
            return if dir.is_empty() { Err(FORMS.into()) } else { Ok(Place::Embedded(Some(dir.into()))) };
        }
        if let Some((scheme, list)) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "etcd" | "etcds")) {
            let list: Vec<&str> = list.trim_end_matches('/').split(',').map(str::trim).collect();
            if list.iter().any(|host| host.is_empty() || host.contains(['/', '@'])) {
                return Err("write etcd://HOST:PORT,HOST:PORT".into());
            }
            let url = |host: &str| if scheme == "etcds" { format!("https://{host}") } else { host.to_owned() };
            return Ok(Place::Etcd(list.into_iter().map(url).collect()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let user = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()?.rsplit_once('@'));
            let secret = user.is_some_and(|(user, _)| user.contains(':')) || text.contains("password=");
            if secret {
                return Err("the URL holds a password; a file or the environment gives it instead".into());
            }
            return Ok(Place::Postgres(text.to_owned()));
        }
        Err(FORMS.into())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Embedded(None) => f.write_str("embedded"),
            Place::Embedded(Some(dir)) => write!(f, "embedded:{}", dir.display()),
            Place::Replicated => f.write_str("replicated"),
            Place::Etcd(endpoints) => write!(f, "etcd://{}", endpoints.join(",")),
            Place::Postgres(url) => f.write_str(url),
        }
    }
}

/// How to come in, for engines that others serve.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// PEM files.
    pub authority: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<String>,
}

/// A store that is open, or why not; whether waiting may mend it stands in the error's code.
pub async fn open(place: &Place, access: &Access, folder: &Path) -> Result<Arc<dyn Store>, Error> {
    match place {
        Place::Embedded(dir) => {
            let dir = dir.as_deref().unwrap_or(folder);
            if dir.join("member.json").exists() {
                let error = Error::new(Code::Conflict, format!("{} holds a member of a cluster", dir.display()));
                return Err(error
                    .hint("vt store serve   serves it; etcd://HOST:PORT   is its URL then")
                    .reason("store_open_failed"));
            }
            let store = chainfire::Embedded::open(dir, chainfire::Options::default()).await;
            Ok(Arc::new(store.map_err(|error| embedded(dir, &error))?))
        }
        Place::Replicated => {
            let error = Error::invalid("store", "a member is opened by `vt up --store replicated` or `vt store serve`");
            Err(error.hint("etcd://HOST:PORT   is the URL of one that runs"))
        }
        Place::Postgres(url) => {
            let address = pgstore::Address::parse(&with_password(url, access)).map_err(|error| database(&error))?;
            Ok(Arc::new(pgstore::Postgres::open(address).await.map_err(|error| database(&error))?))
        }
        Place::Etcd(endpoints) => {
            let options = etcd_options(endpoints, access)?;
            Ok(Arc::new(etcd::Etcd::connect(&options).await.map_err(|error| cluster(&error))?))
        }
    }
}

fn etcd_options(endpoints: &[String], access: &Access) -> Result<etcd::Options, Error> {
    let pem = |path: &Path| {
        std::fs::read(path).map_err(|error| {
            Error::new(Code::InvalidArgument, format!("{}: {error}", path.display())).reason("store_open_failed")
        })
    };
    let identity = match (&access.certificate, &access.key) {
        (Some(certificate), Some(key)) => Some(etcd::Identity { certificate: pem(certificate)?, key: pem(key)? }),
        (None, None) => None,
        _ => return Err(Error::invalid("store.cert", "a certificate and its key belong together")),
    };
    let tls = match &access.authority {
        Some(authority) => Some(etcd::Tls { authority: pem(authority)?, identity, server_name: None }),
        None if identity.is_some() => {
            return Err(Error::invalid("store.cacert", "with a certificate, say who vouches for the other side"));
        }
        None => None,
    };
    let login = match (&access.user, &access.password) {
        (Some(user), Some(password)) => Some(etcd::Login { user: user.clone(), password: password.clone() }),
        (Some(user), None) => {
            return Err(Error::invalid("store.password_file", format!("the password of {user} is missing")));
        }
        (None, _) => None,
    };
    Ok(etcd::Options { tls, login, ..etcd::Options::new(endpoints.iter().cloned()) })
}

fn cluster(error: &etcd::Error) -> Error {
    let (code, hint) = match error {
        etcd::Error::NoEndpoint | etcd::Error::Endpoint { .. } => (Code::InvalidArgument, "etcd://HOST:PORT,HOST:PORT"),
        etcd::Error::NoAuthority { .. } | etcd::Error::Tls { .. } => {
            (Code::InvalidArgument, "look at the authority, the certificate and its key")
        }
        etcd::Error::Unreachable { .. } => (Code::Unavailable, "vt store status --endpoints HOST:PORT"),
        etcd::Error::Login { .. } => (Code::Unauthenticated, "look at the user and the file with the password"),
    };
    let failed = Error::new(code, "the store cannot be opened").why(error.to_string());
    failed.hint(hint).reason("store_open_failed")
}

/// The URL with the password that a file or the environment gave.
fn with_password(url: &str, access: &Access) -> String {
    let Some(password) = &access.password else { return url.to_owned() };
    let encoded = password.bytes().fold(String::new(), |text, byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text + &char::from(byte).to_string(),
        _ => text + &format!("%{byte:02X}"),
    });
    match url.split_once('@') {
        Some((before, after)) => format!("{before}:{encoded}@{after}"),
        None => url.to_owned(),
    }
}

fn database(error: &pgstore::OpenError) -> Error {
    use pgstore::OpenError;
    let (code, hint) = match error {
        OpenError::Address { .. } => (Code::InvalidArgument, "postgres://USER@HOST/DATABASE?schema=NAME"),
        OpenError::Certificate { .. } => (Code::InvalidArgument, "look at sslrootcert, sslcert and sslkey in the URL"),
        OpenError::Denied { .. } => {
            (Code::Unauthenticated, "look at the user, the database and the password in VT_STORE_PASSWORD or its file")
        }
        // A server that starts, stops or is on its way from standby to primary.
        OpenError::Connect { .. } | OpenError::TimedOut | OpenError::Standby => {
            (Code::Unavailable, "is the server up?")
        }
        OpenError::Version { .. } => (Code::Failed, "use a newer PostgreSQL"),
        OpenError::ReadOnly => (Code::Failed, "give the user a database that it may write to"),
        OpenError::Foreign { .. } => (Code::Conflict, "name a schema of its own with ?schema=NAME"),
        OpenError::Format { .. } => (Code::Failed, "a newer vt wrote it; use that one"),
        OpenError::Schema { .. } => (Code::Failed, "the user must be allowed to make a schema in the database"),
    };
    let failed = Error::new(code, "the store in PostgreSQL cannot be opened").why(error.to_string());
    failed.hint(hint).reason("store_open_failed")
}

fn embedded(dir: &Path, error: &store::Error) -> Error {
    let hint = match error {
        store::Error::Locked { .. } => {
            "is another `vt up` running with this data folder? choose another with --data-dir"
        }
        store::Error::FormatUnknown { .. } => "a newer vt wrote it; use that one",
        _ => "look at the disk and at who may write there",
    };
    let failed = Error::new(Code::Failed, format!("the store in {} cannot be opened: {error}", dir.display()));
    failed.hint(hint).reason("store_open_failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written() {
        for text in [
            "embedded",
            "replicated",
            "embedded:/var/lib/vt/store",
            "etcd://10.0.0.1:2379,10.0.0.2:2379",
            "postgres://vt@db.example/vt?sslmode=verify-full",
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("etcds://a:1".parse(), Ok(Place::Etcd(vec!["https://a:1".into()])));
    }

    #[test]
    fn a_password_is_put_where_the_database_looks_for_it() {
        let access = Access { password: Some("p@ss:w/rd é".into()), ..Access::default() };
        let url = with_password("postgres://vt@h:5432/d?schema=s", &access);
        assert_eq!(url, "postgres://vt:p%40ss%3Aw%2Frd%20%C3%A9@h:5432/d?schema=s");
        pgstore::Address::parse(&url).unwrap();
    }

    #[test]
    fn what_is_no_place_is_refused_and_a_password_is_not_repeated() {
        for text in ["", "memory", "etcd://", "etcd://a:1,", "etcd://root:hidden@a:1", "sqlite://x", "embedded:"] {
            assert!(!text.parse::<Place>().unwrap_err().contains("hidden"), "{text}");
        }
        for text in ["postgres://vt:hidden@h/d", "postgres://h/d?password=hidden"] {
            let why = text.parse::<Place>().unwrap_err();
            assert!(why.contains("password") && !why.contains("hidden"), "{why}");
        }
    }
}
