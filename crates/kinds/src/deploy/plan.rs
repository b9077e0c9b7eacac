//! What a deploy does next. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Id, Reason, Row};
use reconcile::kind::read;
use reconcile::{Next, Plan, Report, Table};

use super::contract::{Instance, Spec, Status};
use crate::settings::Settings;
use crate::{env, release, route, secret, vm};

/// A rollout that is not done by then has failed.
pub const ROLLOUT_MS_MAX: u64 = 10 * 60 * 1000;
/// Instances above the desired count during a rollout.
const SURGE: usize = 1;
/// Failed instances of a live deploy that are replaced within [`REPLACEMENT_WINDOW_MS`]; more wait for a person.
pub const REPLACEMENTS_MAX: usize = 3;
const REPLACEMENT_WINDOW_MS: u64 = 10 * 60 * 1000;
/// How long a failed instance of a failed deploy stays when an older deploy keeps the env.
const FAILED_KEPT_MS: u64 = 60_000;
/// Instance names tried before giving up: more than an env can hold.
const NAMES_MAX: u32 = 1000;

#[derive(Debug, PartialEq)]
pub enum Step {
    Create {
        name: String,
        spec: vm::Wanted,
    },
    Route {
        name: String,
        spec: route::Spec,
    },
    /// Asks an instance to go. `why` is for the log.
    Delete {
        id: Id,
        why: &'static str,
    },
}

/// Everything a plan looks at, read out of the table once.
struct View<'a> {
    row: &'a Row,
    table: &'a Table,
    now_ms: u64,
    release: release::Spec,
    release_id: Id,
    secrets: Option<u64>,
    scale: BTreeMap<String, u32>,
    /// Instances in the env that some deploy owns and that are not on their way out.
    instances: Vec<(Arc<Row>, vm::Spec)>,
    status: Status,
}

pub fn plan(row: &Row, table: &Table, now_ms: u64, settings: &Settings) -> Plan<Step> {
    let status: Status = read("status", &row.status).unwrap_or_default();
    if row.deleting() {
        return removal(row, table);
    }
    let later = || table.at(&row.scope, "deploy").filter(|other| other.id > row.id && !other.deleting());
    let done = matches!(row.phase.as_str(), "failed" | "superseded");
    if done {
        return still(row, Next::Done);
    }
    let newer = later().find(|other| !matches!(other.phase.as_str(), "failed" | "superseded"));
    if let Some(newer) = newer {
        let replaced = row.phase != "live" || newer.phase == "live";
        if !replaced {
            return still(row, Next::Wait);
        }
        let status = Status { instances: Vec::new(), ready: 0, ..status };
        if row.phase == "live" {
            return report("superseded", None, &status, Next::Done);
        }
        let message = format!("{} came before this deploy was done", newer.name);
        let reason = Reason::fault("superseded", message, "vt status");
        return report("superseded", Some(reason), &status, Next::Done);
    }
    match View::read(row, table, now_ms, status) {
        Ok(view) => view.keep(settings),
        Err(reason) => report("failed", Some(reason), &Status::default(), Next::Done),
    }
}

fn still(row: &Row, next: Next) -> Plan<Step> {
    let report = Report { phase: row.phase.clone(), reason: row.reason.clone(), status: row.status.clone(), next };
    Plan { steps: Vec::new(), report }
}

fn report(phase: &str, reason: Option<Reason>, status: &Status, next: Next) -> Plan<Step> {
    let status = serde_json::to_value(status).unwrap_or_default();
    Plan { steps: Vec::new(), report: Report { phase: phase.to_owned(), reason, status, next } }
}

/// A deploy that is to go takes its instances with it.
fn removal(row: &Row, table: &Table) -> Plan<Step> {
    let owned: Vec<_> = table.owned_by(&row.id).collect();
    let steps = owned
        .iter()
        .filter(|vm| !vm.deleting())
        .map(|vm| Step::Delete { id: vm.id.clone(), why: "the deploy is removed" })
        .collect();
    let next = if owned.is_empty() { Next::Done } else { Next::Wait };
    let reason = Reason::waiting("removing", format!("{} instance(s) left", owned.len()));
    Plan { steps, report: Report { phase: row.phase.clone(), reason: Some(reason), status: row.status.clone(), next } }
}

/// How one process stands.
struct Standing<'a> {
    process: &'a str,
    desired: usize,
    /// Instances of the wanted release and secrets.
    own: Vec<&'a (Arc<Row>, vm::Spec)>,
    /// All others of the process.
    old: Vec<&'a (Arc<Row>, vm::Spec)>,
}

fn ready(instance: &(Arc<Row>, vm::Spec)) -> bool {
    instance.0.phase == "ready" && instance.0.current()
}

