//! The listeners of tcp routes: opened and closed as the configuration lists them.
//!
//! A port that another program holds is that one route's problem, not the configuration's: the others are served, the
//! status names it, and it is tried again until it opens.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{SETTING_HTTP, SETTING_TCP_BIND, SETTING_TLS};
use crate::desired::{Desired, Mode};
use crate::engine::Engine;
use crate::error::Error;
use crate::listener::{self, Door};
use crate::socket;

#[derive(Debug)]
struct Open {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug)]
pub struct Ports {
    bind: IpAddr,
    /// Whether this node has a listener for the mode at all.
    has_http: bool,
    has_tls: bool,
    open: BTreeMap<u16, Open>,
}

impl Ports {
    pub fn new(bind: IpAddr, has_http: bool, has_tls: bool) -> Self {
        Self { bind, has_http, has_tls, open: BTreeMap::new() }
    }

    /// Makes the open ports those of `desired`. Returns, by route, why a route is not reachable.
    pub async fn reconcile(&mut self, desired: &Desired, engine: &Arc<Engine>) -> HashMap<String, String> {
        let wanted = |port: u16| desired.routes.iter().any(|route| route.mode == Mode::Tcp { port });
        let gone: Vec<u16> = self.open.keys().copied().filter(|port| !wanted(*port)).collect();
        for port in gone {
            if let Some(open) = self.open.remove(&port) {
                open.stop.cancel();
                // Waited for, so that the port is free when the change is acknowledged.
                let _ = open.task.await;
            }
        }
        let mut problems = HashMap::new();
        for route in &desired.routes {
            let problem = match route.mode {
                Mode::Http { .. } if !self.has_http => Some(missing("HTTP", SETTING_HTTP)),
                Mode::Tls { .. } if !self.has_tls => Some(missing("TLS", SETTING_TLS)),
                Mode::Http { .. } | Mode::Tls { .. } => None,
                Mode::Tcp { port } => self.open(port, engine).await.err().map(|error| {
                    let hint = error.hint();
                    format!("{error}: {hint}")
                }),
            };
            if let Some(problem) = problem {
                problems.insert(route.id.clone(), problem);
            }
        }
        problems
    }

    async fn open(&mut self, port: u16, engine: &Arc<Engine>) -> Result<(), Error> {
        if self.open.contains_key(&port) {
            return Ok(());
        }
        let addr = SocketAddr::new(self.bind, port);
        let socket = socket::listen(addr).await.map_err(|source| Error::Bind {
            listener: "tcp",
            addr,
            setting: SETTING_TCP_BIND,
            source,
        })?;
        let stop = engine.stop.child_token();
        let task = engine.tasks.spawn(listener::run(socket, Door::Tcp(port), Arc::clone(engine), stop.clone()));
        self.open.insert(port, Open { stop, task });
        Ok(())
    }
}

fn missing(kind: &str, setting: &str) -> String {
    format!("this node has no {kind} listener; set {setting}")
}
