//! The wiring, on one page: built from top to bottom, stopped from bottom to top.

use std::collections::BTreeSet;
use std::sync::Arc;

use kinds::images::Images;
use kinds::{Engines, Settings};
use model::{Code, Error, Id};
use reconcile::{Door, Rows};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use world::{Clock, file};

use super::bootstrap;
use super::config::{Accelerator, Config};
use super::{identity, preflight, truth, uploads};
use crate::compactor;

/// Ids of rows that engines want looked at, waiting for the agent.
const NUDGES_MAX: usize = 1024;
/// Memory that instances get when the setting is empty: this part of the machine's.
const MEMORY_PARTS: (u64, u64) = (4, 5);

/// A cloud that runs.
pub struct Cloud {
    pub api: std::net::SocketAddr,
    pub ingress_http: std::net::SocketAddr,
    pub ca_file: std::path::PathBuf,
    pub token_file: std::path::PathBuf,
    pub facts: plasmavmc::Facts,
    control: control::Handle,
    ingress: fiberlb::Handle,
    network: novanet::Handle,
    machines: plasmavmc::Handle,
    keyspaces: Option<chainfire::door::Handle>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    truth: truth::Truth,
    _lock: std::fs::File,
}

/// Says what is being done, for people who wait.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

fn failed(what: &str, code: &str, hint: &str, error: impl std::fmt::Display) -> Error {
    Error::new(Code::Failed, format!("{what}: {error}")).hint(hint.to_owned()).reason(code)
}

