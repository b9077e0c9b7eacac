//! The side effects of a machine: image, network, hypervisor.

use std::collections::HashMap;

use async_trait::async_trait;
use image::Progress;
use model::guest;
use model::manifest::{HealthType, RestartPolicy};
use model::{Code, Error, Id, Level, Row};
use parking_lot::Mutex;
use reconcile::command::Verb;
use reconcile::kind::read;
use reconcile::{Machine, Plan, Table, Turn};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::Vm;
use super::contract::{Spec, Wanted};
use super::plan::{self, Guest, Seen, Stand, Step};
use crate::engines::Engines;
use crate::{network, release, secret};

/// Between TERM and KILL of the process when its machine is to go.
const GRACE_SECONDS: u32 = 10;
/// Restarts in a row after which a process that is started for ever is called broken.
const CRASH_LOOP_RESTARTS: u32 = 3;

/// Image pulls that are under way, for people who wait.
#[derive(Default)]
pub struct Pulls(Mutex<HashMap<Id, watch::Receiver<Progress>>>);

impl Pulls {
    fn begin(&self, id: &Id) -> watch::Sender<Progress> {
        let (sender, receiver) = watch::channel(Progress::start());
        self.0.lock().insert(id.clone(), receiver);
        sender
    }

    pub fn forget(&self, id: &Id) {
        self.0.lock().remove(id);
    }

    pub fn progress(&self, id: &Id) -> Option<Value> {
        let progress = *self.0.lock().get(id)?.borrow();
        let (what, done, total) = (progress.stage, progress.done_bytes, progress.total_bytes);
        Some(json!({ "what": what, "done": done, "total": total, "unit": "bytes" }))
    }
}

fn machine_fault(error: plasmavmc::Error) -> Error {
    Error::new(Code::Failed, error.to_string()).hint(error.remedy()).reason(error.code())
}

#[async_trait]
impl Machine for Vm {
    type Seen = Seen;
    type Step = Step;

    async fn observe(&self, turn: &Turn) -> Result<Seen, Error> {
        let engines = self.engines()?;
        let spec: Spec = read("spec", &turn.row.spec)?;
        let place = engines.settings.prefixes.port(spec.network.number, spec.network.offset).map_err(network::fault)?;
        let machine = engines.machines.observe(turn.row.id.as_str()).map(|seen| machine(&seen));
        let id = turn.row.id.as_str();
        Ok(Seen {
            machine,
            addresses: (Some(place.v4.to_string()), Some(place.v6.to_string())),
            idle_ms: engines.ingress.idle(id).map(|idle| idle.as_millis() as u64),
            wanted: engines.ingress.is_wanted(id),
        })
    }

    fn plan(&self, row: &Row, table: &Table, seen: &Seen, now_ms: u64) -> Plan<Step> {
        plan::plan(row, table, seen, now_ms)
    }

    async fn act(&self, turn: &Turn, step: Step) -> Result<(), Error> {
        let engines = self.engines()?;
        match step {
            Step::Start => self.start(engines, turn).await,
            Step::Resume => engines.machines.resume(turn.row.id.as_str()).await.map_err(machine_fault),
            Step::Pause => engines.machines.pause(turn.row.id.as_str()).await.map_err(machine_fault),
            Step::Sleep => engines.machines.sleep(turn.row.id.as_str()).await.map_err(machine_fault),
            Step::Wish { state, .. } => {
                let spec: Spec = read("spec", &turn.row.spec)?;
                let wanted = Wanted { release: spec.release, process: spec.process, state };
                let spec = serde_json::to_value(wanted).map_err(|error| Error::internal(error.to_string()))?;
                // Whoever wished last is heard: the row's version moved with this turn's own report.
                turn.submit(Verb::SetSpec { id: turn.row.id.clone(), spec, if_version: None }).await.map(drop)
            }
            Step::Destroy => {
                let id = turn.row.id.as_str();
                engines.machines.stop(id, GRACE_SECONDS).await.map_err(machine_fault)?;
                engines.machines.destroy(id).await.map_err(machine_fault)?;
                self.pulls.forget(&turn.row.id);
                network::apply(engines, turn).await
            }
        }
    }
}

