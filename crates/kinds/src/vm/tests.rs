//! What is wanted and what is seen -> steps and words.

use model::{Reason, Row, Scope};
use reconcile::{Next, Plan, Report, Table};
use serde_json::json;

use super::plan::{
    BOOTS_MAX, DRAIN_MS_MAX, Guest, Machine, START_FAULT_MS_MAX, STARTUP_MS_MAX, Seen, Stand, Step, plan,
};
use crate::testing::row;

const NOW: u64 = 10_000_000;

fn vm(phase: &str) -> Row {
    let mut vm = row(&Scope::CLOUD, "vm", 1);
    vm.phase = phase.into();
    vm.status = json!({ "boot_id": "b1" });
    vm
}

fn seen(guest: Guest) -> Seen {
    Seen { machine: Some(machine(guest)), addresses: (None, None), idle_ms: None, wanted: false }
}

fn machine(guest: Guest) -> Machine {
    Machine {
        generation: 1,
        stand: Stand::Running,
        began: ("boot", String::new()),
        ended: None,
        guest,
        boot_id: Some("b1".into()),
        started_ms: NOW - 1000,
        restarts: 0,
    }
}

fn planned(row: &Row, seen: &Seen) -> Plan<Step> {
    plan(row, &Table::from_rows([row.clone()]), seen, NOW)
}

fn said(report: &Report) -> (&str, Option<&str>) {
    (report.phase.as_str(), report.reason.as_ref().map(|reason| reason.code.as_str()))
}

#[test]
fn nothing_seen_is_started() {
    let plan = planned(&vm("pending"), &Seen { machine: None, addresses: (None, None), idle_ms: None, wanted: false });
    assert_eq!((plan.steps, said(&plan.report)), (vec![Step::Start], ("starting", Some("starting"))));
}

#[test]
fn what_the_guest_says_is_the_phase() {
    let failed = Guest::Failed { code: "crash_loop_backoff".into(), detail: "it exited with 7".into() };
    let restarting = Guest::Restarting { code: "workload_exited", detail: "it exited with 1".into() };
    let cases = [
        (Guest::Booting, ("starting", Some("booting"))),
        (Guest::Started { detail: None }, ("running", Some("healthcheck_pending"))),
        (Guest::Ready, ("ready", None)),
        (restarting, ("running", Some("workload_exited"))),
        (failed, ("failed", Some("crash_loop_backoff"))),
    ];
    for (guest, expected) in cases {
        let plan = planned(&vm("starting"), &seen(guest.clone()));
        assert_eq!((plan.steps.len(), said(&plan.report)), (0, expected), "{guest:?}");
    }
}

#[test]
fn a_machine_that_is_taken_back_keeps_its_traffic() {
    let plan = planned(&vm("ready"), &seen(Guest::Booting));
    assert_eq!((plan.steps.len(), said(&plan.report)), (0, ("ready", Some("guest_unheard"))));
    let anew = Machine { boot_id: Some("b2".into()), ..machine(Guest::Booting) };
    let plan =
        planned(&vm("ready"), &Seen { machine: Some(anew), addresses: (None, None), idle_ms: None, wanted: false });
    assert_eq!(said(&plan.report), ("starting", Some("booting")), "another boot is not ready");
}

#[test]
fn a_machine_that_is_not_ready_in_time_has_failed() {
    for (guest, code) in [(Guest::Booting, "boot_timeout"), (Guest::Started { detail: None }, "healthcheck_failed")] {
        let late = Machine { started_ms: NOW - STARTUP_MS_MAX, ..machine(guest) };
        let plan = planned(
            &vm("running"),
            &Seen { machine: Some(late), addresses: (None, None), idle_ms: None, wanted: false },
        );
        assert_eq!(said(&plan.report), ("failed", Some(code)));
    }
    // Ready once, it is left in peace: it may come back by itself.
    let late = Machine { started_ms: NOW - STARTUP_MS_MAX, ..machine(Guest::Started { detail: None }) };
    let plan =
        planned(&vm("ready"), &Seen { machine: Some(late), addresses: (None, None), idle_ms: None, wanted: false });
    assert_eq!(said(&plan.report), ("running", Some("healthcheck_failed")));
}