pub async fn open(config: Config, say: Say<'_>) -> Result<Cloud, Error> {
    preflight::check()?;
    let clock = Clock::real();
    let data = config.data_dir.clone();
    let folder = |name: &str| data.join(name);
    file::create_folder(&data, 0o711)
        .map_err(|error| failed("the data folder", "data_dir", "choose another with --data-dir", error))?;
    let lock = truth::lock(&data)?;
    let identity = identity::open_or_create(&folder("identity.json"), &config).await?;

    say("opening the store");
    let truth = truth::open(&config, &identity, &folder("store"), say).await?;
    let store = truth.store.clone();
    truth::claim(&*store, &identity, &config.store).await?;

    say("keys and certificates");
    let io =
        |error: iam::Error| failed("keys and certificates", "tls", "look at the folder's files and the clock", error);
    file::create_folder(&folder("keys"), 0o700).map_err(|error| failed("the key folder", "data_dir", "", error))?;
    let sealer = Arc::new(iam::Sealer::open_or_create(&folder("keys/master.key")).map_err(io)?);
    let ca = iam::Ca::open_or_create(&folder("tls"), clock.clone()).map_err(io)?;
    let ca_file = ca.certificate_file();

    say("the network");
    let prefixes = novanet::Prefixes { v4: identity.ipv4, v6: identity.ipv6 };
    let mut net = novanet::Config::new(identity.tag.clone(), folder("network"), identity.ipv6);
    net.v4 = identity.ipv4;
    net.egress = config.egress;
    let mtu = net.mtu;
    let network = novanet::Service::open(net)
        .await
        .map_err(|error| failed("the network", error.code(), &error.hint(), &error))?;

    say("the ingress");
    let ingress = fiberlb::Service::open(fiberlb::Config {
        http: vec![config.ingress_http],
        tls: config.ingress_tls,
        tcp_bind: config.ingress_tcp_bind,
        ..fiberlb::Config::new(folder("ingress"))
    });
    let ingress = ingress.await.map_err(|error| failed("the ingress", error.code(), &error.hint(), &error))?;
    let ingress_http = ingress.http_addrs().first().copied().unwrap_or(config.ingress_http);

    say("the image store");
    let image_fault = |error: image::Error| failed("the image store", error.code(), &error.hint(), &error);
    let images = image::Store::open(image::Config {
        disk_budget_bytes: config.images_disk_budget.bytes(),
        credentials_file: config.images_credentials.clone(),
        ..image::Config::new(folder("images"))
    });
    let images = images.map_err(image_fault)?;
    let blobs = image::Uploads::open(folder("uploads"), images.limits()).map_err(image_fault)?;

    say("the hypervisor");
    let vm_fault = |error: plasmavmc::Error| failed("the hypervisor", error.code(), error.remedy(), &error);
    let machines = plasmavmc::Service::open(plasmavmc::Config {
        state_dir: folder("vms"),
        kernel_dir: folder("kernels"),
        kernel_source: config
            .kernel_dir
            .clone()
            .map_or(plasmavmc::kernel::Source::Debian, plasmavmc::kernel::Source::Unpacked),
        guest_init: super::GUEST_INIT,
        uid_base: plasmavmc::UID_BASE,
        instance_tag: identity.tag.clone(),
        vms_max: config.vms_max,
        accelerator: match config.accelerator {
            Accelerator::Auto => None,
            Accelerator::Kvm => Some(plasmavmc::qemu::Accelerator::Kvm),
            Accelerator::Tcg => Some(plasmavmc::qemu::Accelerator::Tcg),
        },
    });
    let machines = machines.await.map_err(vm_fault)?;
    let facts = machines.prepare(&|step| say(&step.to_string())).await.map_err(vm_fault)?;

    let settings = Settings {
        domain: config.domain.clone(),
        http_port: ingress_http.port(),
        tls_port: ingress.tls_addr().map(|addr| addr.port()),
        prefixes,
        mtu: u16::try_from(mtu).unwrap_or(1420),
        dns: if config.dns.is_empty() { identity::name_servers() } else { config.dns.clone() },
    };
    let (nudge, nudges) = mpsc::channel(NUDGES_MAX);
    let mut tasks = vec![tokio::spawn(forward_wanted(ingress.clone(), nudge.clone()))];
    tasks.push(tokio::spawn(forward(plasmavmc::Engine::changes(&machines), nudge)));
    tasks.push(tokio::spawn(compactor::run(config.store_history, store.clone(), async || Ok(true))));
    let engines = Engines {
        machines: Arc::new(machines.clone()),
        network: network.clone(),
        ingress: ingress.clone(),
        images: Images { store: images, uploads: blobs.clone(), platform: image::Platform::host() },
        sealer: sealer.clone(),
        settings: settings.clone(),
        uid_base: plasmavmc::UID_BASE,
    };
    let spaces = kinds::Spaces::default();
    let registry = kinds::registry(settings, Some(sealer), Some(engines), spaces.clone());
    let door = Door::new(store.clone(), registry, clock);

    let (rows, changes) = Rows::follow(store).await?;
    let token_file = folder("admin.token");
    bootstrap::prepare(&door, &token_file).await?;
    let offer = agent::Offer { kind: "node", name: identity.node.clone(), spec: node_spec(&config) };
    let agent = agent::Agent::open(door.clone(), rows.clone(), offer).await?;
    let node = agent.node().clone();
    tasks.push(tokio::spawn(agent.run(changes.subscribe(), nudges)));

    let keyspaces = match config.keyspace_listen {
        Some(listen) => {
            say("the door to key spaces");
            let opened = super::keyspaces::serve(listen, &folder("tls"), door.clone(), spaces).await;
            Some(opened.map_err(|error| {
                failed(
                    "the door to key spaces",
                    "keyspace_listen",
                    "choose another address with VT_KEYSPACE_LISTEN",
                    error,
                )
            })?)
        }
        None => None,
    };

    say("the API");
    let shown = serde_json::to_value(&config.shown).unwrap_or_default();
    let parts = control::Parts {
        door,
        rows,
        changes,
        uploads: Arc::new(uploads::Blobs(blobs)),
        info: info(&config, ingress_http, &node),
        config: Arc::new(move || shown.clone()),
        ca,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let control = control::Service::open(control::Config::new(config.api_listen), parts).await;
    let control =
        control.map_err(|error| failed("the API", "api_listen", "choose another address with --listen", error))?;
    Ok(Cloud {
        api: control.addr,
        ingress_http,
        ca_file,
        token_file,
        facts,
        control,
        ingress,
        network,
        machines,
        keyspaces,
        tasks,
        truth,
        _lock: lock,
    })
}

impl Cloud {
    /// Stops the parts that answer people; machines go on, and the next start takes them back.
    pub async fn close(self) {
        self.control.shutdown().await;
        if let Some(keyspaces) = self.keyspaces {
            keyspaces.close().await;
        }
        for task in self.tasks {
            task.abort();
        }
        self.ingress.close().await;
        let idle = plasmavmc::Engine::list(&self.machines).is_empty();
        self.machines.close().await;
        if idle && let Err(error) = self.network.clear().await {
            tracing::warn!(%error, "the network could not be taken down; the next start sweeps it");
        }
        // With machines running their network stays as it is, and so does their traffic among themselves.
        self.network.close().await;
        self.truth.close().await;
    }
}

fn info(config: &Config, http: std::net::SocketAddr, node: &Id) -> control::Provider {
    let info: Value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "api": format!("https://{}", config.api_listen),
        "ingress": { "http": http.to_string(), "http_port": http.port(), "domain": config.domain },
        "data_dir": config.data_dir,
        "node": node,
    });
    Arc::new(move || info.clone())
}

fn node_spec(config: &Config) -> Value {
    let total = rustix::system::sysinfo().totalram;
    let memory = config.node_memory.map_or(total / MEMORY_PARTS.1 * MEMORY_PARTS.0, model::unit::Size::bytes);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    json!({ "memory_bytes": memory, "cpus": cpus })
}

/// Tells the agent of machines that sleep and that a client waits for.
async fn forward_wanted(ingress: fiberlb::Handle, nudge: mpsc::Sender<Id>) {
    let mut changes = ingress.changes();
    let mut told = BTreeSet::new();
    while changes.changed().await.is_ok() {
        let wanted: BTreeSet<Id> = ingress.wanted().iter().filter_map(|id| id.parse().ok()).collect();
        for id in wanted.difference(&told) {
            if nudge.send(id.clone()).await.is_err() {
                return;
            }
        }
        told = wanted;
    }
}

/// Tells the agent of machines in which something changed.
async fn forward(mut changes: broadcast::Receiver<String>, nudge: mpsc::Sender<Id>) {
    loop {
        match changes.recv().await {
            Ok(id) => {
                if let Ok(id) = id.parse()
                    && nudge.send(id).await.is_err()
                {
                    return;
                }
            }
            // The agent's own pass looks at every row soon enough.
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
