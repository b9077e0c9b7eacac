//! TLS for clients: certificates that are read again when their files change, and the certificates that clients show.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::desk::Peer;
use super::options::TlsFiles;

/// A client that does not get through with its handshake by then is let go.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("cannot use {}: {source}", .path.display())]
    Use { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("client certificates are asked for, and no authority to trust is named")]
    NoAuthority,
}

/// When a file was last written and how long it is, as far as that can be known.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Clone)]
pub struct Acceptor(Arc<Shared>);

struct Shared {
    files: TlsFiles,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    stamps: Vec<Stamp>,
    acceptor: TlsAcceptor,
}

impl Acceptor {
    pub fn open(files: TlsFiles) -> Result<Self, Error> {
        let stamps = stamps(&files);
        let acceptor = load(&files)?;
        Ok(Self(Arc::new(Shared { files, loaded: Mutex::new(Loaded { stamps, acceptor }) })))
    }

    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let handshake = self.current().accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE_MAX, handshake)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"))??;
        let certificates = stream.get_ref().1.peer_certificates().filter(|_| self.0.files.client_cert_auth);
        let common_name = certificates.and_then(|chain| common_name(chain.first()?));
        Ok((stream, Peer { common_name }))
    }

    /// With the files as they are now; with what was read last when they cannot be used.
    fn current(&self) -> TlsAcceptor {
        let stamps = stamps(&self.0.files);
        let mut loaded = self.0.loaded.lock();
        if loaded.stamps != stamps {
            match load(&self.0.files) {
                Ok(acceptor) => loaded.acceptor = acceptor,
                Err(error) => tracing::warn!(%error, "the changed certificate is not used"),
            }
            loaded.stamps = stamps;
        }
        loaded.acceptor.clone()
    }
}

fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len()))
    };
    [Some(&files.certificate), Some(&files.key), files.trusted_ca.as_ref()].into_iter().flatten().map(stamp).collect()
}

fn load(files: &TlsFiles) -> Result<TlsAcceptor, Error> {
    let chain = certificates(&files.certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|source| Error::Read { path: files.key.clone(), source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| unusable(&files.certificate, source))?;
    let builder = match verifier(files, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|source| unusable(&files.certificate, source))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn verifier(
    files: &TlsFiles,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Error> {
    let Some(authority) = &files.trusted_ca else {
        return if files.client_cert_auth { Err(Error::NoAuthority) } else { Ok(None) };
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority)? {
        roots.add(certificate).map_err(|source| unusable(authority, source))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    Ok(Some(verifier.map_err(|source| unusable(authority, source))?))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    read().map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

fn unusable(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Use { path: path.to_path_buf(), source: Box::new(source) }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then(|| Arc::from(name))
}