#[test]
fn a_hypervisor_that_ended_is_started_again_and_not_for_ever() {
    let ended = Machine {
        stand: Stand::Ended,
        ended: Some(("vmm_killed".into(), "signal 9".into())),
        ..machine(Guest::Booting)
    };
    let seen = Seen { machine: Some(ended), addresses: (None, None), idle_ms: None, wanted: false };
    let plan = planned(&vm("ready"), &seen);
    assert_eq!((plan.steps, said(&plan.report)), (vec![Step::Start], ("starting", Some("vmm_killed"))));
    assert_eq!(plan.report.status["reboots"], 1);
    let mut often = vm("running");
    often.status = json!({ "reboots": BOOTS_MAX, "boot_id": "b1" });
    let plan = planned(&often, &seen);
    assert_eq!((plan.steps.len(), said(&plan.report)), (0, ("failed", Some("vmm_killed"))));
}

#[test]
fn a_start_that_cannot_succeed_is_given_up() {
    let nothing = Seen { machine: None, addresses: (None, None), idle_ms: None, wanted: false };
    let mut broken = vm("starting");
    broken.reason = Some(Reason { since_ms: NOW, ..Reason::fault("image_layer_invalid", "`../x`", "") });
    assert_eq!(said(&planned(&broken, &nothing).report), ("failed", Some("image_layer_invalid")));
    broken.reason = Some(Reason { since_ms: NOW, ..Reason::fault("image_pull_failed", "no answer", "") });
    assert_eq!(planned(&broken, &nothing).steps, [Step::Start], "that may pass");
    broken.reason =
        Some(Reason { since_ms: NOW - START_FAULT_MS_MAX, ..Reason::fault("image_pull_failed", "no answer", "") });
    assert_eq!(said(&planned(&broken, &nothing).report), ("failed", Some("image_pull_failed")));
}

#[test]
fn traffic_goes_before_the_machine() {
    let mut vm = vm("ready");
    vm.deleting_since_ms = Some(NOW);
    let mut route = row(&Scope::CLOUD, "rt", 1);
    route.kind = "route".into();
    route.status = json!({ "url": "", "backends": [vm.id] });
    let table = Table::from_rows([vm.clone(), route]);
    let waiting = plan(&vm, &table, &seen(Guest::Ready), NOW);
    assert!(waiting.steps.is_empty() && matches!(waiting.report.next, Next::After(_)), "{waiting:?}");
    let overdue = plan(&vm, &table, &seen(Guest::Ready), NOW + DRAIN_MS_MAX);
    assert_eq!(overdue.steps, [Step::Destroy]);
    let drained = planned(&vm, &seen(Guest::Ready));
    assert_eq!(drained.steps, [Step::Destroy]);
    let gone = planned(&vm, &Seen { machine: None, addresses: (None, None), idle_ms: None, wanted: false });
    assert_eq!((gone.steps.len(), gone.report.next), (0, Next::Done));
}

/// An instance that is to be in `state`, and may rest by itself after 10 s and 20 s.
fn resting(phase: &str, state: &str, rests: bool) -> Row {
    let mut vm = vm(phase);
    vm.spec = json!({
        "release": model::Id::from_bits("rel", 1), "process": "web", "state": state, "image": "sha256:0",
        "rest": rests.then(|| json!({ "idle_seconds": 10, "warm_seconds": 20 })),
        "argv": ["/server"], "env": [], "workdir": "", "user": "", "prestart": [], "prestart_timeout_seconds": 30,
        "restart": { "policy": "always", "max_retries": 3, "backoff_seconds": 2 },
        "cpu": 1.0, "memory": "128Mi", "disk": "4Gi", "ports": [], "health": null, "health_port": null,
        "secrets": null, "secrets_required": false, "network": { "number": 0, "offset": 2 },
    });
    vm
}

fn standing(stand: Stand) -> Seen {
    Seen { machine: Some(Machine { stand, ..machine(Guest::Ready) }), ..seen(Guest::Ready) }
}

