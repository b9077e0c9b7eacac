//! The table in force, the backends that drain, and the one lock over both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use world::Clock;

use crate::backend::{Backend, Bell, Flight};
use crate::config::Limits;
use crate::desired::{Desired, Mode};
use crate::pick::pick;
use crate::status::{BackendStatus, RouteStatus, Status};

/// What a client asked for.
#[derive(Clone, Copy, Debug)]
pub enum Key<'a> {
    Http(&'a str),
    /// The server name of the hello, if it has one.
    Tls(Option<&'a str>),
    Tcp(u16),
}

/// Why nobody serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    NoRoute,
    NoBackend,
    /// Those that would serve sleep.
    Asleep,
    /// Every backend has been tried.
    Exhausted,
}

#[derive(Debug)]
struct Route {
    id: String,
    mode: Mode,
    backends: Vec<Arc<Backend>>,
    asleep: Vec<String>,
    cursor: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Table {
    generation: u64,
    routes: Vec<Arc<Route>>,
    http: HashMap<String, Arc<Route>>,
    tls: HashMap<String, Arc<Route>>,
    tcp: HashMap<u16, Arc<Route>>,
}

/// What makes a backend the same one from one configuration to the next: route, id, address.
type Identity = (String, String, SocketAddr);

#[derive(Debug)]
struct Draining {
    backend: Arc<Backend>,
    deadline: Instant,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    draining: Vec<Draining>,
}

#[derive(Debug)]
pub struct Engine {
    pub limits: Limits,
    pub clock: Clock,
    pub bell: Arc<Bell>,
    /// No new connections, no new requests on old ones.
    pub stop: CancellationToken,
    /// Everything ends now.
    pub kill: CancellationToken,
    pub tasks: TaskTracker,
    state: RwLock<State>,
    /// Backends that sleep and that a client waits for.
    wanted: Mutex<BTreeSet<String>>,
    /// Why a route is not reachable, by route id.
    problems: Mutex<HashMap<String, String>>,
}

impl Engine {
    pub fn new(limits: Limits, clock: Clock) -> Self {
        Self {
            limits,
            clock,
            bell: Arc::new(Bell { emptied: Notify::new(), changes: watch::Sender::new(0) }),
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
            state: RwLock::default(),
            wanted: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    /// A backend for `key` that is not in `tried`, already counted as in flight.
    ///
    /// The count grows while the table is locked for reading and the table is swapped while it is locked for writing:
    /// after a swap, what is in flight to a removed backend can only become less.
    pub fn pick(&self, key: Key<'_>, tried: &[Arc<Backend>]) -> Result<Flight, Miss> {
        let state = self.state.read();
        let route = state.table.find(key).ok_or(Miss::NoRoute)?;
        if route.backends.is_empty() {
            return Err(if route.asleep.is_empty() { Miss::NoBackend } else { Miss::Asleep });
        }
        let backend = pick(&route.backends, &route.cursor, tried, self.clock.monotonic(), &self.limits);
        Ok(Flight::start(backend.ok_or(Miss::Exhausted)?, Arc::clone(&self.bell), self.clock.clone()))
    }

    /// As [`Engine::pick`], and waits while those that would serve are being woken.
    pub async fn pick_awake(&self, key: Key<'_>, tried: &[Arc<Backend>]) -> Result<Flight, Miss> {
        let deadline = Instant::now() + self.limits.wake_timeout;
        loop {
            // Before the look, so that no change after it is missed.
            let mut changes = self.bell.changes.subscribe();
            match self.pick(key, tried) {
                Err(Miss::Asleep) => self.want(key),
                picked => return picked,
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(deadline) => return Err(Miss::NoBackend),
                () = self.stop.cancelled() => return Err(Miss::NoBackend),
            }
        }
    }

    /// Has a sleeping backend woken; clients that come meanwhile wait for the same one.
    fn want(&self, key: Key<'_>) {
        let state = self.state.read();
        let Some(route) = state.table.find(key) else { return };
        let mut wanted = self.wanted.lock();
        if route.asleep.iter().any(|id| wanted.contains(id)) {
            return;
        }
        let Some(first) = route.asleep.first() else { return };
        tracing::info!(route = %route.id, backend = %first, "a client waits for a backend that sleeps");
        wanted.insert(first.clone());
        drop(wanted);
        drop(state);
        self.bell.ring();
    }

    /// A client waits for this backend, which sleeps.
    pub fn is_wanted(&self, id: &str) -> bool {
        self.wanted.lock().contains(id)
    }

    pub fn wanted(&self) -> Vec<String> {
        self.wanted.lock().iter().cloned().collect()
    }

    /// For how long nothing has been in flight to the backends of this id; `None` while something is, or when no route
    /// has one.
    pub fn idle(&self, id: &str) -> Option<Duration> {
        let (state, now) = (self.state.read(), self.clock.monotonic());
        let draining = state.draining.iter().map(|one| &one.backend);
        let all = state.table.routes.iter().flat_map(|route| &route.backends).chain(draining);
        let idle: Vec<_> = all.filter(|backend| backend.id == id).map(|backend| backend.idle(now)).collect();
        idle.into_iter().collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Puts a validated wish in force. Backends that stay keep their counts, their health and their connections.
    pub fn swap(&self, desired: &Desired) {
        let mut state = self.state.write();
        let state = &mut *state;
        // What is left in `known` at the end is no longer wished for.
        let mut known: HashMap<Identity, (Arc<Backend>, Option<Instant>)> = HashMap::new();
        let serving = state.table.routes.iter().flat_map(|route| &route.backends).map(|one| (Arc::clone(one), None));
        let draining = state.draining.drain(..).map(|one| (one.backend, Some(one.deadline)));
        for (backend, deadline) in serving.chain(draining) {
            known.insert((backend.route.clone(), backend.id.clone(), backend.addr), (backend, deadline));
        }
        let cursors: HashMap<&str, &Arc<AtomicUsize>> =
            state.table.routes.iter().map(|route| (route.id.as_str(), &route.cursor)).collect();

        let mut table = Table { generation: desired.generation, ..Table::default() };
        for wish in &desired.routes {
            let backends = wish.backends.iter().map(|wanted| {
                let key = (wish.id.clone(), wanted.id.clone(), wanted.addr);
                if let Some((backend, _)) = known.remove(&key) {
                    backend.revive();
                    return backend;
                }
                Arc::new(Backend::new(&wish.id, &wanted.id, wanted.addr, self.clock.monotonic()))
            });
            let backends = backends.collect();
            let cursor = cursors.get(wish.id.as_str()).map_or_else(Arc::default, |cursor| Arc::clone(cursor));
            let (id, mode, asleep) = (wish.id.clone(), wish.mode.clone(), wish.asleep.clone());
            table.insert(Arc::new(Route { id, mode, backends, asleep, cursor }));
        }
        // Who serves, or is gone, need not be woken.
        let sleeping: BTreeSet<&String> = desired.routes.iter().flat_map(|route| &route.asleep).collect();
        self.wanted.lock().retain(|id| sleeping.contains(id));
        state.table = table;

        let fresh = Instant::now() + self.limits.drain_timeout;
        for (backend, deadline) in known.into_values() {
            backend.retire();
            state.draining.push(Draining { backend, deadline: deadline.unwrap_or(fresh) });
        }
        // Those that are empty already go at once; the housekeeper comes for the others.
        state.sweep(Instant::now());
        self.bell.emptied.notify_one();
        self.bell.ring();
    }

    /// Forgets draining backends that are empty and cuts those whose limit has passed. Returns the next limit.
    pub fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.write();
        if state.sweep(now) {
            self.bell.ring();
        }
        state.draining.iter().map(|one| one.deadline).min()
    }

    /// Cuts a draining backend now. Returns whether there was one.
    pub fn cut(&self, route: &str, id: &str) -> bool {
        let mut state = self.state.write();
        let now = Instant::now();
        let mut found = false;
        for one in state.draining.iter_mut().filter(|one| one.backend.route == route && one.backend.id == id) {
            one.deadline = now;
            found = true;
        }
        if state.sweep(now) {
            self.bell.ring();
        }
        found
    }

    /// Closes unused connections to backends that have been kept long enough.
    pub fn prune(&self) {
        for route in &self.state.read().table.routes {
            for backend in &route.backends {
                backend.pool.prune(&self.limits);
            }
        }
    }

    /// Closes all unused connections to backends for good.
    pub fn close_pools(&self) {
        for route in &self.state.read().table.routes {
            for backend in &route.backends {
                backend.pool.close();
            }
        }
    }

    pub fn generation(&self) -> u64 {
        self.state.read().table.generation
    }

    pub fn set_problems(&self, problems: HashMap<String, String>) {
        let mut current = self.problems.lock();
        if *current != problems {
            for (route, problem) in &problems {
                tracing::warn!(%route, %problem, "route is not reachable");
            }
            *current = problems;
            self.bell.ring();
        }
    }

    pub fn has_problems(&self) -> bool {
        !self.problems.lock().is_empty()
    }

    pub fn status(&self) -> Status {
        let (now, wall_ms) = (self.clock.monotonic(), self.clock.now_ms());
        let describe = |backend: &Arc<Backend>| {
            let until = backend.avoided_until();
            BackendStatus {
                id: backend.id.clone(),
                addr: backend.addr,
                active: backend.active(),
                healthy: until.is_none(),
                draining: backend.is_draining(),
                ejected_until_ms: until.map(|until| wall_ms + until.saturating_sub(now).as_millis() as u64),
            }
        };
        let state = self.state.read();
        let problems = self.problems.lock();
        let mut draining: BTreeMap<&str, Vec<BackendStatus>> = BTreeMap::new();
        for one in state.draining.iter().filter(|one| one.backend.active() > 0) {
            draining.entry(&one.backend.route).or_default().push(describe(&one.backend));
        }
        let mut routes = Vec::with_capacity(state.table.routes.len());
        for route in &state.table.routes {
            let mut backends: Vec<_> = route.backends.iter().map(describe).collect();
            backends.extend(draining.remove(route.id.as_str()).unwrap_or_default());
            let problem = problems.get(&route.id).cloned();
            routes.push(RouteStatus { id: route.id.clone(), removed: false, problem, backends });
        }
        for (id, backends) in draining {
            routes.push(RouteStatus { id: id.into(), removed: true, problem: None, backends });
        }
        Status { generation: state.table.generation, routes }
    }
}

impl State {
    fn sweep(&mut self, now: Instant) -> bool {
        let before = self.draining.len();
        self.draining.retain(|one| {
            let (active, late) = (one.backend.active(), one.deadline <= now);
            if active > 0 && late {
                let Backend { route, id, .. } = &*one.backend;
                tracing::warn!(%route, backend = %id, active, "backend did not drain in time and is cut");
            }
            let done = active == 0 || late;
            if done {
                one.backend.cut.cancel();
            }
            !done
        });
        self.draining.len() != before
    }
}

impl Table {
    fn insert(&mut self, route: Arc<Route>) {
        match &route.mode {
            Mode::Http { host } => self.http.insert(host.clone(), Arc::clone(&route)),
            Mode::Tls { host } => self.tls.insert(host.clone(), Arc::clone(&route)),
            Mode::Tcp { port } => self.tcp.insert(*port, Arc::clone(&route)),
        };
        self.routes.push(route);
    }

    fn find(&self, key: Key<'_>) -> Option<&Arc<Route>> {
        match key {
            Key::Http(host) => self.http.get(host),
            Key::Tls(Some(name)) => self.tls.get(name),
            // Without a name any tls route could be meant; with one route there is no doubt.
            Key::Tls(None) if self.tls.len() == 1 => self.tls.values().next(),
            Key::Tls(None) => None,
            Key::Tcp(port) => self.tcp.get(&port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::desired;

    fn desired(generation: u64, backends: &[(&str, u16)]) -> Desired {
        let backends = backends
            .iter()
            .map(|(id, port)| desired::Backend { id: (*id).into(), addr: ([127, 0, 0, 1], *port).into() })
            .collect();
        let mode = Mode::Http { host: "a.b".into() };
        Desired { generation, routes: vec![desired::Route { id: "r".into(), mode, backends, asleep: Vec::new() }] }
    }

    fn lines(engine: &Engine) -> Vec<String> {
        let routes = engine.status().routes;
        let mut lines = Vec::new();
        for route in routes {
            for one in route.backends {
                let words = [(one.draining, " draining"), (route.removed, " removed")];
                let words: String = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
                lines.push(format!("{} {} {}{words}", route.id, one.id, one.active));
            }
        }
        lines
    }

    #[test]
    fn a_removed_backend_drains_until_it_is_empty() {
        let engine = Engine::new(Limits::default(), Clock::real());
        engine.swap(&desired(1, &[("x", 1)]));
        let flight = engine.pick(Key::Http("a.b"), &[]).unwrap();
        engine.swap(&desired(2, &[("y", 2)]));
        assert_eq!(lines(&engine), ["r y 0", "r x 1 draining"]);
        assert_eq!(engine.pick(Key::Http("a.b"), &[]).unwrap().backend().id, "y");
        let mut changes = engine.bell.changes.subscribe();
        let woken = || futures::FutureExt::now_or_never(engine.bell.emptied.notified()).is_some();
        // The swap itself wakes the housekeeper, which then knows the drain's limit.
        assert!(woken() && !woken());
        drop(flight);
        assert!(woken());
        assert_eq!(lines(&engine), ["r y 0"]);
        assert_eq!(engine.sweep(Instant::now()), None);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        engine.sweep(Instant::now());
        assert!(!changes.has_changed().unwrap());
    }

    #[test]
    fn a_drain_that_takes_too_long_is_cut() {
        let engine = Engine::new(Limits::default(), Clock::real());
        engine.swap(&desired(1, &[("x", 1)]));
        let flight = engine.pick(Key::Http("a.b"), &[]).unwrap();
        engine.swap(&Desired { generation: 2, routes: vec![] });
        assert_eq!(lines(&engine), ["r x 1 draining removed"]);
        // A later change does not give it more time.
        engine.swap(&desired(3, &[]));
        let start = Instant::now();
        assert!(engine.sweep(start + Duration::from_secs(20)).is_some());
        assert!(!flight.backend().cut.is_cancelled());
        assert_eq!(engine.sweep(start + Duration::from_secs(30)), None);
        assert!(flight.backend().cut.is_cancelled());
        assert!(lines(&engine).is_empty());
    }

    #[test]
    fn a_draining_backend_that_is_listed_again_serves_again() {
        let engine = Engine::new(Limits::default(), Clock::real());
        engine.swap(&desired(1, &[("x", 1)]));
        let flight = engine.pick(Key::Http("a.b"), &[]).unwrap();
        engine.swap(&desired(2, &[]));
        engine.swap(&desired(3, &[("x", 1)]));
        assert_eq!(lines(&engine), ["r x 1"]);
        assert_eq!(engine.sweep(Instant::now()), None);
        // Another address under the same id is another backend.
        engine.swap(&desired(4, &[("x", 2)]));
        assert_eq!(lines(&engine), ["r x 0", "r x 1 draining"]);
        drop(flight);
    }

    #[tokio::test]
    async fn clients_of_a_sleeping_backend_wait_for_one_wake() {
        let engine = Arc::new(Engine::new(Limits::default(), Clock::real()));
        let mut asleep = desired(1, &[]);
        asleep.routes[0].asleep = vec!["x".into(), "y".into()];
        engine.swap(&asleep);
        let mut changes = engine.bell.changes.subscribe();
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let engine = Arc::clone(&engine);
                tokio::spawn(async move { engine.pick_awake(Key::Http("a.b"), &[]).await })
            })
            .collect();
        changes.changed().await.unwrap();
        assert_eq!((engine.wanted(), engine.is_wanted("y")), (vec!["x".to_owned()], false));
        // A table without news for them changes nothing.
        engine.swap(&asleep);
        tokio::task::yield_now().await;
        assert!(engine.is_wanted("x"));
        engine.swap(&desired(2, &[("x", 1)]));
        for client in clients {
            assert_eq!(client.await.unwrap().unwrap().backend().id, "x");
        }
        assert!(engine.wanted().is_empty());
        assert_eq!(engine.idle("y"), None);
        assert!(engine.idle("x").is_some());
        let flight = engine.pick(Key::Http("a.b"), &[]).unwrap();
        assert_eq!(engine.idle("x"), None);
        drop(flight);
        assert!(engine.idle("x").unwrap() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_client_is_not_held_for_ever() {
        let limits = Limits { wake_timeout: Duration::from_millis(30), ..Limits::default() };
        let engine = Engine::new(limits, Clock::real());
        let mut asleep = desired(1, &[]);
        asleep.routes[0].asleep = vec!["x".into()];
        engine.swap(&asleep);
        assert_eq!(engine.pick_awake(Key::Http("a.b"), &[]).await.unwrap_err(), Miss::NoBackend);
    }

    #[test]
    fn without_a_server_name_only_a_single_tls_route_matches() {
        let engine = Engine::new(Limits::default(), Clock::real());
        let route = |id: &str| desired::Route {
            id: id.into(),
            mode: Mode::Tls { host: format!("{id}.test") },
            backends: vec![desired::Backend { id: id.into(), addr: ([127, 0, 0, 1], 1).into() }],
            asleep: Vec::new(),
        };
        engine.swap(&Desired { generation: 1, routes: vec![route("a")] });
        assert!(engine.pick(Key::Tls(None), &[]).is_ok());
        assert_eq!(engine.pick(Key::Tls(Some("b.test")), &[]).unwrap_err(), Miss::NoRoute);
        engine.swap(&Desired { generation: 2, routes: vec![route("a"), route("b")] });
        assert_eq!(engine.pick(Key::Tls(None), &[]).unwrap_err(), Miss::NoRoute);
        assert_eq!(engine.pick(Key::Tls(Some("b.test")), &[]).unwrap().backend().id, "b");
    }
}
