//! What is wanted and what is seen -> steps and words.

use model::{Reason, Row, Scope};
use reconcile::{Next, Plan, Report, Table};
use serde_json::json;

use super::plan::{BOOTS_MAX, DRAIN_MS_MAX, Guest, Machine, START_FAULT_MS_MAX, STARTUP_MS_MAX, Seen, Step, plan};
use crate::testing::row;

const NOW: u64 = 10_000_000;

fn vm(phase: &str) -> Row {
    let mut vm = row(&Scope::CLOUD, "vm", 1);
    vm.phase = phase.into();
    vm.status = json!({ "boot_id": "b1" });
    vm
}

fn seen(guest: Guest) -> Seen {
    Seen { machine: Some(machine(guest)), addresses: (None, None) }
}

fn machine(guest: Guest) -> Machine {
    Machine {
        generation: 1,
        running: true,
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
    let plan = planned(&vm("pending"), &Seen { machine: None, addresses: (None, None) });
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
    let plan = planned(&vm("ready"), &Seen { machine: Some(anew), addresses: (None, None) });
    assert_eq!(said(&plan.report), ("starting", Some("booting")), "another boot is not ready");
}

#[test]
fn a_machine_that_is_not_ready_in_time_has_failed() {
    for (guest, code) in [(Guest::Booting, "boot_timeout"), (Guest::Started { detail: None }, "healthcheck_failed")] {
        let late = Machine { started_ms: NOW - STARTUP_MS_MAX, ..machine(guest) };
        let plan = planned(&vm("running"), &Seen { machine: Some(late), addresses: (None, None) });
        assert_eq!(said(&plan.report), ("failed", Some(code)));
    }
    // Ready once, it is left in peace: it may come back by itself.
    let late = Machine { started_ms: NOW - STARTUP_MS_MAX, ..machine(Guest::Started { detail: None }) };
    let plan = planned(&vm("ready"), &Seen { machine: Some(late), addresses: (None, None) });
    assert_eq!(said(&plan.report), ("running", Some("healthcheck_failed")));
}

#[test]
fn a_hypervisor_that_ended_is_started_again_and_not_for_ever() {
    let ended =
        Machine { running: false, ended: Some(("vmm_killed".into(), "signal 9".into())), ..machine(Guest::Booting) };
    let seen = Seen { machine: Some(ended), addresses: (None, None) };
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
    let nothing = Seen { machine: None, addresses: (None, None) };
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
    let gone = planned(&vm, &Seen { machine: None, addresses: (None, None) });
    assert_eq!((gone.steps.len(), gone.report.next), (0, Next::Done));
}
