//! ChainFire alone, in etcd's place.
//!
//! ```text
//! flags      etcd's flags and what becomes of each; settings: checked and typed
//! the store  a member of the cluster that --initial-cluster names
//! the door   etcd's API before it
//! compactor  gives up history as --auto-compaction-* say
//! notify     tells the service manager that clients are served
//! ```

mod compactor;
mod flags;
mod notify;
mod settings;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chainfire::door::{self, Solo, solo};
use chainfire::member::{identity, types::Contact};
use clap::Args;
use model::{Code, Error};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Outcome};
use settings::{Listen, Settings, Tls, Url};

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    given: flags::Given,
}

pub async fn run(args: &ServeArgs) -> Outcome {
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let settings = Settings::read(&args.given, &environment)?;
    for note in &settings.notes {
        eprintln!("note: {note}");
    }
    crate::cloud::raise_file_limit();
    crate::cloud::logging(&format!("{},hyper=warn,h2=warn,tower=warn", settings.log_level));
    let listen = |error: std::io::Error| Error::internal(format!("signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(listen)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(listen)?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut stop = std::pin::pin!(stop);
    let served = tokio::select! {
        served = open(&settings) => served?,
        () = &mut stop => return Ok(0),
    };
    stop.await;
    notify::stopping();
    tracing::info!("stopping");
    served.close().await;
    Ok(0)
}

/// What runs, to be stopped from top to bottom.
struct Served {
    compactor: tokio::task::JoinHandle<()>,
    door: door::Handle,
    store: Arc<chainfire::Embedded>,
}

impl Served {
    async fn close(self) {
        self.compactor.abort();
        self.door.close().await;
        if let Some(store) = Arc::into_inner(self.store)
            && let Err(error) = store.close().await
        {
            tracing::warn!(%error, "the store did not close in order; nothing that was answered is lost");
        }
    }
}

async fn open(settings: &Settings) -> Result<Served, Failure> {
    foreign(&settings.data_dir)?;
    let store = chainfire::Embedded::open(&settings.data_dir, chainfire::Options::default()).await;
    let store = Arc::new(store.map_err(|error| unopened(&settings.data_dir, &error))?);
    if settings.cluster.len() > 1 || settings.joins {
        return Err(Failure::usage("--initial-cluster names other members, and this version serves one member alone"));
    }
    let strings = |urls: &[Url]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
    let member = identity::member_id(&strings(&settings.advertise_peer), &settings.token, None);
    let contact = Contact {
        name: settings.name.clone(),
        peer_urls: strings(&settings.advertise_peer),
        client_urls: strings(&settings.advertise_client),
    };
    let identity = solo::Identity { cluster_id: identity::cluster_id([member]), member_id: member, contact };
    let host = Arc::new(Solo::new(store.clone(), identity));
    let options = door_options(settings);
    let door = door::serve(options, store.clone(), host.clone()).await.map_err(|error| unserved(&error))?;
    let compactor = tokio::spawn(compactor::run(settings.retention, store.clone(), host));
    let addresses: Vec<String> = door.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(name = settings.name, addresses = addresses.join(","), "ready to serve client requests");
    notify::ready();
    Ok(Served { compactor, door, store })
}

/// etcd's own data is not ours to touch.
fn foreign(dir: &Path) -> Result<(), Failure> {
    if dir.join("member/wal").exists() || dir.join("member/snap/db").exists() {
        return Err(Failure::new(Code::Conflict, format!("{} holds data of etcd", dir.display()))
            .why("its files have another form and are left as they are")
            .hint("choose another --data-dir; vt store migrate copies from an etcd that runs"));
    }
    Ok(())
}

fn unopened(dir: &Path, error: &store::Error) -> Failure {
    let failure = Failure::new(Code::Failed, format!("the store in {} cannot be opened", dir.display()));
    let hint = match error {
        store::Error::Locked { .. } => "another process serves it; choose another --data-dir",
        store::Error::Corrupt { .. } => {
            "take it out of the cluster and add it again with an empty folder, or vt store restore"
        }
        store::Error::FormatUnknown { .. } => "a newer vt wrote it; use that one",
        _ => "look at the disk and at who may write there",
    };
    failure.why(error.to_string()).hint(hint)
}

fn unserved(error: &door::Error) -> Failure {
    let flag = match error {
        door::Error::Tls(_) | door::Error::NoCertificate { .. } => "--cert-file",
        door::Error::Url { .. } | door::Error::Listen { .. } => "--listen-client-urls",
    };
    let mut failure =
        Failure::new(Code::Failed, format!("clients cannot be served: {error}")).hint(format!("look at {flag}"));
    failure.error.field = Some(flag.to_owned());
    failure
}

fn door_options(settings: &Settings) -> door::Options {
    let url = |listen: &Listen| format!("{}://{}", if listen.tls { "https" } else { "http" }, listen.address);
    let mut options = door::Options::new(settings.listen_client.iter().map(url));
    options.tls = door_tls(&settings.client_tls);
    options.quota_bytes = Some(settings.quota_bytes);
    // What etcd makes of its election timeout: one and a half of it, rounded up to seconds.
    options.lease_ttl_seconds_min = (settings.election * 3 / 2).as_millis().div_ceil(1000) as u64;
    options
}

fn door_tls(tls: &Tls) -> Option<door::TlsFiles> {
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else { return None };
    Some(door::TlsFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        trusted_ca: tls.authorities.clone(),
        client_cert_auth: tls.client_auth,
    })
}
