use super::*;
use async_trait::async_trait;
use model::{Error, Level, Scope};
use reconcile::{Admission, Admitted, Contract, Kind, Report, Turn, Wish};
use serde_json::{Value, json};

const GIB: u64 = model::unit::GIB;

/// A kind whose rows say in their spec what they want or offer.
struct Plain(Contract);

impl Plain {
    fn read(row: &Row, field: &str) -> Option<Demand> {
        let [gib, milli] = [0, 1].map(|place| row.spec[field][place].as_u64());
        Some(Demand { memory_bytes: gib? * GIB, cpu_milli: milli? })
    }
}

#[async_trait]
impl Kind for Plain {
    fn contract(&self) -> &Contract {
        &self.0
    }
    async fn admit(&self, _: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        Admitted::spec(&wish.spec)
    }
    fn demand(&self, row: &Row) -> Option<Demand> {
        Self::read(row, "wants")
    }
    fn capacity(&self, row: &Row) -> Option<Demand> {
        Self::read(row, "offers")
    }
    async fn turn(&self, _: &Turn) -> Result<Report, Error> {
        Ok(Report::ready())
    }
}

fn kind(name: &'static str, place: Place) -> Arc<dyn Kind> {
    Arc::new(Plain(Contract {
        name,
        plural: name,
        prefix: name,
        about: "",
        levels: &[Level::Cloud],
        opens: None,
        place,
        create: true,
        set: true,
        delete: true,
        spec: || schemars::json_schema!({}),
        status: || schemars::json_schema!({}),
        phases: &[],
        columns: &[],
        streams: &[],
        example: || json!({}),
    }))
}

fn registry() -> Registry {
    Registry::new(vec![kind("host", Place::EveryNode), kind("job", Place::AssignedNode), kind("plan", Place::Control)])
}

fn row(kind: &str, bits: u128, spec: Value) -> Row {
    serde_json::from_value(json!({
        "id": Id::from_bits(kind, bits), "kind": kind, "name": format!("{kind}{bits}"), "scope": Scope::CLOUD,
        "version": 1, "generation": 1, "spec": spec, "observed_generation": 0, "phase": "pending",
        "created_ms": 0, "updated_ms": 0, "correlation": Id::from_bits("req", 1), "last_event": Id::from_bits("ev", 1),
    }))
    .unwrap()
}

fn host(bits: u128, gib: u64, milli: u64) -> Row {
    row("host", bits, json!({"offers": [gib, milli]}))
}

fn job(bits: u128, gib: u64, milli: u64) -> Row {
    row("job", bits, json!({"wants": [gib, milli]}))
}

fn on(mut row: Row, host: u128) -> Row {
    row.node = Some(Id::from_bits("host", host));
    row
}

fn going(mut row: Row) -> Row {
    row.deleting_since_ms = Some(1);
    row
}

/// Each decision in one word: the host's number, `-` for removal, or the reason's code.
fn decide(rows: Vec<Row>) -> Vec<(String, String)> {
    let word = |decision: &Decision| match decision {
        Decision::Assign(node) => format!("host{}", node.as_str().trim_start_matches("host_").trim_start_matches('0')),
        Decision::Refuse(reason) => reason.code.clone(),
        Decision::Remove => "-".to_owned(),
    };
    place(&Table::from_rows(rows), &registry())
        .iter()
        .map(|(row, decision)| (row.name.clone(), word(decision)))
        .collect()
}

