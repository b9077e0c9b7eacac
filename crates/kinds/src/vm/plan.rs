//! What a machine needs next. Pure.
//!
//! ```text
//! pending -> starting -> running -> ready          ready: the health check passes (or there is none)
//!               ^            \---> failed          the guest gave up, or it was not ready in time
//!               |  the hypervisor ended: started again, with the reason on record
//! ready -> resting -> warm -> sleeping             by its spec's state; who has `rest` sets that by itself, and a client
//!   ^---- starting <---+--------/                  that waits at the ingress sets it back
//! any -> draining -> gone                          traffic first, then the machine, then its disk and address
//! ```

use model::{Reason, Row};
use reconcile::kind::read;
use reconcile::{Next, Plan, Report, Table};

use super::contract::{Rest, Spec, State, Status};
use crate::route;

/// From the start of the machine to ready.
pub const STARTUP_MS_MAX: u64 = 120_000;
/// How long a machine that is to go waits for its traffic to end.
pub const DRAIN_MS_MAX: u64 = 30_000;
/// How often a draining machine looks whether its traffic has ended.
const DRAIN_LOOK_MS: u64 = 200;
/// A machine whose hypervisor ended this often in a row without being ready in between has failed.
pub const BOOTS_MAX: u32 = 5;

/// How long a start is tried again while it fails for the same reason.
pub const START_FAULT_MS_MAX: u64 = 60_000;
/// However short its `rest`, it runs and stands still for at least this long.
const RUNNING_MS_MIN: u64 = 60_000;
const WARM_MS_MIN: u64 = 30_000;
/// Reasons that no further attempt mends.
const FINAL: &[&str] = &["image_layer_invalid", "image_too_large", "secrets_missing", "no_entrypoint"];

/// What was seen of a machine on this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The generation it was started for.
    pub generation: u64,
    pub stand: Stand,
    /// What it began with, and why it was not something faster.
    pub began: (&'static str, String),
    /// Why the hypervisor ended: a reason code and a sentence.
    pub ended: Option<(String, String)>,
    pub guest: Guest,
    pub boot_id: Option<String>,
    pub started_ms: u64,
    /// Starts of the process after the first.
    pub restarts: u32,
}

/// What its process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    Running,
    Warm,
    Sleeping,
    /// It has none, and was not asked to have none.
    Ended,
}