impl Vm {
    async fn start(&self, engines: &Engines, turn: &Turn) -> Result<(), Error> {
        let row = &turn.row;
        let spec: Spec = read("spec", &row.spec)?;
        let release = turn.door.get(&spec.release).await?;
        let release = release.ok_or_else(|| Error::not_found(format!("release {}", spec.release)))?;
        let release: release::Spec = read("spec", &release.spec)?;
        let project = row.scope.id(Level::Project).ok_or_else(|| Error::internal("a machine lives in a project"))?;
        let progress = self.pulls.begin(&row.id);
        let root = engines.images.ensure(&release.resolved, project, &progress).await?;
        self.pulls.forget(&row.id);
        network::apply(engines, turn).await?;
        let secrets = match &spec.secrets {
            Some(bundle) => {
                let values = secret::open(&turn.door, &engines.sealer, &row.scope, &bundle.id, bundle.version).await?;
                Some(guest::Hidden::new(secret::file::render(&values)))
            }
            None => None,
        };
        let place = engines.settings.prefixes.port(spec.network.number, spec.network.offset).map_err(network::fault)?;
        let network = engines.settings.prefixes.network(spec.network.number).map_err(network::fault)?;
        let machine = plasmavmc::Spec {
            id: row.id.to_string(),
            generation: row.generation,
            vcpus: (spec.cpu.ceil() as u32).max(1),
            memory_bytes: spec.memory.bytes(),
            cpu_weight: ((spec.cpu * 100.0).round() as u32).clamp(1, 10_000),
            root_image: root.path.clone(),
            root_fs: "erofs".into(),
            scratch_bytes: spec.disk.bytes(),
            tap: Some(engines.network.names().tap(spec.network.number, spec.network.offset)),
            mac: place.mac.to_string(),
            uid: engines.uid_base + u32::from(spec.network.number) * 256 + u32::from(spec.network.offset),
            owner: Some(project.to_string()),
            sleeps: spec.rest.is_some(),
            guest: guest::Config {
                protocol: guest::PROTOCOL_MAX,
                instance_id: row.id.to_string(),
                hostname: row.name.clone(),
                machine_id: machine_id(&row.id),
                entropy: guest::Hidden::default(),
                clock_unix_ns: 0,
                root: guest::Disk { device: "/dev/vda".into(), fs: "erofs".into() },
                scratch: None,
                network: Some(guest_network(engines, &place, &network)),
                process: guest_process(&spec),
                health: guest_health(&spec),
                secrets,
                secrets_required: spec.secrets_required,
            },
        };
        engines.machines.ensure(machine).await.map_err(machine_fault)
    }
}

