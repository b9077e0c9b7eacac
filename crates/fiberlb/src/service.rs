//! Opening, changing and closing the ingress of a node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use world::Clock;

use crate::config::{Config, SETTING_HTTP, SETTING_TLS};
use crate::desired::{Desired, validate};
use crate::engine::Engine;
use crate::error::Error;
use crate::listener::{self, Door};
use crate::ports::Ports;
use crate::status::Status;
use crate::{persist, socket};

/// Between two looks at ports that could not be opened and at connections nobody uses.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(5);

/// Opens the ingress; see [`Handle`] for what to do with it.
#[derive(Debug)]
pub struct Service;

/// The open ingress. Clones are the same one; when the last is dropped everything is cut. [`Handle::close`] is gentler.
#[derive(Clone, Debug)]
pub struct Handle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    live: Arc<Mutex<Live>>,
    http: Vec<SocketAddr>,
    tls: Option<SocketAddr>,
}

/// What only one change at a time may touch.
#[derive(Debug)]
struct Live {
    state_dir: PathBuf,
    /// Ports of the node's own listeners, which no tcp route may have.
    taken: Vec<(u16, &'static str)>,
    desired: Option<Desired>,
    ports: Ports,
}

/// What became of an accepted wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The generation now in force.
    pub generation: u64,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in force and on disk.
    Changed,
    /// It was in force already.
    Unchanged,
    /// A newer one is in force; nothing was done.
    Stale,
}

impl Service {
    /// Opens the listeners and serves the last good configuration, if there is one, before anyone applies another.
    ///
    /// # Errors
    /// [`Error::Bind`] names the listener, its address and the setting to change; [`Error::Load`] when the saved
    /// configuration is of a newer version or cannot be read. Then nothing is left open.
    pub async fn open(config: Config) -> Result<Handle, Error> {
        Self::open_with(config, Clock::real()).await
    }

    /// As [`Service::open`], with the clock by which failed backends are avoided.
    pub async fn open_with(config: Config, clock: Clock) -> Result<Handle, Error> {
        let state_dir = config.state_dir.clone();
        let desired = blocking(move || persist::load(&state_dir)).await?;

        let mut listeners = Vec::new();
        let mut http = Vec::new();
        for addr in &config.http {
            let (socket, bound) = bind("http", *addr, SETTING_HTTP).await?;
            http.push(bound);
            listeners.push((socket, Door::Http));
        }
        let mut tls = None;
        if let Some(addr) = config.tls {
            let (socket, bound) = bind("tls", addr, SETTING_TLS).await?;
            tls = Some(bound);
            listeners.push((socket, Door::Tls));
        }
        let taken = http.iter().map(|addr| (addr.port(), "http"));
        let taken = taken.chain(tls.iter().map(|addr| (addr.port(), "tls"))).collect();

        let engine = Arc::new(Engine::new(config.limits, clock));
        let mut ports = Ports::new(config.tcp_bind, !http.is_empty(), tls.is_some());
        if let Some(desired) = &desired {
            engine.swap(desired);
            engine.set_problems(ports.reconcile(desired, &engine).await);
        }
        for (socket, door) in listeners {
            engine.tasks.spawn(listener::run(socket, door, Arc::clone(&engine), engine.stop.clone()));
        }
        let live = Arc::new(Mutex::new(Live { state_dir: config.state_dir, taken, desired, ports }));
        engine.tasks.spawn(housekeeper(Arc::clone(&engine), Arc::clone(&live)));
        tracing::info!(?http, ?tls, generation = engine.generation(), "ingress open");
        Ok(Handle { inner: Arc::new(Inner { engine, live, http, tls }) })
    }
}

impl Handle {
    /// Puts a complete wish in force: checked as a whole, made durable, then swapped in at once. A tcp port that does
    /// not open is not an error here but a problem of its route, see [`crate::RouteStatus::problem`].
    ///
    /// When this returns, no new request goes to a backend that is no longer listed. Once begun it runs to its end,
    /// even if the caller no longer waits.
    ///
    /// # Errors
    /// Those of validation and [`Error::Persist`]; then the old configuration stays in force, on disk and in service.
    pub async fn apply(&self, desired: Desired) -> Result<Applied, Error> {
        let (engine, live) = (Arc::clone(&self.inner.engine), Arc::clone(&self.inner.live));
        // A task of its own: a caller that goes away must not leave the disk ahead of the service.
        tokio::spawn(async move { live.lock().await.apply(desired, &engine).await }).await.unwrap_or(Err(Error::Closed))
    }

