//! What can go wrong at the boundary of the ingress. Failures of single requests are answers, not errors.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener of the node's configuration could not be opened.
    #[error("the {listener} listener cannot listen on {addr}: {source}")]
    Bind { listener: &'static str, addr: SocketAddr, setting: &'static str, source: io::Error },
    /// The last good configuration could not be read, or a newer version of the program wrote it.
    #[error("the last good ingress configuration in {} cannot be loaded: {reason}", path.display())]
    Load { path: PathBuf, reason: String },
    /// The new configuration could not be made durable; the old one stays in force.
    #[error("the ingress configuration cannot be written to {}: {source}", path.display())]
    Persist { path: PathBuf, source: io::Error },
    #[error("route {route}: {host:?} is not a host name: {reason}")]
    InvalidHost { route: String, host: String, reason: &'static str },
    #[error("the {mode} host {host} is claimed by two routes, {first} and {second}")]
    DuplicateHost { mode: &'static str, host: String, first: String, second: String },
    #[error("route {route}: port {port} may not be opened: {reason}")]
    DeniedPort { route: String, port: u16, reason: &'static str },
    #[error("tcp port {port} is claimed by two routes, {first} and {second}")]
    DuplicatePort { port: u16, first: String, second: String },
    #[error("route {route}: tcp port {port} is the port of this node's {listener} listener")]
    PortClash { route: String, port: u16, listener: &'static str },
    #[error("route {route} is listed twice")]
    DuplicateRoute { route: String },
    #[error("route {route}: backend {backend} is listed twice")]
    DuplicateBackend { route: String, backend: String },
    #[error("route {route}: backend {backend} cannot be at {addr}: {reason}")]
    InvalidBackend { route: String, backend: String, addr: SocketAddr, reason: &'static str },
    #[error("{subject} has {count} {what}, more than the limit of {max}")]
    TooMany { subject: String, what: &'static str, count: usize, max: usize },
    /// The service has been closed; nothing is served any more.
    #[error("the ingress is closed")]
    Closed,
}

impl Error {
    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => "ingress_port_taken",
            Error::Bind { .. } => "ingress_bind_failed",
            Error::Load { .. } => "ingress_load_failed",
            Error::Persist { .. } => "ingress_persist_failed",
            Error::InvalidHost { .. } => "ingress_host_invalid",
            Error::DuplicateHost { .. } => "ingress_host_duplicate",
            Error::DeniedPort { .. } => "ingress_port_denied",
            Error::DuplicatePort { .. } => "ingress_port_duplicate",
            Error::PortClash { .. } => "ingress_port_clash",
            Error::DuplicateRoute { .. } => "ingress_route_duplicate",
            Error::DuplicateBackend { .. } => "ingress_backend_duplicate",
            Error::InvalidBackend { .. } => "ingress_backend_invalid",
            Error::TooMany { .. } => "ingress_too_many",
            Error::Closed => "ingress_closed",
        }
    }

    /// What to do about it, one sentence.
    pub fn hint(&self) -> String {
        match self {
            Error::Bind { addr, setting, source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => format!(
                    "another program has port {}; stop it (`ss -ltnp 'sport = :{}'` names it) or set {setting} to another port",
                    addr.port(),
                    addr.port()
                ),
                io::ErrorKind::PermissionDenied => {
                    format!("ports below 1024 need root; run as root or set {setting} to a higher port")
                }
                io::ErrorKind::AddrNotAvailable => {
                    format!("this machine has no address {}; change {setting}", addr.ip())
                }
                _ => format!("change {setting}"),
            },
            Error::Load { path, .. } => {
                format!("run the version that wrote it, or move {} away to start without it", path.display())
            }
            Error::Persist { path, .. } => format!("look at the free space and the rights of {}", path.display()),
            Error::InvalidHost { .. } => {
                "write the name in lower case, without port or trailing dot, international names in their xn-- form"
                    .into()
            }
            Error::DuplicateHost { second, .. }
            | Error::DuplicatePort { second, .. }
            | Error::DuplicateRoute { route: second } => format!("remove or change route {second}"),
            Error::DeniedPort { .. } | Error::PortClash { .. } => "choose another port".into(),
            Error::DuplicateBackend { .. } => "list each backend of a route once".into(),
            Error::InvalidBackend { .. } => "give the backend's own address and a port above 0".into(),
            Error::TooMany { max, .. } => format!("stay within {max}"),
            Error::Closed => "open the service again".into(),
        }
    }
}
