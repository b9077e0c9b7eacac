//! What the ingress says about itself.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The generation in force; 0 before the first.
    pub generation: u64,
    /// In the order of the configuration, removed ones that still drain last.
    pub routes: Vec<RouteStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub id: String,
    /// The route is no longer configured; only its draining backends are left.
    pub removed: bool,
    /// Why the route is not reachable, in words: its port is taken, or the node has no listener of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// In the order of the configuration, draining ones last.
    pub backends: Vec<BackendStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    pub id: String,
    pub addr: SocketAddr,
    /// Requests and connections in flight.
    pub active: usize,
    /// Not avoided after a failure.
    pub healthy: bool,
    /// Removed from the configuration and not yet empty. Gone from the list once it is, or when the limit has passed.
    pub draining: bool,
    /// Until when it is avoided, milliseconds since the Unix epoch. It is still tried when no other is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_until_ms: Option<u64>,
}
