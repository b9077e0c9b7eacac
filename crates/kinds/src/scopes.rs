//! What org, project, app and env share: they open a scope, and go once nothing is left inside.

use async_trait::async_trait;
use model::{Code, Error, Id, Row};
use reconcile::command::Verb;
use reconcile::{Machine, Next, Plan, Report, Table, Turn};

/// The machinery of a row that opens a scope.
#[derive(Debug)]
pub struct Scoped;

#[derive(Debug, PartialEq)]
pub enum Step {
    /// Asks a row inside to go.
    Delete(Id),
}

#[async_trait]
impl Machine for Scoped {
    type Seen = ();
    type Step = Step;

    async fn observe(&self, _turn: &Turn) -> Result<(), Error> {
        Ok(())
    }

    fn plan(&self, row: &Row, table: &Table, (): &(), _now_ms: u64) -> Plan<Step> {
        if !row.deleting() {
            return Plan { steps: Vec::new(), report: Report::ready() };
        }
        let inner = row.inner_scope();
        let inside: Vec<_> = table.iter().filter(|other| other.scope == inner).collect();
        let steps =
            inside.iter().filter(|other| !other.deleting()).map(|other| Step::Delete(other.id.clone())).collect();
        let next = if inside.is_empty() { Next::Done } else { Next::Wait };
        let reason = model::Reason::waiting("removing", format!("{} left inside", inside.len()));
        let report = Report { phase: "removing".into(), reason: Some(reason), status: serde_json::Value::Null, next };
        Plan { steps, report }
    }

    async fn act(&self, turn: &Turn, Step::Delete(id): Step) -> Result<(), Error> {
        match turn.submit(Verb::Delete { id, if_version: None }).await {
            Err(error) if error.code != Code::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Refuses to remove a scope that still holds something, for levels where one slip would cost too much.
pub fn require_empty(row: &Row, below: &Table) -> Result<(), Error> {
    let inside = below.iter().filter(|other| other.scope == row.inner_scope()).count();
    if inside == 0 {
        return Ok(());
    }
    let message = format!("{} {} still holds {inside} row(s)", row.kind, row.name);
    Err(Error::new(Code::Conflict, message).hint("remove what is inside first; `list` shows it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cloud, row};

    #[test]
    fn a_scope_goes_after_what_is_inside() {
        let mut app = row(&cloud(), "app", 1);
        let env = row(&app.inner_scope(), "env", 2);
        let table = Table::from_rows([app.clone(), env.clone()]);
        assert_eq!(Scoped.plan(&app, &table, &(), 0).report, Report::ready());
        app.deleting_since_ms = Some(1);
        let plan = Scoped.plan(&app, &table, &(), 0);
        assert_eq!((plan.steps, plan.report.next), (vec![Step::Delete(env.id)], Next::Wait));
        let alone = Scoped.plan(&app, &Table::from_rows([app.clone()]), &(), 0);
        assert_eq!((alone.steps.len(), alone.report.next), (0, Next::Done));
    }
}
