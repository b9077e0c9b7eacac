//! What can keep the control plane from starting. What callers are told is [`model::Error`].

use std::io;
use std::net::SocketAddr;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{address} is taken by another program; free it, or set `{setting}` to another address")]
    ListenTaken { address: SocketAddr, setting: &'static str },
    #[error("cannot listen on {address} (setting `{setting}`): {source}")]
    Listen { address: SocketAddr, setting: &'static str, source: io::Error },
    #[error("TLS of the API could not be set up: {0}")]
    Tls(#[source] iam::Error),
}
