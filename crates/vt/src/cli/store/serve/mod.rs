//! ChainFire alone, in etcd's place.
//!
//! ```text
//! flags      etcd's flags and what becomes of each; settings: checked and typed
//! the store  a member of the cluster that --initial-cluster names
//! the door   etcd's API before it
//! notify     tells the service manager that clients are served
//! ```

mod flags;
mod notify;
mod settings;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chainfire::door::{self, Host as _};
use chainfire::member::peer::tls::Tls as PeerTls;
use chainfire::member::{self, Ended, InitialState, Member, OpenError, Place};
use clap::Args;
use model::{Code, Error};
use tokio::signal::unix::{SignalKind, signal};

use crate::compactor;
use crate::failure::{Failure, Outcome};
pub use flags::Given;
pub use settings::Settings;
use settings::{Listen, Tls, Url};

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
    crate::cloud::logging(&format!("{},openraft=warn,hyper=warn,h2=warn,tower=warn", settings.log_level));
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
    let ended = tokio::select! {
        () = stop => Ended::Closed,
        ended = served.member.ended() => ended,
    };
    notify::stopping();
    tracing::info!("stopping");
    served.close().await;
    match ended {
        Ended::Closed => Ok(0),
        Ended::Removed => Err(Failure::new(Code::Failed, "this member was removed from its cluster")
            .hint("remove its --data-dir; vt store add   adds it again, as a new one")),
        Ended::Failed(why) => Err(Failure::new(Code::Failed, "this member cannot go on")
            .why(why)
            .hint("look at its disk and start it again; nothing that was answered is lost")),
    }
}

/// What runs, to be stopped from top to bottom.
pub struct Served {
    compactor: tokio::task::JoinHandle<()>,
    door: door::Handle,
    pub member: Arc<Member>,
}

impl Served {
    pub async fn close(self) {
        self.compactor.abort();
        self.door.close().await;
        if let Err(error) = self.member.close().await {
            tracing::warn!(%error, "the member did not close in order; nothing that was answered is lost");
        }
    }
}

/// Opens the member and its door. It may not have a leader yet.
pub async fn open(settings: &Settings) -> Result<Served, Failure> {
    foreign(&settings.data_dir)?;
    let opened = Member::open(member_options(settings)?).await;
    let member = Arc::new(opened.map_err(|error| unopened(&settings.data_dir, &error))?);
    let door = match door::serve(door_options(settings), member.clone(), member.clone()).await {
        Ok(door) => door,
        Err(error) => {
            // Why it is closed is known already.
            let _ = member.close().await;
            return Err(unserved(&error));
        }
    };
    let leads = {
        let member = member.clone();
        async move || Ok(member.status().await?.leader == Some(member.id()))
    };
    let compactor = tokio::spawn(compactor::run(settings.retention, member.clone(), leads));
    let addresses: Vec<String> = door.addresses().iter().map(ToString::to_string).collect();
    tracing::info!(name = settings.name, addresses = addresses.join(","), "ready to serve client requests");
    notify::ready();
    Ok(Served { compactor, door, member })
}

/// Errors name the flag with a certificate or key that cannot be read.
pub fn member_options(settings: &Settings) -> Result<member::Options, Failure> {
    let strings = |urls: &[Url]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
    let cluster =
        settings.cluster.iter().flat_map(|(name, urls)| urls.iter().map(|url| (name.clone(), url.to_string())));
    Ok(member::Options {
        name: settings.name.clone(),
        place: Place::Folder(settings.data_dir.clone()),
        listen_peer_urls: settings.listen_peer.iter().map(url).collect(),
        advertise_peer_urls: strings(&settings.advertise_peer),
        advertise_client_urls: strings(&settings.advertise_client),
        initial_cluster: cluster.collect(),
        initial_cluster_state: if settings.joins { InitialState::Existing } else { InitialState::New },
        initial_cluster_token: settings.token.clone(),
        tls: peer_tls(&settings.peer_tls)?,
        heartbeat: settings.heartbeat,
        election: settings.election,
        quota_bytes: settings.quota_bytes,
        snapshot_entries: settings.snapshot_entries,
        ..member::Options::default()
    })
}

fn url(listen: &Listen) -> String {
    format!("{}://{}", if listen.tls { "https" } else { "http" }, listen.address)
}

