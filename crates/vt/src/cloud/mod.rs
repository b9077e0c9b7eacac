//! The whole cloud in one process.
//!
//! ```text
//! up -> config     settings: flag > VT_* > file > default
//!    -> preflight  root, programs
//!    -> identity   what tells this installation from another, drawn once
//!    -> open       the wiring, top to bottom
//!    -> bootstrap  the first org, project and token
//!    -> wait for a signal; then stop, bottom to top. Machines go on and are taken back by the next start.
//! ```

mod bootstrap;
pub mod config;
mod identity;
mod open;
pub mod preflight;
mod uploads;

use std::path::PathBuf;

use model::Error;
use tokio::signal::unix::{SignalKind, signal};

/// PID 1 of the guests, a static program; built by build.rs.
static GUEST_INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest-init"));

/// The registry as it describes itself, without anything running: for the API's document and the CLI's tables.
pub fn describe() -> Result<reconcile::Registry, Error> {
    let settings = kinds::Settings {
        domain: "vt.localhost".into(),
        http_port: 8080,
        tls_port: Some(8443),
        prefixes: novanet::Prefixes {
            v4: novanet::default_v4(),
            v6: "fd00::/48".parse().map_err(|_| Error::internal("a prefix"))?,
        },
        mtu: 1420,
        dns: Vec::new(),
    };
    Ok(kinds::registry(settings, None, None))
}

/// What the command line said.
#[derive(Debug, Default)]
pub struct Request {
    pub config_files: Vec<PathBuf>,
    /// Keys of [`config::SETTINGS`] with values.
    pub flags: Vec<(&'static str, String)>,
}

/// What runs, for the one who started it.
#[derive(Debug)]
pub struct Started {
    pub api: String,
    pub ingress: String,
    pub ca_file: PathBuf,
    pub token: String,
    pub org: String,
    pub project: String,
    pub accelerator: &'static str,
    pub accelerator_why: String,
}

/// Runs the cloud until SIGINT or SIGTERM. `say` hears each step; `started` is called once everything answers.
pub async fn run(
    request: Request,
    say: &(dyn Fn(&str) + Send + Sync),
    started: impl FnOnce(Started) -> Result<(), Error>,
) -> Result<(), Error> {
    let flags: Vec<(&str, String)> = request.flags;
    let config = config::load(&request.config_files, std::env::vars(), &flags)?;
    let listen = |error: std::io::Error| Error::internal(format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(listen)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(listen)?;
    let opening = open::open(config, say);
    let cloud = tokio::select! {
        cloud = opening => cloud?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    started(Started {
        api: format!("https://{}", cloud.api),
        ingress: format!("http://{}", cloud.ingress_http),
        ca_file: cloud.ca_file.clone(),
        token: cloud.ground.token.clone(),
        org: "default".into(),
        project: "default".into(),
        accelerator: cloud.facts.accelerator,
        accelerator_why: cloud.facts.accelerator_why.clone(),
    })?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    say("stopping; machines go on, and the next start takes them back");
    cloud.close().await;
    Ok(())
}