#[test]
fn every_stand_meets_every_wish() {
    use Stand::{Running, Sleeping, Warm};
    // phase, stand, wish -> phase, reason, step
    type Said = (&'static str, Option<&'static str>);
    let table: [(&str, Stand, &str, Said, Option<Step>); 11] = [
        ("ready", Running, "running", ("ready", None), None),
        // The ingress hears of it before the machine does.
        ("ready", Running, "warm", ("resting", Some("resting")), None),
        ("resting", Running, "warm", ("resting", Some("resting")), Some(Step::Pause)),
        ("resting", Running, "sleeping", ("resting", Some("resting")), Some(Step::Sleep)),
        ("resting", Running, "running", ("ready", None), None),
        ("warm", Warm, "warm", ("warm", None), None),
        ("warm", Warm, "sleeping", ("warm", Some("falling_asleep")), Some(Step::Sleep)),
        ("warm", Warm, "running", ("starting", Some("waking")), Some(Step::Resume)),
        ("sleeping", Sleeping, "sleeping", ("sleeping", None), None),
        ("sleeping", Sleeping, "running", ("starting", Some("waking")), Some(Step::Start)),
        // It runs before it stands still.
        ("sleeping", Sleeping, "warm", ("starting", Some("waking")), Some(Step::Start)),
    ];
    for (phase, stand, wish, report, step) in table {
        let plan = planned(&resting(phase, wish, false), &standing(stand));
        assert_eq!(said(&plan.report), report, "{phase} {stand:?} {wish}");
        assert_eq!(plan.steps, step.into_iter().collect::<Vec<_>>(), "{phase} {stand:?} {wish}");
        let rested = plan.report.status["rested"].as_bool();
        assert_eq!(rested, Some(plan.report.phase != "ready"), "{phase} {stand:?} {wish}");
    }
    // A machine that is not ready yet becomes ready first, and one that ended is started, whatever is wished.
    let booting = planned(&resting("starting", "sleeping", false), &seen(Guest::Booting));
    assert_eq!((booting.steps.len(), said(&booting.report)), (0, ("starting", Some("booting"))));
    let nothing = Seen { machine: None, ..seen(Guest::Ready) };
    assert_eq!(planned(&resting("pending", "sleeping", false), &nothing).steps, [Step::Start]);
}

#[test]
fn requests_are_answered_before_a_machine_rests() {
    let vm = resting("resting", "sleeping", false);
    let mut route = row(&Scope::CLOUD, "rt", 1);
    route.kind = "route".into();
    route.status = json!({ "url": "", "backends": [vm.id] });
    let table = Table::from_rows([vm.clone(), route]);
    let waiting = plan(&vm, &table, &seen(Guest::Ready), NOW);
    assert_eq!((waiting.steps.len(), said(&waiting.report)), (0, ("resting", Some("resting"))));
    let mut late = vm;
    late.reason = Some(Reason { since_ms: NOW - DRAIN_MS_MAX, ..Reason::waiting("resting", "") });
    assert_eq!(plan(&late, &table, &seen(Guest::Ready), NOW).steps, [Step::Sleep]);
}

#[test]
fn who_is_not_asked_rests_and_who_is_asked_wakes() {
    let wish = |state| vec![Step::Wish { state, why: "" }];
    let same = |steps: &[Step], wanted: &[Step]| match (steps, wanted) {
        ([Step::Wish { state, .. }, rest @ ..], [Step::Wish { state: wanted, .. }, others @ ..]) => {
            state == wanted && rest == others
        }
        (steps, wanted) => steps == wanted,
    };
    let at = |phase: &str, state: &str, rests: bool, since_s: u64, seen: Seen| {
        let mut vm = resting(phase, state, rests);
        vm.status = json!({ "boot_id": "b1", "rested": phase != "ready", "state_since_ms": NOW - since_s * 1000 });
        planned(&vm, &seen).steps
    };
    let idle = |seconds: Option<u64>| Seen { idle_ms: seconds.map(|s| s * 1000), ..seen(Guest::Ready) };
    let none: Vec<Step> = Vec::new();
    let woken = vec![Step::Wish { state: super::State::Running, why: "" }, Step::Start];
    let resumed = vec![Step::Wish { state: super::State::Running, why: "" }, Step::Resume];
    let cases = [
        (at("ready", "running", true, 100, idle(Some(10))), wish(super::State::Warm)),
        (at("ready", "running", true, 100, idle(Some(9))), none.clone()),
        // Not known, or in flight.
        (at("ready", "running", true, 100, idle(None)), none.clone()),
        // It has just woken.
        (at("ready", "running", true, 9, idle(Some(60))), none.clone()),
        // It is not to rest by itself.
        (at("ready", "running", false, 100, idle(Some(1000))), none.clone()),
        (at("warm", "warm", true, 20, standing(Stand::Warm)), wish(super::State::Sleeping)),
        (at("warm", "warm", true, 19, standing(Stand::Warm)), none.clone()),
        (at("warm", "warm", false, 1000, standing(Stand::Warm)), none.clone()),
        (at("sleeping", "sleeping", true, 1000, standing(Stand::Sleeping)), none.clone()),
        (at("sleeping", "sleeping", true, 1, Seen { wanted: true, ..standing(Stand::Sleeping) }), woken.clone()),
        // Asleep by hand: a client wakes it all the same.
        (at("warm", "warm", false, 1, Seen { wanted: true, ..standing(Stand::Warm) }), resumed),
    ];
    for (number, (steps, wanted)) in cases.into_iter().enumerate() {
        assert!(same(&steps, &wanted), "case {number}: {steps:?}");
    }
}
