//! TLS between members: both sides show a certificate that the members' own authority has signed.

use std::io;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::network::Pipe;

/// PEM, as read from files.
#[derive(Clone)]
pub struct Tls {
    /// The member's own certificate, then those between it and the authority. It serves as server's and as client's.
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    /// Who may sign the certificates of members; nobody else's are trusted.
    pub authority: Vec<u8>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the {what} is not readable PEM: {source}")]
    Pem { what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("there is no certificate in the {what}")]
    Empty { what: &'static str },
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    #[error("the authority cannot be used: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
}

/// Ready to wrap streams.
#[derive(Clone)]
pub struct Armour {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
}

impl Tls {
    pub fn armour(&self) -> Result<Armour, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(&self.authority, "authority")? {
            roots.add(authority)?;
        }
        let roots = Arc::new(roots);
        let own = certificates(&self.certificate, "certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| TlsError::Pem { what: "key", source })?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(own.clone(), key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(own, key)?;
        Ok(Armour { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() })
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|source| TlsError::Pem { what, source })?;
    if all.is_empty() { Err(TlsError::Empty { what }) } else { Ok(all) }
}

impl Armour {
    /// `host` has to be in the certificate of the other side.
    pub async fn connect(&self, host: &str, pipe: Pipe) -> io::Result<Pipe> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(self.connector.connect(name, pipe).await?))
    }

    pub async fn accept(&self, pipe: Pipe) -> io::Result<Pipe> {
        Ok(Box::new(self.acceptor.accept(pipe).await?))
    }
}
