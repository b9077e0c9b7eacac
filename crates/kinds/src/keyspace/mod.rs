//! A key space: a part of the store that is a whole store to one project, spoken to with any etcd client.

mod contract;
mod spaces;

pub use contract::{Spec, contract};
pub use spaces::{Spaces, root};

use async_trait::async_trait;
use contract::{BYTES_MAX, KEYS_MAX};
use model::{Error, Reason, Row};
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Kind, Machine, Next, Plan, Report, Table, Turn, Wish};
use store::Range;

#[derive(Debug, Default)]
pub struct Keyspace {
    pub spaces: Spaces,
}

/// Whether anything is left below the root; looked at only when the row is to go.
#[derive(Debug, PartialEq)]
pub struct Seen {
    empty: bool,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    /// Takes its keys and leases away.
    Clear,
}

fn fault(error: store::Error) -> Error {
    Error::new(model::Code::Unavailable, error.to_string()).reason("store_unavailable")
}

fn within(field: &str, value: u64, max: u64) -> Result<(), Error> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("`{field}` is {value}: between 1 and {max} are allowed")))
}

#[async_trait]
impl Machine for Keyspace {
    type Seen = Seen;
    type Step = Step;

    async fn observe(&self, turn: &Turn) -> Result<Seen, Error> {
        if !turn.row.deleting() {
            return Ok(Seen { empty: false });
        }
        let left = turn.door.store().range(Range::prefix(root(&turn.row.id)).limit(1).keys_only().uncounted()).await;
        Ok(Seen { empty: left.map_err(fault)?.items.is_empty() })
    }

    fn plan(&self, row: &Row, _table: &Table, seen: &Seen, _now_ms: u64) -> Plan<Step> {
        if !row.deleting() || seen.empty {
            return Plan { steps: Vec::new(), report: Report::ready() };
        }
        let reason = Reason::waiting("removing", "its keys are being deleted");
        let report = Report { phase: "removing".into(), reason: Some(reason), next: Next::Wait, ..Report::ready() };
        Plan { steps: vec![Step::Clear], report }
    }

    async fn act(&self, turn: &Turn, Step::Clear: Step) -> Result<(), Error> {
        let spec: Spec = read("spec", &turn.row.spec)?;
        let space = self.spaces.open(turn.door.store(), &turn.row.id, spec.quota());
        space.clear().await.map_err(fault)
    }
}

#[async_trait]
impl Kind for Keyspace {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, _cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let spec: Spec = read("spec", &wish.spec)?;
        within("spec.bytes", spec.bytes, BYTES_MAX)?;
        within("spec.keys", spec.keys, KEYS_MAX)?;
        Admitted::spec(&spec)
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        let report = reconcile::turn::drive(self, turn).await?;
        let gone = turn.row.deleting() && report.next == Next::Done;
        match read::<Spec>("spec", &turn.row.spec) {
            Ok(_) if gone => self.spaces.forget(&turn.row.id),
            Ok(spec) if !turn.row.deleting() => {
                self.spaces.open(turn.door.store(), &turn.row.id, spec.quota());
            }
            Ok(_) | Err(_) => {}
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cloud, row};

    #[test]
    fn a_key_space_goes_after_its_keys() {
        let kind = Keyspace::default();
        let mut space = row(&cloud(), "keyspace", 1);
        let table = Table::from_rows([space.clone()]);
        let plan = |row: &Row, empty| kind.plan(row, &table, &Seen { empty }, 0);
        assert_eq!(plan(&space, false).report, Report::ready());
        space.deleting_since_ms = Some(1);
        assert_eq!(plan(&space, false).steps, [Step::Clear]);
        assert_eq!(plan(&space, false).report.next, Next::Wait);
        assert_eq!((plan(&space, true).steps.len(), plan(&space, true).report.next), (0, Next::Done));
    }

    #[test]
    fn no_root_begins_with_another() {
        let roots: Vec<_> = (1..300u128).map(|bits| root(&model::Id::from_bits("ks", bits))).collect();
        for (nth, one) in roots.iter().enumerate() {
            assert!(roots.iter().enumerate().all(|(other, root)| other == nth || !root.starts_with(one)));
        }
    }
}