/// How far the guest is.
#[derive(Clone, Debug, PartialEq)]
pub enum Guest {
    /// Nothing was heard of PID 1 yet, or it is being configured.
    Booting,
    /// The process runs; its health check has not passed yet.
    Started {
        detail: Option<String>,
    },
    Ready,
    /// The process ended, and will be started again.
    Restarting {
        code: &'static str,
        detail: String,
    },
    /// The guest gave up: a reason code and a sentence.
    Failed {
        code: String,
        detail: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub machine: Option<Machine>,
    pub addresses: (Option<String>, Option<String>),
    /// For how long the ingress has had nothing for it; `None` while it has, or when that is not known.
    pub idle_ms: Option<u64>,
    /// A client waits at the ingress for it to wake.
    pub wanted: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Image, network, hypervisor: all that a start takes, each step idempotent. One that sleeps goes on.
    Start,
    /// One that stands still goes on.
    Resume,
    Pause,
    Sleep,
    /// Changes the row's own wish; `why` is for the log of what happened.
    Wish {
        state: State,
        why: &'static str,
    },
    /// Removes the machine with its disk and address.
    Destroy,
}

pub fn plan(row: &Row, table: &Table, seen: &Seen, now_ms: u64) -> Plan<Step> {
    if row.deleting() {
        return removal(row, table, seen, now_ms);
    }
    let mut status: Status = read("status", &row.status).unwrap_or_default();
    (status.address4, status.address6) = seen.addresses.clone();
    let (wish, rest) = wish_of(row);
    if seen.wanted && wish != State::Running {
        // Someone is waiting: once the wish is on record the act follows at once, and the report after both.
        let wish = Step::Wish { state: State::Running, why: "a client waits for it" };
        let report = Report {
            phase: row.phase.clone(),
            reason: row.reason.clone(),
            status: row.status.clone(),
            next: Next::Wait,
        };
        let warm = seen.machine.as_ref().is_some_and(|machine| machine.stand == Stand::Warm);
        return Plan { steps: vec![wish, if warm { Step::Resume } else { Step::Start }], report };
    }
    let Some(machine) = &seen.machine else {
        if let Some(reason) = row.reason.as_ref().filter(|reason| gave_up(row, reason, now_ms)) {
            return said("failed", Some(reason.clone()), &status, Next::Wait, Vec::new());
        }
        let reason = row.reason.clone().filter(|reason| reason.code != "pending");
        let reason =
            reason.unwrap_or_else(|| Reason::waiting("starting", "image, network and hypervisor are being prepared"));
        return said("starting", Some(reason), &status, Next::After(1000), vec![Step::Start]);
    };
    if row.phase == "failed" && machine.boot_id == status.boot_id {
        // Kept as it is, for people to look at; whoever owns it decides.
        let report = Report {
            phase: row.phase.clone(),
            reason: row.reason.clone(),
            status: row.status.clone(),
            next: Next::Wait,
        };
        return Plan { steps: Vec::new(), report };
    }
    match machine.stand {
        Stand::Ended => {
            let (code, detail) = machine.ended.clone().unwrap_or_default();
            return restarted(row, status, &code, &detail);
        }
        Stand::Warm | Stand::Sleeping => return at_rest(row, machine, wish, rest, status, now_ms),
        Stand::Running => {}
    }
    if row.phase == "ready" && machine.guest == Guest::Booting && machine.boot_id == status.boot_id {
        // Taken back after a restart of this program: the boot is the one that was ready, and its guest has not been
        // heard of yet. Traffic stays; the ingress itself avoids what does not answer.
        let reason =
            Reason::waiting("guest_unheard", "the machine was taken back; its guest has not been heard of yet");
        return said("ready", Some(reason), &status, Next::After(1000), Vec::new());
    }
    if machine.boot_id.is_some() {
        status.boot_id.clone_from(&machine.boot_id);
    }
    status.started_ms = Some(machine.started_ms);
    status.restarts = machine.restarts;
    (status.began, status.began_why) =
        (Some(machine.began.0.to_owned()), Some(machine.began.1.clone()).filter(|why| !why.is_empty()));
    if machine.guest != Guest::Ready {
        return running(row, machine, status, now_ms);
    }
    status.reboots = 0;
    if wish != State::Running {
        return resting(row, table, wish, status, now_ms);
    }
    if status.rested || row.phase != "ready" {
        status.state_since_ms = Some(now_ms);
    }
    status.rested = false;
    ready(row, seen, rest, status, now_ms)
}

fn wish_of(row: &Row) -> (State, Option<Rest>) {
    read::<Spec>("spec", &row.spec).map_or((State::Running, None), |spec| (spec.state, spec.rest))
}

/// Serves; and when nobody asked it for long enough, wishes to rest.
fn ready(row: &Row, seen: &Seen, rest: Option<Rest>, status: Status, now_ms: u64) -> Plan<Step> {
    let Some(rest) = rest.filter(|_| row.phase == "ready") else {
        return said("ready", None, &status, if rest.is_some() { Next::After(1000) } else { Next::Wait }, Vec::new());
    };
    let limit = u64::from(rest.idle_seconds) * 1000;
    let ran = now_ms.saturating_sub(status.state_since_ms.unwrap_or(now_ms));
    // What is not known is not idle.
    let idle = seen.idle_ms.unwrap_or(0).min(ran);
    if idle >= limit && ran >= RUNNING_MS_MIN.min(limit) {
        let steps = vec![Step::Wish { state: State::Warm, why: "nobody asked it for long enough" }];
        return said("ready", None, &status, Next::Wait, steps);
    }
    said("ready", None, &status, Next::After((limit - idle.min(limit)).max(100)), Vec::new())
}

/// Traffic first, then its virtual CPUs.
fn resting(row: &Row, table: &Table, wish: State, mut status: Status, now_ms: u64) -> Plan<Step> {
    let since = row.reason.as_ref().filter(|reason| reason.code == "resting").map_or(now_ms, |reason| reason.since_ms);
    status.rested = true;
    let reason = Reason::waiting("resting", "its last requests are being answered, then it rests");
    if serving(row, table) && now_ms.saturating_sub(since) < DRAIN_MS_MAX {
        return said("resting", Some(reason), &status, Next::After(DRAIN_LOOK_MS), Vec::new());
    }
    // The ingress must have heard that it rests before it does.
    let told = row.phase == "resting" && row.current();
    let step = if wish == State::Sleeping { Step::Sleep } else { Step::Pause };
    let (next, steps) = if told { (Next::Wait, vec![step]) } else { (Next::After(DRAIN_LOOK_MS), Vec::new()) };
    said("resting", Some(reason), &status, next, steps)
}

/// Its virtual CPUs stand still.
fn at_rest(
    row: &Row,
    machine: &Machine,
    wish: State,
    rest: Option<Rest>,
    mut status: Status,
    now_ms: u64,
) -> Plan<Step> {
    status.rested = true;
    let is = if machine.stand == Stand::Warm { State::Warm } else { State::Sleeping };
    let phase = if is == State::Warm { "warm" } else { "sleeping" };
    match (is, wish) {
        (State::Warm, State::Sleeping) => {
            let reason = Reason::waiting("falling_asleep", "its memory is being written to the disk");
            said(phase, Some(reason), &status, Next::Wait, vec![Step::Sleep])
        }
        (State::Sleeping, State::Sleeping) | (State::Warm, State::Warm) => {
            if row.phase != phase {
                status.state_since_ms = Some(now_ms);
            }
            let stood = now_ms.saturating_sub(status.state_since_ms.unwrap_or(now_ms));
            let Some(rest) = rest.filter(|_| is == State::Warm) else {
                return said(phase, None, &status, Next::Wait, Vec::new());
            };
            let limit = u64::from(rest.warm_seconds) * 1000;
            if stood >= limit.max(WARM_MS_MIN.min(limit)) {
                let steps = vec![Step::Wish { state: State::Sleeping, why: "it stood still for long enough" }];
                return said(phase, None, &status, Next::Wait, steps);
            }
            said(phase, None, &status, Next::After((limit - stood).max(100)), Vec::new())
        }
        // A sleeping machine stands still again only after it ran.
        (_, State::Running) | (State::Sleeping | State::Running, State::Warm) => {
            let reason = Reason::waiting("waking", "the machine goes on where it was");
            let step = if is == State::Warm { Step::Resume } else { Step::Start };
            said("starting", Some(reason), &status, Next::After(1000), vec![step])
        }
        (State::Running, State::Sleeping) => said(phase, None, &status, Next::Wait, Vec::new()),
    }
}

/// Some route still sends to it, or waits for what it has in flight.
fn serving(row: &Row, table: &Table) -> bool {
    table.at(&row.scope, "route").any(|route| {
        let status: route::Status = read("status", &route.status).unwrap_or_default();
        status.backends.contains(&row.id)
    })
}

/// A start that fails for a reason that trying again does not mend, or has failed for it long enough.
fn gave_up(row: &Row, reason: &Reason, now_ms: u64) -> bool {
    let lasting = now_ms.saturating_sub(reason.since_ms) >= START_FAULT_MS_MAX;
    row.phase == "failed" || !reason.transient && (lasting || FINAL.contains(&reason.code.as_str()))
}

fn running(row: &Row, machine: &Machine, status: Status, now_ms: u64) -> Plan<Step> {
    let age = now_ms.saturating_sub(machine.started_ms);
    let in_time = age < STARTUP_MS_MAX;
    let next = if in_time { Next::After(STARTUP_MS_MAX - age) } else { Next::Wait };
    match &machine.guest {
        Guest::Ready => said("ready", None, &status, Next::Wait, Vec::new()),
        Guest::Failed { code, detail } => {
            let remedy = format!("vt logs --vm {}", row.name);
            said("failed", Some(Reason::fault(code, detail, remedy)), &status, Next::Wait, Vec::new())
        }
        Guest::Restarting { code, detail } => {
            let reason =
                Reason { transient: true, ..Reason::fault(*code, detail, format!("vt logs --vm {}", row.name)) };
            said("running", Some(reason), &status, next, Vec::new())
        }
        Guest::Booting if in_time => {
            let reason = Reason::waiting("booting", "the guest is booting");
            said("starting", Some(reason), &status, next, Vec::new())
        }
        Guest::Booting => {
            let message = format!("the guest was not up {} s after its start", STARTUP_MS_MAX / 1000);
            said("failed", Some(Reason::fault("boot_timeout", message, "vt doctor")), &status, Next::Wait, Vec::new())
        }
        Guest::Started { detail } => {
            let detail = detail.clone().unwrap_or_else(|| "no check has passed yet".to_owned());
            if in_time || row.phase == "ready" {
                // Ready once and not now: traffic goes elsewhere, and it may come back by itself.
                let waiting =
                    Reason::waiting("healthcheck_pending", format!("the health check has not passed: {detail}"));
                let failing =
                    Reason::fault("healthcheck_failed", format!("the health check fails: {detail}"), "vt logs");
                let reason = if status.last_failure.is_none() && in_time { waiting } else { failing };
                return said("running", Some(reason), &status, next, Vec::new());
            }
            let message = format!("the health check did not pass within {} s: {detail}", STARTUP_MS_MAX / 1000);
            let remedy = "does the process listen on the port that `health` names, on all addresses?";
            said("failed", Some(Reason::fault("healthcheck_failed", message, remedy)), &status, Next::Wait, Vec::new())
        }
    }
}

/// The hypervisor ended: boots again at once, and gives up after a few boots that got nowhere.
fn restarted(row: &Row, mut status: Status, code: &str, detail: &str) -> Plan<Step> {
    let counted = status.last_failure.as_deref() == Some(detail) && row.phase == "starting";
    if !counted {
        status.reboots += 1;
        status.last_failure = Some(detail.to_owned());
    }
    if status.reboots > BOOTS_MAX {
        let message = format!("the machine ended {BOOTS_MAX} times in a row: {detail}");
        return said("failed", Some(Reason::fault(code, message, "vt doctor")), &status, Next::Wait, Vec::new());
    }
    let reason = Reason::waiting(code, format!("{detail}; it is started again"));
    said("starting", Some(reason), &status, Next::After(1000), vec![Step::Start])
}

fn removal(row: &Row, table: &Table, seen: &Seen, now_ms: u64) -> Plan<Step> {
    let status: Status = read("status", &row.status).unwrap_or_default();
    let since = row.deleting_since_ms.unwrap_or(now_ms);
    let alive = seen.machine.as_ref().is_some_and(|machine| machine.stand == Stand::Running);
    if serving(row, table) && alive && now_ms.saturating_sub(since) < DRAIN_MS_MAX {
        let reason = Reason::waiting("draining", "its last requests are being answered");
        return said("draining", Some(reason), &status, Next::After(DRAIN_LOOK_MS), Vec::new());
    }
    if seen.machine.is_some() {
        let reason = Reason::waiting("removing", "the machine is being shut down");
        return said("draining", Some(reason), &status, Next::Wait, vec![Step::Destroy]);
    }
    said("draining", None, &status, Next::Done, Vec::new())
}

fn said(phase: &str, reason: Option<Reason>, status: &Status, next: Next, steps: Vec<Step>) -> Plan<Step> {
    let status = serde_json::to_value(status).unwrap_or_default();
    Plan { steps, report: Report { phase: phase.to_owned(), reason, status, next } }
}