fn peer_tls(tls: &Tls) -> Result<Option<PeerTls>, Failure> {
    let (Some(certificate), Some(key)) = (&tls.certificate, &tls.key) else { return Ok(None) };
    let read = |flag: &str, path: &Path| {
        std::fs::read(path).map_err(|error| {
            let mut failure = Failure::usage(format!("{flag} {}: {error}", path.display()));
            failure.error.field = Some(flag.to_owned());
            failure
        })
    };
    let Some(authority) = &tls.authorities else {
        let mut failure = Failure::usage("--peer-trusted-ca-file is missing: members show each other certificates");
        failure.error.field = Some("--peer-trusted-ca-file".to_owned());
        return Err(failure);
    };
    Ok(Some(PeerTls {
        certificate: read("--peer-cert-file", certificate)?,
        key: read("--peer-key-file", key)?,
        authority: read("--peer-trusted-ca-file", authority)?,
    }))
}

/// etcd's own data is not ours to touch.
fn foreign(dir: &Path) -> Result<(), Failure> {
    if dir.join("member/wal").exists() || dir.join("member/snap/db").exists() {
        return Err(Failure::new(Code::Conflict, format!("{} holds data of etcd", dir.display()))
            .why("its files have another form and are left as they are")
            .hint("choose another --data-dir; vt store migrate copies from an etcd that runs"));
    }
    if dir.join(crate::engine::EMBEDDED_FILE).exists() {
        let from = format!("vt store migrate --from embedded:{} --to etcd://HOST:PORT", dir.display());
        return Err(Failure::new(Code::Conflict, format!("{} holds an embedded store", dir.display()))
            .why("a member of a cluster keeps its data in another form")
            .hint(format!("choose another --data-dir; {from}   copies it into the store that is served")));
    }
    Ok(())
}

fn unopened(dir: &Path, error: &OpenError) -> Failure {
    let (code, field, hint) = match error {
        OpenError::Settings(_) => (Code::InvalidArgument, None, "vt store serve --help"),
        OpenError::Tls(_) => (Code::InvalidArgument, Some("--peer-cert-file"), "look at the --peer-... files"),
        OpenError::Listen { .. } => (Code::Failed, Some("--listen-peer-urls"), "choose another address"),
        OpenError::OtherMember { .. } => (
            Code::Conflict,
            Some("--data-dir"),
            "give each member a --data-dir of its own, and start it with the same --name",
        ),
        OpenError::OtherToken { .. } => {
            (Code::Conflict, Some("--initial-cluster-token"), "start it with the token that it was begun with")
        }
        OpenError::OtherCluster { .. } => (
            Code::Conflict,
            Some("--initial-cluster"),
            "look at the addresses; a new cluster beside another needs its own --initial-cluster-token",
        ),
        OpenError::NobodyAnswers(_) => {
            (Code::Unavailable, Some("--initial-cluster"), "start the others first, and look at their addresses")
        }
        OpenError::NotAdded { .. } => {
            (Code::PreconditionFailed, None, "vt store add NAME --peer-url URL   at a member that runs")
        }
        OpenError::DataGone { .. } => (
            Code::PreconditionFailed,
            Some("--data-dir"),
            "vt store remove NAME, vt store add NAME --peer-url URL, then start it with --initial-cluster-state existing",
        ),
        OpenError::Store(store::Error::Locked { .. }) => {
            (Code::Conflict, Some("--data-dir"), "another process serves it; choose another --data-dir")
        }
        OpenError::Store(store::Error::Corrupt { .. }) => (
            Code::Failed,
            None,
            "take it out of the cluster and add it again with an empty folder, or vt store restore FILE",
        ),
        OpenError::Store(store::Error::FormatUnknown { .. }) => {
            (Code::Failed, None, "a newer vt wrote it; use that one")
        }
        OpenError::Store(_) => (Code::Failed, None, "look at the disk and at who may write there"),
    };
    let mut failure = Failure::new(code, format!("the store in {} cannot be opened", dir.display()));
    failure.error.field = field.map(str::to_owned);
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
    let mut options = door::Options::new(settings.listen_client.iter().map(url));
    options.listen_metrics = settings.listen_metrics.iter().map(url).collect();
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
