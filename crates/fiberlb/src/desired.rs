//! The complete wish for a node's ingress, and what makes it acceptable. Pure.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::host;

/// Routes of one node.
pub const ROUTES_MAX: usize = 10_000;
/// Backends of one route.
pub const BACKENDS_MAX: usize = 1_000;
/// Characters of a route's or backend's id.
pub const ID_MAX: usize = 128;

/// Everything the ingress of a node shall serve. What is not listed is not served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// Only grows. An older one than the one in force is ignored; the same one again replaces it.
    pub generation: u64,
    /// Unique by id, unique by host or port within a mode; any order; may be empty.
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub id: String,
    pub mode: Mode,
    /// Unique by id; may be empty, then HTTP answers 503 and the others close, unless someone is asleep.
    pub backends: Vec<Backend>,
    /// Ids of backends that would serve if they were awake. A client that finds no other waits for one of them: see
    /// [`crate::Handle::is_wanted`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asleep: Vec<String>,
}

/// How a client's wish for a route is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mode {
    /// By the host of an HTTP request; exact, in the form of `host::check`.
    Http { host: String },
    /// By the server name of a ClientHello; exact, same form. TLS is not terminated.
    Tls { host: String },
    /// By the port alone.
    Tcp { port: u16 },
}

/// One place that serves a route. A backend whose `addr` changes is a new backend; the old one drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    pub id: String,
    pub addr: SocketAddr,
}

/// Why a tcp port is never opened for a tenant; `None` where it may be.
pub fn denied(port: u16) -> Option<&'static str> {
    match port {
        0 => Some("port 0 is no port"),
        23 => Some("telnet is never exposed"),
        25 => Some("mail relays are not run from here"),
        137..=139 => Some("NetBIOS is never exposed"),
        _ => None,
    }
}