#[test]
fn the_table() {
    type Case = (&'static str, Vec<Row>, Vec<(&'static str, &'static str)>);
    let table: Vec<Case> = vec![
        ("nothing to do", vec![host(1, 4, 1000)], vec![]),
        (
            "equal nodes: the least id",
            vec![host(2, 4, 1000), host(1, 4, 1000), job(1, 1, 100)],
            vec![("job1", "host1")],
        ),
        (
            "spread, each decision counting on those before it",
            vec![host(1, 4, 1000), host(2, 4, 1000), job(1, 1, 100), job(2, 1, 100), job(3, 1, 100)],
            vec![("job1", "host1"), ("job2", "host2"), ("job3", "host1")],
        ),
        (
            "memory is hard, also within one pass",
            vec![host(1, 2, 1000), job(1, 2, 100), job(2, 1, 100)],
            vec![("job1", "host1"), ("job2", "no_capacity_memory")],
        ),
        (
            "memory of what runs and of what is going counts",
            vec![host(1, 4, 1000), on(job(1, 2, 0), 1), going(on(job(2, 1, 0), 1)), job(3, 2, 0), job(4, 1, 0)],
            vec![("job3", "no_capacity_memory"), ("job4", "host1")],
        ),
        (
            "cpu four times over before the fuller node is taken",
            vec![host(1, 8, 1000), host(2, 8, 1000), on(job(1, 1, 4000), 1), on(job(2, 2, 100), 2), job(3, 1, 500)],
            vec![("job3", "host2")],
        ),
        (
            "cpu is soft: beyond it still placed",
            vec![host(1, 8, 1000), on(job(1, 1, 9000), 1), job(2, 1, 500)],
            vec![("job2", "host1")],
        ),
        ("no node", vec![job(1, 1, 100)], vec![("job1", "no_nodes_active")]),
        (
            "a node that is going takes none",
            vec![going(host(1, 4, 1000)), job(1, 1, 1)],
            vec![("job1", "no_nodes_active")],
        ),
        ("never assigned and going", vec![host(1, 4, 1000), going(job(1, 1, 1))], vec![("job1", "-")]),
        ("going on a node that is there", vec![host(1, 4, 1000), going(on(job(1, 1, 1), 1))], vec![]),
        ("going on a node that is gone", vec![going(on(job(1, 1, 1), 1))], vec![("job1", "-")]),
        ("kinds of the control plane are removed by their own turns", vec![going(row("plan", 1, json!({})))], vec![]),
        ("without a demand nothing is placed", vec![host(1, 4, 1000), row("job", 1, json!({}))], vec![]),
    ];
    for (what, rows, expected) in table {
        let found = decide(rows.clone());
        let expected: Vec<_> = expected.into_iter().map(|(row, word)| (row.to_owned(), word.to_owned())).collect();
        assert_eq!(found, expected, "{what}");
        assert_eq!(decide(rows.into_iter().rev().collect()), expected, "{what}, given in another order");
    }
}

#[test]
fn a_reason_has_the_numbers_and_is_said_once() {
    let rows = vec![host(1, 1, 1000), host(2, 3, 1000), on(job(1, 2, 0), 2), job(2, 2, 0)];
    let decisions = place(&Table::from_rows(rows.clone()), &registry());
    let [(waiting, Decision::Refuse(reason))] = &decisions[..] else { panic!("{decisions:?}") };
    assert_eq!(reason.message, "it needs 2.0 GiB; the best node, host1, has 1.0 GiB free");
    assert!(!reason.remedy.is_empty() && !reason.transient);
    let mut told = (**waiting).clone();
    told.reason = Some(Reason { since_ms: 7, ..reason.clone() });
    told.observed_generation = told.generation;
    let rows = rows.into_iter().filter(|row| row.id != told.id).chain([told.clone()]).collect::<Vec<_>>();
    assert_eq!(place(&Table::from_rows(rows.clone()), &registry()), vec![]);
    told.generation += 1;
    let rows = rows.into_iter().filter(|row| row.id != told.id).chain([told.clone()]).collect::<Vec<_>>();
    assert_eq!(place(&Table::from_rows(rows), &registry()).len(), 1, "a new wish is told anew");
}

#[test]
fn a_hundred_rows_on_twenty_nodes_never_exceed_memory() {
    let rows = (1..=20).map(|bits| host(bits, 1 + bits as u64 % 5, 2000));
    let rows = rows.chain((1..=100).map(|bits| job(bits, 1 + bits as u64 % 2, 250)));
    let table = Table::from_rows(rows);
    let decisions = place(&table, &registry());
    assert_eq!(decisions.len(), 100);
    let mut used: BTreeMap<Id, u64> = BTreeMap::new();
    for (row, decision) in &decisions {
        if let Decision::Assign(node) = decision {
            *used.entry(node.clone()).or_default() += row.spec["wants"][0].as_u64().unwrap();
        }
    }
    for (node, gib) in used {
        assert!(gib <= table.get(&node).unwrap().spec["offers"][0].as_u64().unwrap(), "{node}");
    }
    assert_eq!(decisions, place(&table, &registry()));
}