fn machine_id(id: &Id) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(id.as_str());
    digest[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn guest_network(
    engines: &Engines,
    place: &novanet::PortAddresses,
    network: &novanet::NetworkAddresses,
) -> guest::Network {
    guest::Network {
        mac: place.mac.to_string(),
        v4: Some(guest::V4 { address: place.v4, prefix: network.v4.prefix_len(), gateway: Some(network.gateway_v4) }),
        v6: Some(guest::V6 {
            address: place.v6,
            prefix: network.v6.prefix_len(),
            gateway: Some(network.gateway_link_local),
        }),
        dns: engines.settings.dns.clone(),
        mtu: engines.settings.mtu,
    }
}

fn guest_process(spec: &Spec) -> guest::Process {
    guest::Process {
        argv: spec.argv.clone(),
        env: spec.env.clone(),
        workdir: spec.workdir.clone(),
        user: spec.user.clone(),
        prestart: spec.prestart.clone(),
        prestart_timeout_seconds: spec.prestart_timeout_seconds,
        restart: guest::Restart {
            policy: match spec.restart.policy {
                RestartPolicy::Always => guest::RestartPolicy::Always,
                RestartPolicy::OnFailure => guest::RestartPolicy::OnFailure,
                RestartPolicy::Never => guest::RestartPolicy::Never,
            },
            max_retries: spec.restart.max_retries,
            backoff_seconds: spec.restart.backoff_seconds,
        },
        grace_seconds: GRACE_SECONDS,
    }
}

fn guest_health(spec: &Spec) -> Option<guest::Health> {
    let health = spec.health.as_ref()?;
    Some(guest::Health {
        kind: match health.kind {
            HealthType::Http => guest::HealthKind::Http,
            HealthType::Tcp => guest::HealthKind::Tcp,
        },
        port: spec.health_port?,
        path: health.path.clone(),
        interval_seconds: health.interval_seconds,
        timeout_seconds: health.timeout_seconds,
        grace_period_seconds: health.grace_period_seconds,
        success_threshold: health.success_threshold,
        failure_threshold: health.failure_threshold,
    })
}

/// The engine's account of a machine in the plan's words.
fn machine(seen: &plasmavmc::Seen) -> plan::Machine {
    use plasmavmc::Phase;
    let stand = match seen.phase {
        Phase::Starting | Phase::Running | Phase::Stopping => Stand::Running,
        Phase::Warm => Stand::Warm,
        Phase::Sleeping => Stand::Sleeping,
        Phase::Stopped | Phase::Failed => Stand::Ended,
    };
    let began = match seen.origin.from {
        plasmavmc::Start::Boot => "boot",
        plasmavmc::Start::Template => "template",
        plasmavmc::Start::Sleep => "sleep",
    };
    let ended = (stand == Stand::Ended).then(|| {
        let fault = seen.end.as_ref().map(|end| {
            let detail = if end.detail.is_empty() { end.code.as_str() } else { &end.detail };
            (end.code.as_str().to_owned(), format!("the machine ended: {detail}"))
        });
        fault.unwrap_or_else(|| ("stopped".to_owned(), "the machine does not run".to_owned()))
    });
    plan::Machine {
        generation: seen.generation,
        stand,
        began: (began, seen.origin.why.clone()),
        ended,
        guest: seen.guest.as_ref().map_or(Guest::Booting, |guest| guest_of(&guest.state)),
        boot_id: Some(seen.boot_id.clone()).filter(|id| !id.is_empty()),
        started_ms: seen.started_at_ms.unwrap_or_default(),
        restarts: seen.restarts(),
    }
}

fn guest_of(state: &guest::State) -> Guest {
    let oom = state.last_exit.is_some_and(|exit| exit.oom);
    let exit = state.last_exit.map_or_else(String::new, |exit| match (exit.code, exit.signal) {
        _ if exit.oom => "it was killed for exceeding the machine's memory".to_owned(),
        (Some(code), _) => format!("it exited with {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    });
    let with_exit = |text: &str| if exit.is_empty() { text.to_owned() } else { format!("{text}: {exit}") };
    let detail = || Some(state.detail.clone()).filter(|detail| !detail.is_empty());
    let word = |code: &'static str| if oom { "oom_killed" } else { code };
    match state.phase {
        guest::Phase::Waiting | guest::Phase::Applying => match state.failure {
            Some(failure) => Guest::Failed { code: failure.as_str().into(), detail: state.detail.clone() },
            None => Guest::Booting,
        },
        guest::Phase::Running if state.ready => Guest::Ready,
        guest::Phase::Running => Guest::Started { detail: detail() },
        guest::Phase::Backoff if state.restarts >= CRASH_LOOP_RESTARTS => {
            let text = with_exit(&format!("the process does not stay up after {} restarts", state.restarts));
            Guest::Failed { code: word("crash_loop_backoff").into(), detail: text }
        }
        guest::Phase::Backoff => Guest::Restarting {
            code: word("workload_exited"),
            detail: with_exit("the process ended and is started again"),
        },
        guest::Phase::Completed => {
            let text = with_exit("the process ended, and its restart policy does not start it again");
            Guest::Failed { code: "workload_completed".into(), detail: text }
        }
        guest::Phase::Failed => {
            let code = state.failure.map_or("workload_crashed", guest::FailureCode::as_str);
            Guest::Failed { code: if oom { "oom_killed" } else { code }.into(), detail: with_exit(&state.detail) }
        }
        guest::Phase::Stopping => Guest::Started { detail: Some("the guest is shutting down".into()) },
    }
}