/// Refuses a wish that cannot be served as a whole. `taken` lists the ports of the node's own listeners.
pub fn validate(desired: &Desired, taken: &[(u16, &'static str)]) -> Result<(), Error> {
    let count = desired.routes.len();
    if count > ROUTES_MAX {
        return Err(Error::TooMany { subject: "the configuration".into(), what: "routes", count, max: ROUTES_MAX });
    }
    let mut ids = HashSet::new();
    let mut http = HashMap::new();
    let mut tls = HashMap::new();
    let mut tcp = HashMap::new();
    for route in &desired.routes {
        check_id(&route.id)?;
        if !ids.insert(route.id.as_str()) {
            return Err(Error::DuplicateRoute { route: route.id.clone() });
        }
        match &route.mode {
            Mode::Http { host } => claim_host(&mut http, "http", host, &route.id)?,
            Mode::Tls { host } => claim_host(&mut tls, "tls", host, &route.id)?,
            Mode::Tcp { port } => claim_port(&mut tcp, *port, &route.id, taken)?,
        }
        check_backends(route)?;
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), Error> {
    let count = id.len();
    if count > ID_MAX {
        let subject: String = id.chars().take(ID_MAX).collect();
        return Err(Error::TooMany { subject, what: "characters in its id", count, max: ID_MAX });
    }
    Ok(())
}

fn claim_host<'a>(
    claimed: &mut HashMap<&'a str, &'a str>,
    mode: &'static str,
    host: &'a str,
    route: &'a str,
) -> Result<(), Error> {
    host::check(host).map_err(|reason| Error::InvalidHost { route: route.into(), host: host.into(), reason })?;
    match claimed.insert(host, route) {
        Some(first) => Err(Error::DuplicateHost { mode, host: host.into(), first: first.into(), second: route.into() }),
        None => Ok(()),
    }
}

fn claim_port<'a>(
    claimed: &mut HashMap<u16, &'a str>,
    port: u16,
    route: &'a str,
    taken: &[(u16, &'static str)],
) -> Result<(), Error> {
    if let Some(reason) = denied(port) {
        return Err(Error::DeniedPort { route: route.into(), port, reason });
    }
    if let Some((_, listener)) = taken.iter().find(|(own, _)| *own == port) {
        return Err(Error::PortClash { route: route.into(), port, listener });
    }
    match claimed.insert(port, route) {
        Some(first) => Err(Error::DuplicatePort { port, first: first.into(), second: route.into() }),
        None => Ok(()),
    }
}

fn check_backends(route: &Route) -> Result<(), Error> {
    let count = route.backends.len() + route.asleep.len();
    if count > BACKENDS_MAX {
        return Err(Error::TooMany {
            subject: format!("route {}", route.id),
            what: "backends",
            count,
            max: BACKENDS_MAX,
        });
    }
    let mut ids = HashSet::new();
    for id in &route.asleep {
        check_id(id)?;
        if !ids.insert(id.as_str()) {
            return Err(Error::DuplicateBackend { route: route.id.clone(), backend: id.clone() });
        }
    }
    for backend in &route.backends {
        check_id(&backend.id)?;
        if !ids.insert(backend.id.as_str()) {
            return Err(Error::DuplicateBackend { route: route.id.clone(), backend: backend.id.clone() });
        }
        let ip = backend.addr.ip();
        let reason = if backend.addr.port() == 0 {
            "port 0 is no port"
        } else if ip.is_unspecified() {
            "it is the address of no machine"
        } else if ip.is_multicast() {
            "it is a group's address"
        } else {
            continue;
        };
        return Err(Error::InvalidBackend {
            route: route.id.clone(),
            backend: backend.id.clone(),
            addr: backend.addr,
            reason,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(id: &str, mode: Mode) -> Route {
        Route { id: id.into(), mode, backends: Vec::new(), asleep: Vec::new() }
    }

    fn http(host: &str) -> Mode {
        Mode::Http { host: host.into() }
    }

    fn code(routes: Vec<Route>) -> &'static str {
        match validate(&Desired { generation: 1, routes }, &[(443, "tls")]) {
            Ok(()) => "ok",
            Err(error) => {
                assert!(!error.hint().is_empty());
                error.code()
            }
        }
    }

    #[test]
    fn whole_wishes_are_refused_for_one_bad_route() {
        let tls = |host: &str| Mode::Tls { host: host.into() };
        let tcp = |port| Mode::Tcp { port };
        assert_eq!(code(vec![]), "ok");
        assert_eq!(code(vec![route("a", http("x.y")), route("b", tls("x.y")), route("c", tcp(9000))]), "ok");
        assert_eq!(code(vec![route("a", http("x.y")), route("b", http("x.y"))]), "ingress_host_duplicate");
        assert_eq!(code(vec![route("a", tls("x.y")), route("b", tls("x.y"))]), "ingress_host_duplicate");
        assert_eq!(code(vec![route("a", http("x.y")), route("a", http("z.y"))]), "ingress_route_duplicate");
        assert_eq!(code(vec![route("a", http("X.y"))]), "ingress_host_invalid");
        assert_eq!(code(vec![route("a", tcp(443))]), "ingress_port_clash");
        assert_eq!(code(vec![route("a", tcp(9000)), route("b", tcp(9000))]), "ingress_port_duplicate");
        for port in [0, 23, 25, 137, 138, 139] {
            assert_eq!(code(vec![route("a", tcp(port))]), "ingress_port_denied", "{port}");
        }
        assert_eq!(code(vec![route(&"a".repeat(ID_MAX + 1), tcp(9000))]), "ingress_too_many");
    }

    #[test]
    fn backends_have_an_id_and_an_address_of_their_own() {
        let with = |backends: &[(&str, &str)]| {
            let backends =
                backends.iter().map(|(id, addr)| Backend { id: (*id).into(), addr: addr.parse().unwrap() }).collect();
            code(vec![Route { id: "r".into(), mode: http("x.y"), backends, asleep: vec!["s".into()] }])
        };
        assert_eq!(with(&[("a", "10.0.0.1:80"), ("b", "[fd00::1]:80")]), "ok");
        assert_eq!(with(&[("a", "10.0.0.1:80"), ("a", "10.0.0.2:80")]), "ingress_backend_duplicate");
        assert_eq!(with(&[("s", "10.0.0.1:80")]), "ingress_backend_duplicate");
        for bad in ["10.0.0.1:0", "0.0.0.0:80", "[::]:80", "224.0.0.1:80"] {
            assert_eq!(with(&[("a", bad)]), "ingress_backend_invalid", "{bad}");
        }
    }
}
