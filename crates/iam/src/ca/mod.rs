//! The cloud's own certificate authority.
//!
//! ```text
//! ca.key       0600  made once, never leaves the machine
//! ca.pem       0644  what clients trust, and nothing else; made anew with the same key at half its life
//! server.pem   0600  certificate and key in one file, so that they cannot be torn apart; made anew at half its life
//! ```
//!
//! [`Ca::server_config`] asks for the certificate at each handshake: a renewed one is used without a restart.

mod issue;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use world::Clock;

use crate::Error;
use issue::{Authority, Facts};

/// How long the authority's certificate is valid.
const CA_DAYS: u64 = 3650;
/// How long a server certificate is valid.
const SERVER_DAYS: u64 = 90;
pub(crate) const DAY_MS: u64 = 86_400_000;
/// 1 January 2025: a clock before this is wrong, since this program is younger.
const CLOCK_MS_MIN: u64 = 1_735_689_600_000;
/// How far a clock may be behind the one that made a certificate before that is an error.
const CLOCK_BEHIND_MS_MAX: u64 = DAY_MS;

/// The authority of one cloud, with the server certificate of this machine. Clones share it.
#[derive(Clone)]
pub struct Ca {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    clock: Clock,
    /// Names and addresses under which this machine's servers are reached.
    names: Vec<String>,
    live: Arc<Live>,
}

/// The certificate in use.
#[derive(Debug)]
struct Live {
    key: RwLock<(Arc<CertifiedKey>, Facts)>,
}

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key.read().0.clone())
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("folder", &self.inner.folder)
            .field("names", &self.inner.names)
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// Takes up the authority in `folder`, or makes one; renews what is past half its life.
    ///
    /// Errors: [`Error::Clock`] before anything is written; [`Error::KeyMissing`], [`Error::KeyMismatch`],
    /// [`Error::Malformed`] for files that a person has to mend.
    pub fn open_or_create(folder: &Path, clock: Clock) -> Result<Self, Error> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if is_host_name(&host) && !names.contains(&host) {
            names.push(host);
        }
        check_clock(&clock)?;
        world::file::create_folder(folder, 0o755).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
        let authority = Authority::open_or_create(folder, &clock)?;
        let (key, facts) = server(folder, &authority, &names, &clock)?;
        let live = Arc::new(Live { key: RwLock::new((Arc::new(key), facts)) });
        Ok(Self { inner: Arc::new(Inner { folder: folder.to_owned(), clock, names, live }) })
    }

    /// The file that clients trust.
    pub fn certificate_file(&self) -> PathBuf {
        self.inner.folder.join(issue::CA_CERTIFICATE)
    }

    /// When the server certificate in use ends, in milliseconds since the Unix epoch.
    pub fn expires_ms(&self) -> u64 {
        self.inner.live.key.read().1.not_after_ms
    }

    /// Makes a new server certificate when the present one is past half its life, and takes it into use.
    /// True when it did.
    pub fn renew_if_due(&self) -> Result<bool, Error> {
        let inner = &self.inner;
        if !inner.live.key.read().1.due(inner.clock.now_ms()) {
            return Ok(false);
        }
        check_clock(&inner.clock)?;
        let authority = Authority::open_or_create(&inner.folder, &inner.clock)?;
        let (key, facts) = server(&inner.folder, &authority, &inner.names, &inner.clock)?;
        *inner.live.key.write() = (Arc::new(key), facts);
        Ok(true)
    }

    /// TLS 1.2 and 1.3 with the certificate in use, speaking these application protocols, best first.
    pub fn server_config(&self, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.map_err(Error::Tls)?.with_no_client_auth().with_cert_resolver(self.inner.live.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}

/// A client that trusts the authority in this file alone.
pub fn client_config(certificate_file: &Path) -> Result<ClientConfig, Error> {
    let bytes =
        std::fs::read(certificate_file).map_err(|source| Error::Read { path: certificate_file.to_owned(), source })?;
    let malformed = |what: String| Error::Malformed { path: certificate_file.to_owned(), what };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| malformed(error.to_string()))?;
        roots.add(certificate).map_err(|error| malformed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(malformed("it holds no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(Error::Tls)?.with_root_certificates(roots).with_no_client_auth())
}

fn check_clock(clock: &Clock) -> Result<(), Error> {
    if clock.now_ms() < CLOCK_MS_MIN {
        return Err(Error::Clock { now: clock.timestamp().to_string(), why: "and this program is younger".to_owned() });
    }
    Ok(())
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The server certificate in `folder`, made anew when it is missing, due, for other names, or of another authority.
fn server(
    folder: &Path,
    authority: &Authority,
    names: &[String],
    clock: &Clock,
) -> Result<(CertifiedKey, Facts), Error> {
    let path = folder.join(issue::SERVER);
    let found = world::file::read_optional(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
    if let Some((key, facts)) = found.and_then(|bytes| usable(&bytes).ok()) {
        if facts.not_before_ms > clock.now_ms() + CLOCK_BEHIND_MS_MAX {
            return Err(behind(clock, &path));
        }
        if !facts.due(clock.now_ms()) && facts.names == names && facts.issuer_key == authority.key_id() {
            return Ok((key, facts));
        }
    }
    let pem = authority.issue_server(names, clock, SERVER_DAYS * DAY_MS)?;
    world::file::write_atomic(&path, pem.as_bytes(), 0o600)
        .map_err(|source| Error::Write { path: path.clone(), source })?;
    usable(pem.as_bytes()).map_err(|what| Error::Malformed { path, what })
}

fn behind(clock: &Clock, path: &Path) -> Error {
    let why = format!("and {} was made more than a day later", path.display());
    Error::Clock { now: clock.timestamp().to_string(), why }
}

fn usable(pem: &[u8]) -> Result<(CertifiedKey, Facts), String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let facts = Facts::of(chain.first().ok_or("it holds no certificate")?)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|error| error.to_string())?;
    let key = CertifiedKey::new(chain, key);
    key.keys_match().map_err(|error| error.to_string())?;
    Ok((key, facts))
}

#[cfg(test)]
mod tests;