/// It rests as it was told to, and would serve.
fn rests(instance: &(Arc<Row>, vm::Spec)) -> bool {
    matches!(instance.0.phase.as_str(), "resting" | "warm" | "sleeping")
}

/// Nothing is missing of it.
fn settled(instance: &(Arc<Row>, vm::Spec)) -> bool {
    ready(instance) || rests(instance)
}

fn failed(instance: &(Arc<Row>, vm::Spec)) -> bool {
    instance.0.phase == "failed"
}

/// A failed instance of a deploy that has failed stays for a while: its log says why, and goes with it.
fn kept_to_look_at(vm: &Row, keeper: &Row, now_ms: u64) -> bool {
    let since = vm.reason.as_ref().map_or(0, |reason| reason.since_ms);
    vm.phase == "failed" && vm.owner.as_ref() != Some(&keeper.id) && now_ms < since + FAILED_KEPT_MS
}

impl<'a> View<'a> {
    fn read(row: &'a Row, table: &'a Table, now_ms: u64, status: Status) -> Result<Self, Reason> {
        let lost = |what: &str| Reason::fault("release_missing", format!("{what} is gone"), "vt deploy");
        let spec: Spec = read("spec", &row.spec).map_err(|error| error.as_reason())?;
        let release_row = table.get(&spec.release).ok_or_else(|| lost("the release"))?;
        let release = read("spec", &release_row.spec).map_err(|error| error.as_reason())?;
        let env_row = row.scope.last().and_then(|id| table.get(id)).ok_or_else(|| lost("the env"))?;
        let env: env::Spec = read("spec", &env_row.spec).map_err(|error| error.as_reason())?;
        let owners: Vec<&Id> = table.at(&row.scope, "deploy").map(|deploy| &deploy.id).collect();
        let instances = table
            .at(&row.scope, "vm")
            .filter(|vm| {
                !vm.deleting()
                    && !kept_to_look_at(vm, row, now_ms)
                    && vm.owner.as_ref().is_some_and(|owner| owners.contains(&owner))
            })
            .filter_map(|vm| Some((vm.clone(), read("spec", &vm.spec).ok()?)))
            .collect();
        let secrets = secret::version_at(table, &row.scope);
        let (release_id, scale) = (spec.release, env.scale);
        Ok(Self { row, table, now_ms, release, release_id, secrets, scale, instances, status })
    }

