//! TLS that trusts the context's own authority and nothing else.

use std::path::Path;
use std::sync::Arc;

use model::Code;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::failure::Failure;

/// A configuration that accepts servers whose certificate the authority in `ca_file` has signed.
pub fn config(ca_file: &Path) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let refuse = |problem: String| {
        Failure::new(Code::Failed, format!("the authority in {} cannot be used: {problem}", ca_file.display())).hint(
            "vt config show --origin   says where the path comes from; `vt up` writes the file on its first start",
        )
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|error| refuse(error.to_string()))? {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("it holds no certificate".to_owned()));
    }
    Ok(Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}
