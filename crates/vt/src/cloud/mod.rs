//! The whole cloud in one process.
//!
//! ```text
//! up -> config     settings: flag > VT_* > file > default
//!    -> preflight  root, programs
//!    -> identity   what tells this installation from another, drawn once
//!    -> truth      the store, wherever it is
//!    -> open       the wiring, top to bottom
//!    -> bootstrap  the first org, project and token
//!    -> wait for a signal; then stop, bottom to top. Machines go on and are taken back by the next start.
//! ```

mod bootstrap;
pub mod config;
mod identity;
mod keyspaces;
mod open;
pub mod preflight;
mod truth;
mod uploads;

use std::path::PathBuf;

use model::Error;
use tokio::signal::unix::{SignalKind, signal};

/// The context that the cloud writes for the command line of the one who started it.
const CONTEXT: &str = "local";

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
    Ok(kinds::registry(settings, None, None, kinds::Spaces::default()))
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
    pub token_file: PathBuf,
    pub accelerator: &'static str,
    pub accelerator_why: String,
}

/// `vt up`: runs the cloud in the foreground, with a context for this command line.
pub async fn up(args: crate::cli::up::UpArgs) -> Result<(), Error> {
    // Faults and warnings.
    logging("warn");
    let mut flags = Vec::new();
    if let Some(folder) = &args.data_dir {
        flags.push(("data_dir", folder.display().to_string()));
    }
    if let Some(listen) = args.listen {
        flags.push(("api.listen", listen.to_string()));
    }
    if let Some(url) = &args.store {
        flags.push(("store.url", url.clone()));
    }
    if let Some(port) = args.http_port {
        flags.push(("ingress.http", format!("127.0.0.1:{port}")));
    }
    let request = Request { config_files: args.config.into_iter().collect(), flags };
    let clock = world::Clock::real();
    let began = clock.monotonic();
    let say = |step: &str| eprintln!("  {:>5.1} s  {step}", clock.monotonic().saturating_sub(began).as_secs_f64());
    run(request, &say, greet).await
}

/// Says what runs and how to reach it, and keeps that for the command line.
fn greet(started: Started) -> Result<(), Error> {
    let path = crate::config::path(&|name| std::env::var(name).ok());
    let context = crate::config::Context {
        api: started.api.clone(),
        ca_file: Some(started.ca_file),
        token_file: Some(started.token_file),
        org: Some(bootstrap::DEFAULT.into()),
        project: Some(bootstrap::DEFAULT.into()),
        ..Default::default()
    };
    crate::config::save(&path, CONTEXT, context)?;
    eprintln!();
    eprintln!("The cloud runs.");
    eprintln!("  api         {}", started.api);
    eprintln!("  ingress     {}", started.ingress);
    eprintln!("  hypervisor  QEMU with {}: {}", started.accelerator, started.accelerator_why);
    eprintln!("  context     `{CONTEXT}` in {}", path.display());
    eprintln!("  next        vt launch --image IMAGE, then vt deploy, in your app's folder");
    eprintln!("Ctrl-C stops the control plane; machines go on and are taken back by the next start.");
    Ok(())
}

/// Each proxied connection takes two descriptors; the usual soft limit of 1,024 is for other programs.
pub fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays low");
    }
}

/// What `level` and above says goes to standard error; `VT_LOG` asks for something else, in tracing's form.
pub fn logging(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("VT_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // A second subscriber would be the only failure, and there is one `up` in a process.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .try_init();
}

/// Runs the cloud until SIGINT or SIGTERM. `say` hears each step; `started` is called once everything answers.
pub async fn run(
    request: Request,
    say: &(dyn Fn(&str) + Send + Sync),
    started: impl FnOnce(Started) -> Result<(), Error>,
) -> Result<(), Error> {
    raise_file_limit();
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
        token_file: cloud.token_file.clone(),
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
