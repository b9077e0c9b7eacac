//! What kinds need to know of the cloud they run in.

/// Where the ingress listens, as people reach it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Default routes are `APP-ENV.<domain>`.
    pub domain: String,
    /// Port of the `http` ingress.
    pub http_port: u16,
    /// Port of the `tls` ingress, where it listens.
    pub tls_port: Option<u16>,
    pub prefixes: novanet::Prefixes,
    pub mtu: u16,
    /// Name servers for guests; may be empty.
    pub dns: Vec<std::net::IpAddr>,
}
