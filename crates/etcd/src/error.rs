//! Why there is no connection to a cluster.

/// Errors of making a [`crate::Client`]. All but the last two are for whoever wrote the options to mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no endpoint is given")]
    NoEndpoint,
    #[error("{endpoint} is no endpoint: {reason}")]
    Endpoint { endpoint: String, reason: String },
    #[error("{endpoint} wants TLS, and no certificate authority is given")]
    NoAuthority { endpoint: String },
    #[error("the certificates cannot be used: {reason}")]
    Tls { reason: String },
    #[error("none of the endpoints can be reached; {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    #[error("{user} cannot sign in: {reason}")]
    Login { user: String, reason: String },
}
