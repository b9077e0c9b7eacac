//! The wiring: built top to bottom, stopped bottom to top.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reconcile::rows::Changed;
use reconcile::{Door, Loop, Place, Rows};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Cloud};
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::uploads::Uploads;
use crate::{routes, schedule, serve};

/// How often the server certificate is looked at.
const RENEWAL_SECONDS: u64 = 3600;
/// How long connections may take to end.
const SHUTDOWN_SECONDS: u64 = 10;
/// The name of the loop in the log of who acted.
const LOOP: &str = "control";

/// Something that is asked for JSON when a caller wants it.
pub type Provider = Arc<dyn Fn() -> Value + Send + Sync>;

/// What the control plane stands on.
pub struct Parts {
    /// Its registry decides which routes there are.
    pub door: Door,
    pub rows: Rows,
    /// Of the same [`Rows::follow`] as `rows`.
    pub changes: broadcast::Sender<Changed>,
    pub uploads: Arc<dyn Uploads>,
    /// The object of `GET /v1/info`; `data_dir` in it is for tokens of the whole cloud.
    pub info: Provider,
    /// The array of `GET /v1/config`.
    pub config: Provider,
    pub ca: iam::Ca,
    /// As `GET /version` says it.
    pub version: String,
}

/// The control plane.
#[derive(Debug)]
pub struct Service;

/// A running control plane. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Handle {
    /// Where the API listens.
    pub addr: SocketAddr,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Handle {
    /// Takes no more connections, lets present requests end, and stops. Streams end at once.
    pub async fn shutdown(self) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(SHUTDOWN_SECONDS), self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Service {
    /// Listens, and starts the scheduler, the loop of this place's kinds, and the renewal of the certificate.
    ///
    /// Errors: [`Error::ListenTaken`], [`Error::Listen`], [`Error::Tls`]; nothing runs then.
    pub async fn open(config: Config, parts: Parts) -> Result<Handle, Error> {
        let Parts { door, rows, changes, uploads, info, config: settings, ca, version } = parts;
        let limits = Arc::new(config.limits);
        let tls = TlsAcceptor::from(ca.server_config(&serve::PROTOCOLS).map_err(Error::Tls)?);
        let (address, setting) = (config.listen, config.listen_setting);
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => Error::ListenTaken { address, setting },
            _ => Error::Listen { address, setting, source },
        })?;
        let addr = listener.local_addr().map_err(|source| Error::Listen { address, setting, source })?;

        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let cloud = Arc::new(Cloud {
            routes: routes::routes(door.registry()),
            openapi: serde_json::to_vec_pretty(&crate::openapi(door.registry()))
                .expect("a JSON value is written")
                .into(),
            started: door.clock().monotonic(),
            requests: Arc::new(Semaphore::new(limits.requests_max)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            streams_by_token: Arc::new(parking_lot::Mutex::new(BTreeMap::new())),
            metrics: Metrics::default(),
            closing: closing.clone(),
            door: door.clone(),
            rows: rows.clone(),
            changes: changes.clone(),
            limits: limits.clone(),
            uploads,
            info,
            settings,
            version,
        });

        let here = Arc::new(|kind: &dyn reconcile::Kind, _: &model::Row| kind.contract().place == Place::Control);
        let turns = Loop::new(door.clone(), rows.clone(), LOOP, None, here).run(changes.subscribe());
        let scheduling = schedule::run(door.clone(), rows, changes.subscribe());
        let serving = serve::serve(listener, tls, api::router(&cloud), limits, tasks.clone(), closing.clone());
        until(&tasks, &closing, turns);
        until(&tasks, &closing, scheduling);
        until(&tasks, &closing, renew(ca));
        tasks.spawn(serving);
        tracing::info!(%addr, "the API listens");
        Ok(Handle { addr, closing, tasks })
    }
}

/// Runs a task that ends when the service closes.
fn until(tasks: &TaskTracker, closing: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let closing = closing.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = work => {}
        }
    });
}

async fn renew(ca: iam::Ca) {
    loop {
        match ca.renew_if_due() {
            Ok(true) => tracing::info!("the server certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the server certificate could not be renewed"),
        }
        tokio::time::sleep(Duration::from_secs(RENEWAL_SECONDS)).await;
    }
}
