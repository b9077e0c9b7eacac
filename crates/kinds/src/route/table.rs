//! From rows to what the ingress serves, and back.

use std::net::{IpAddr, SocketAddr};

use model::{Error, Id};
use reconcile::Table;
use reconcile::kind::read;

use super::Seen;
use super::contract::{Mode, Spec};
use crate::settings::Settings;
use crate::vm;

/// Checks a route and returns the claim that keeps its host or port unique over all tenants.
pub fn check(spec: &Spec) -> Result<String, Error> {
    if spec.port == 0 {
        return Err(Error::invalid("spec.port", "`spec.port` is 0: name a port from 1 to 65535"));
    }
    model::name::check("spec.process", &spec.process)?;
    match spec.mode {
        Mode::Http | Mode::Tls => {
            if spec.listen_port.is_some() {
                let message = "`spec.listen_port` is for mode tcp; http and tls routes are told apart by host";
                return Err(Error::invalid("spec.listen_port", message).hint("leave it out"));
            }
            let host = spec.host.as_deref().ok_or_else(|| {
                Error::invalid("spec.host", "`spec.host` is missing: a route of mode http or tls needs a host name")
            })?;
            fiberlb::host::check(host).map_err(|problem| {
                let nearest = fiberlb::host::normal(host);
                Error::invalid("spec.host", format!("`{host}` is not a host name: {problem}"))
                    .hint(format!("the nearest form is `{nearest}`"))
            })?;
            let mode = if spec.mode == Mode::Http { "http" } else { "tls" };
            Ok(format!("host/{mode}/{host}"))
        }
        Mode::Tcp => {
            if spec.host.is_some() {
                return Err(Error::invalid("spec.host", "`spec.host` is for modes http and tls").hint("leave it out"));
            }
            let port = spec.listen_port.ok_or_else(|| {
                Error::invalid(
                    "spec.listen_port",
                    "`spec.listen_port` is missing: a route of mode tcp needs a port to listen on",
                )
            })?;
            if let Some(why) = fiberlb::denied(port) {
                return Err(Error::invalid("spec.listen_port", format!("port {port} cannot be had: {why}")));
            }
            Ok(format!("host/tcp/{port}"))
        }
    }
}

/// Where people reach a route.
pub fn url(spec: &Spec, settings: &Settings) -> String {
    let host = spec.host.as_deref().unwrap_or("localhost");
    let with = |scheme: &str, port: u16, usual: u16| {
        if port == usual { format!("{scheme}://{host}") } else { format!("{scheme}://{host}:{port}") }
    };
    match spec.mode {
        Mode::Http => with("http", settings.http_port, 80),
        Mode::Tls => with("https", settings.tls_port.unwrap_or(443), 443),
        Mode::Tcp => format!("tcp://{host}:{}", spec.listen_port.unwrap_or_default()),
    }
}

/// Everything the ingress of a node is to serve. Pure; sorted by id.
pub fn desired(table: &Table, settings: &Settings) -> fiberlb::Desired {
    let routes = table.of_kind("route").filter(|row| !row.deleting()).filter_map(|row| {
        let spec: Spec = read("spec", &row.spec).ok()?;
        let mode = match (spec.mode, &spec.host, spec.listen_port) {
            (Mode::Http, Some(host), _) => fiberlb::Mode::Http { host: host.clone() },
            (Mode::Tls, Some(host), _) => fiberlb::Mode::Tls { host: host.clone() },
            (Mode::Tcp, _, Some(port)) => fiberlb::Mode::Tcp { port },
            _ => return None,
        };
        let vms = || table.at(&row.scope, "vm").filter(|vm| !vm.deleting());
        let serves = |vm: &model::Row| vm.phase == "ready" && vm.current();
        let of_process = |vm: &model::Row| {
            read::<vm::Spec>("spec", &vm.spec).ok().filter(|vm: &vm::Spec| vm.process == spec.process)
        };
        let asleep = vms().filter(|vm| {
            let status: vm::Status = read("status", &vm.status).unwrap_or_default();
            // One whose wish has just changed serves in a moment, or can be woken.
            let soon = status.rested && vm.phase != "failed" || vm.phase == "ready";
            soon && !serves(vm) && of_process(vm).is_some()
        });
        let asleep = asleep.map(|vm| vm.id.to_string()).collect();
        let ready = vms().filter(|vm| serves(vm));
        let backends = ready.filter_map(|vm| {
            let wanted = of_process(vm)?;
            let addresses = settings.prefixes.port(wanted.network.number, wanted.network.offset).ok()?;
            let addr = SocketAddr::new(IpAddr::V4(addresses.v4), spec.port);
            Some(fiberlb::Backend { id: vm.id.to_string(), addr })
        });
        Some(fiberlb::Route { id: row.id.to_string(), mode, backends: backends.collect(), asleep })
    });
    fiberlb::Desired { generation: table.revision, routes: routes.collect() }
}

/// What the ingress does with a route now.
pub fn seen(ingress: &fiberlb::Handle, applied: Option<fiberlb::Desired>, id: &Id) -> Seen {
    let status = ingress.status();
    let route = status.routes.iter().find(|route| route.id == id.as_str());
    let backends = || route.iter().flat_map(|route| &route.backends);
    Seen {
        applied,
        backends: backends().map(|backend| backend.id.clone()).collect(),
        draining: backends().filter(|backend| backend.draining).map(|backend| backend.id.clone()).collect(),
        problem: route.and_then(|route| route.problem.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mode: Mode, host: Option<&str>, listen_port: Option<u16>) -> Spec {
        Spec { mode, host: host.map(str::to_owned), listen_port, process: "web".into(), port: 80 }
    }

    #[test]
    fn a_route_needs_what_its_mode_is_told_apart_by() {
        assert_eq!(check(&spec(Mode::Http, Some("a.example"), None)).unwrap(), "host/http/a.example");
        assert_eq!(check(&spec(Mode::Tcp, None, Some(5432))).unwrap(), "host/tcp/5432");
        assert_eq!(check(&spec(Mode::Http, None, None)).unwrap_err().field.unwrap(), "spec.host");
        assert_eq!(check(&spec(Mode::Tcp, None, Some(25))).unwrap_err().field.unwrap(), "spec.listen_port");
        assert!(check(&spec(Mode::Tls, Some("UPPER.example"), None)).unwrap_err().hint.contains("upper.example"));
        assert!(check(&spec(Mode::Tcp, Some("a.example"), Some(1))).is_err());
    }
}