    /// Ends what is still in flight to a backend that [`Handle::apply`] has removed, without waiting for its drain
    /// limit: for one that is known to be dead. Requests that may be repeated are answered by other backends. Returns
    /// whether such a backend was draining.
    pub fn cut(&self, route: &str, backend: &str) -> bool {
        self.inner.engine.cut(route, backend)
    }

    /// True while a client waits for this backend, which sleeps. It ends when the backend is listed as serving, or as
    /// nothing.
    pub fn is_wanted(&self, backend: &str) -> bool {
        self.inner.engine.is_wanted(backend)
    }

    /// All backends that sleep and that a client waits for. [`Handle::changes`] moves when there is another.
    pub fn wanted(&self) -> Vec<String> {
        self.inner.engine.wanted()
    }

    /// For how long nothing has been in flight to this backend by any route; `None` while something is, or when no route
    /// sends to it.
    pub fn idle(&self, backend: &str) -> Option<Duration> {
        self.inner.engine.idle(backend)
    }

    /// The state now. Exact: a backend that is gone from it, or has `active: 0` while draining, gets nothing any more.
    pub fn status(&self) -> Status {
        self.inner.engine.status()
    }

    /// Moves whenever the status changed in something other than a count: a configuration came in force, a draining
    /// backend is empty or was cut, a backend failed or answers again, a route's problem came or went.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.engine.bell.changes.subscribe()
    }

    /// Where the HTTP listeners are, in the order of the configuration, with the real ports.
    pub fn http_addrs(&self) -> &[SocketAddr] {
        &self.inner.http
    }

    /// Where the TLS listener is, with its real port.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.inner.tls
    }

    /// Stops listening, lets what is in flight finish within the drain limit, then cuts the rest. Idempotent.
    pub async fn close(&self) {
        let engine = &self.inner.engine;
        engine.stop.cancel();
        engine.tasks.close();
        engine.close_pools();
        let _ = timeout(engine.limits.drain_timeout, engine.tasks.wait()).await;
        engine.kill.cancel();
        engine.tasks.wait().await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.stop.cancel();
        self.engine.kill.cancel();
        self.engine.tasks.close();
    }
}

impl Live {
    async fn apply(&mut self, desired: Desired, engine: &Arc<Engine>) -> Result<Applied, Error> {
        if engine.stop.is_cancelled() {
            return Err(Error::Closed);
        }
        let now = |generation, outcome| Ok(Applied { generation, outcome });
        if let Some(current) = &self.desired {
            if desired.generation < current.generation {
                return now(current.generation, Outcome::Stale);
            }
            if desired == *current {
                return now(current.generation, Outcome::Unchanged);
            }
        }
        validate(&desired, &self.taken)?;
        let state_dir = self.state_dir.clone();
        let desired = blocking(move || persist::save(&state_dir, &desired).map(|()| desired)).await?;
        engine.swap(&desired);
        engine.set_problems(self.ports.reconcile(&desired, engine).await);
        tracing::info!(
            generation = desired.generation,
            routes = desired.routes.len(),
            "ingress configuration in force"
        );
        let generation = desired.generation;
        self.desired = Some(desired);
        now(generation, Outcome::Changed)
    }

    /// Tries the ports again that could not be opened.
    async fn reopen(&mut self, engine: &Arc<Engine>) {
        if let Some(desired) = &self.desired {
            engine.set_problems(self.ports.reconcile(desired, engine).await);
        }
    }
}

async fn bind(
    listener: &'static str,
    addr: SocketAddr,
    setting: &'static str,
) -> Result<(TcpListener, SocketAddr), Error> {
    let fault = |source| Error::Bind { listener, addr, setting, source };
    let socket = socket::listen(addr).await.map_err(fault)?;
    let bound = socket.local_addr().map_err(fault)?;
    Ok((socket, bound))
}

/// Runs what blocks on the disk where it may. A task that panicked or a runtime that ends shows as closed.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(act).await.unwrap_or(Err(Error::Closed))
}

/// Ends drains, opens ports that were taken, drops connections nobody uses.
async fn housekeeper(engine: Arc<Engine>, live: Arc<Mutex<Live>>) {
    let mut tick = interval(HOUSEKEEPING_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let deadline = engine.sweep(Instant::now());
        let late = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = engine.stop.cancelled() => return,
            () = engine.bell.emptied.notified() => {}
            () = late => {}
            _ = tick.tick() => {
                engine.prune();
                if engine.has_problems() {
                    live.lock().await.reopen(&engine).await;
                }
            }
        }
    }
}