    fn standing(&self) -> Vec<Standing<'_>> {
        let current = |spec: &vm::Spec| spec.release == self.release_id && spec.secrets_version() == self.secrets;
        self.release
            .manifest
            .processes
            .iter()
            .map(|(process, wanted)| {
                let desired = self.scale.get(process).copied().unwrap_or(wanted.scaling.usual()) as usize;
                let all = self.instances.iter().filter(|(_, spec)| spec.process == *process);
                let (own, old) = all.partition(|(_, spec)| current(spec));
                Standing { process, desired, own, old }
            })
            .collect()
    }

    /// The plan of the env's keeper.
    fn keep(&self, settings: &Settings) -> Plan<Step> {
        let standing = self.standing();
        let live = self.row.phase == "live";
        let broken = standing.iter().flat_map(|process| &process.own).find(|instance| failed(instance));
        if let (Some((vm, _)), false) = (broken, live) {
            let why = vm.reason.clone().unwrap_or_else(|| Reason::fault("instance_failed", "no reason was given", ""));
            let message = format!("{} failed: {}", vm.name, why.message);
            let remedy = if why.remedy.is_empty() { format!("vt why {}", vm.name) } else { why.remedy };
            return self.ended(Reason::fault(why.code, message, remedy));
        }
        let mut status = self.status.clone();
        let mut steps = self.routes(settings);
        let mut gave_up = None;
        for process in &standing {
            steps.extend(process.steps(self, live, &mut status, &mut gave_up));
        }
        let all_ready = standing.iter().all(Standing::complete);
        if all_ready {
            let known = |spec: &vm::Spec| self.release.manifest.processes.contains_key(&spec.process);
            let stray = self.instances.iter().filter(|(_, spec)| !known(spec));
            steps.extend(
                stray.map(|(vm, _)| Step::Delete { id: vm.id.clone(), why: "its process is not in the release" }),
            );
        }
        self.describe(&standing, &mut status, settings);
        let moved = all_ready && steps.is_empty() && self.traffic_moved(&standing);
        let (phase, reason) = if let Some(reason) = gave_up {
            (if live { "live" } else { "rolling" }, Some(reason))
        } else if moved {
            ("live", None)
        } else {
            (if live { "live" } else { "rolling" }, Some(Self::waiting(&standing, all_ready)))
        };
        let next = if moved {
            Next::Done
        } else if live {
            Next::Wait
        } else {
            let age = self.now_ms.saturating_sub(self.row.created_ms);
            if age >= ROLLOUT_MS_MAX {
                return self.ended(Self::too_slow(&standing));
            }
            Next::After(ROLLOUT_MS_MAX - age)
        };
        let status = serde_json::to_value(&status).unwrap_or_default();
        Plan { steps, report: Report { phase: phase.to_owned(), reason, status, next } }
    }

    fn ended(&self, reason: Reason) -> Plan<Step> {
        let good = self.table.at(&self.row.scope, "deploy").filter(|other| other.phase == "live").last();
        let message = match good {
            Some(good) => format!("{}; {} stays live", reason.message, good.name),
            None => reason.message,
        };
        report("failed", Some(Reason { message, ..reason }), &self.status, Next::Done)
    }

    fn too_slow(standing: &[Standing<'_>]) -> Reason {
        let blocker = standing.iter().flat_map(|process| &process.own).find(|instance| !ready(instance));
        let (code, what, remedy) = match blocker.and_then(|(vm, _)| Some((vm, vm.reason.as_ref()?))) {
            Some((vm, reason)) => {
                (reason.code.clone(), format!("{}: {}", vm.name, reason.message), reason.remedy.clone())
            }
            None => ("rollout_timeout".to_owned(), "no instance says why".to_owned(), String::new()),
        };
        Reason::fault(code, format!("not ready within 10 minutes; {what}"), remedy)
    }

    fn waiting(standing: &[Standing<'_>], all_ready: bool) -> Reason {
        if all_ready {
            return Reason::waiting("traffic_moving", "the new instances are ready; traffic moves to them");
        }
        let desired: usize = standing.iter().map(|process| process.desired).sum();
        let count: usize = standing.iter().map(|process| process.own.iter().filter(|vm| ready(vm)).count()).sum();
        let behind = standing.iter().flat_map(|process| &process.own).find(|instance| !ready(instance));
        let what = behind.map_or_else(String::new, |(vm, _)| {
            let why = vm.reason.as_ref().map_or(vm.phase.clone(), |reason| reason.message.clone());
            format!("; {}: {why}", vm.name)
        });
        Reason::waiting("rolling", format!("{count} of {desired} ready{what}"))
    }

    fn describe(&self, standing: &[Standing<'_>], status: &mut Status, settings: &Settings) {
        status.release_number = self.release.number;
        status.desired = standing.iter().map(|process| process.desired as u32).sum();
        let own = || standing.iter().flat_map(|process| &process.own);
        status.ready = own().filter(|instance| ready(instance)).count() as u32;
        status.instances = own()
            .map(|(vm, spec)| Instance {
                id: vm.id.clone(),
                name: vm.name.clone(),
                process: spec.process.clone(),
                phase: vm.phase.clone(),
                address: vm::address_of(vm),
            })
            .collect();
        status.instances.sort_by(|a, b| a.name.cmp(&b.name));
        let routes = self.table.at(&self.row.scope, "route").filter(|route| !route.deleting());
        let specs = routes.filter_map(|route| read::<route::Spec>("spec", &route.spec).ok());
        // The first one made: a host that was added later does not become the app's own.
        let mut urls = specs.map(|spec| route::url(&spec, settings));
        status.url = urls.next();
    }

    /// Every route of the env sends to the wanted instances and to no others.
    fn traffic_moved(&self, standing: &[Standing<'_>]) -> bool {
        let routes = self.table.at(&self.row.scope, "route").filter(|route| !route.deleting());
        routes.filter_map(|row| Some((row, read::<route::Spec>("spec", &row.spec).ok()?))).all(|(row, spec)| {
            let status: route::Status = read("status", &row.status).unwrap_or_default();
            let Some(process) = standing.iter().find(|process| process.process == spec.process) else { return true };
            let serve = process.own.iter().filter(|instance| !rests(instance));
            let mut wanted: Vec<&Id> = serve.map(|(vm, _)| &vm.id).collect();
            let resting = |id: &&Id| process.own.iter().any(|instance| rests(instance) && instance.0.id == **id);
            let mut has: Vec<&Id> = status.backends.iter().filter(|id| !resting(id)).collect();
            wanted.sort();
            has.sort();
            row.current() && wanted == has
        })
    }

    /// Default routes: for each process with a port and a health check.
    fn routes(&self, settings: &Settings) -> Vec<Step> {
        let mut steps = Vec::new();
        let existing: Vec<_> = self.table.at(&self.row.scope, "route").collect();
        for (process, wanted) in &self.release.manifest.processes {
            let (Some(port), true) = (wanted.ports.first(), wanted.health.is_some()) else { continue };
            let served = existing.iter().filter_map(|row| read::<route::Spec>("spec", &row.spec).ok());
            if served.into_iter().any(|spec| spec.process == *process) {
                continue;
            }
            let names: Vec<String> = [self.row.scope.at(model::Level::App), Some(self.row.scope.clone())]
                .into_iter()
                .flatten()
                .filter_map(|scope| self.table.get(scope.last()?).map(|row| row.name.clone()))
                .collect();
            let first = self.release.manifest.processes.keys().find(|name| *name == "web");
            let main = first.or(self.release.manifest.processes.keys().next()) == Some(process);
            let label = if main { names.join("-") } else { format!("{process}-{}", names.join("-")) };
            let taken = |host: &str| {
                let routes = self.table.of_kind("route").filter_map(|row| read::<route::Spec>("spec", &row.spec).ok());
                routes.into_iter().any(|spec| spec.host.as_deref() == Some(host))
            };
            let mut host = format!("{label}.{}", settings.domain);
            if label.len() > model::name::CHARS_MAX || taken(&host) {
                // Someone else's app has the same names: this one is told apart by its env's id.
                let short = self.row.scope.last().map_or("", |id| id.short()).to_ascii_lowercase();
                let cut: String = label.chars().take(model::name::CHARS_MAX - short.len() - 1).collect();
                host = format!("{cut}-{short}.{}", settings.domain);
            }
            steps.push(Step::Route { name: process.clone(), spec: route::Spec::http(host, process, port.internal) });
        }
        steps
    }

    fn free_name(&self, process: &str, taken: &[String]) -> Option<String> {
        let names: Vec<&str> = self.table.at(&self.row.scope, "vm").map(|vm| vm.name.as_str()).collect();
        (1..NAMES_MAX)
            .map(|number| format!("{process}-{number}"))
            .find(|name| !names.contains(&name.as_str()) && !taken.contains(name))
    }
}

impl Standing<'_> {
    fn complete(&self) -> bool {
        self.own.len() == self.desired && self.own.iter().all(|instance| settled(instance)) && self.old.is_empty()
    }

    fn steps(&self, view: &View<'_>, live: bool, status: &mut Status, gave_up: &mut Option<Reason>) -> Vec<Step> {
        let mut steps = Vec::new();
        let delete = |vm: &Row, why| Step::Delete { id: vm.id.clone(), why };
        // Failed ones of a live deploy are replaced, but not for ever.
        if live {
            status.replaced_ms.retain(|at| at + REPLACEMENT_WINDOW_MS > view.now_ms);
            for (vm, _) in self.own.iter().copied().filter(|instance| failed(instance)) {
                if status.replaced_ms.len() < REPLACEMENTS_MAX {
                    status.replaced_ms.push(view.now_ms);
                    steps.push(delete(vm, "it failed and is replaced"));
                } else {
                    let why = vm.reason.as_ref().map_or("", |reason| &reason.message);
                    let message = format!("{} failed again after {REPLACEMENTS_MAX} replacements: {why}", vm.name);
                    *gave_up = Some(Reason::fault("crash_loop_backoff", message, "vt rollback"));
                }
            }
        }
        let own_ready = self.own.iter().filter(|instance| settled(instance)).count();
        // New ones, up to the surge above the desired count. Into an empty env all at once.
        let room = if self.old.is_empty() { self.desired } else { self.desired + SURGE };
        let have = self.own.len() + self.old.len();
        let missing = self.desired.saturating_sub(self.own.len()).min(room.saturating_sub(have));
        let mut names = Vec::new();
        for _ in 0..missing {
            let Some(name) = view.free_name(self.process, &names) else { break };
            names.push(name.clone());
            let (release, process) = (view.release_id.clone(), self.process.to_owned());
            let spec = vm::Wanted { release, process, state: vm::State::Running };
            steps.push(Step::Create { name, spec });
        }
        // Old ones that serve nobody go at once; those that serve, or would when they are asked, one for each new one that
        // is ready.
        let (serving, idle): (Vec<_>, Vec<_>) = self.old.iter().copied().partition(|instance| settled(instance));
        steps.extend(idle.iter().map(|(vm, _)| delete(vm, "replaced before it served")));
        let spare = (own_ready + serving.len()).saturating_sub(self.desired);
        steps.extend(serving.iter().take(spare).map(|(vm, _)| delete(vm, "replaced by a newer instance")));
        // Scaled down: those that are not ready first, then the youngest.
        let mut own: Vec<_> = self.own.clone();
        own.sort_by_key(|instance| (settled(instance), std::cmp::Reverse(instance.0.id.clone())));
        let surplus = own.len().saturating_sub(self.desired);
        steps.extend(own.iter().take(surplus).map(|(vm, _)| delete(vm, "scaled down")));
        steps
    }
}
