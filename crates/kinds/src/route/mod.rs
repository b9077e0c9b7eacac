//! A route: traffic from the ingress to the ready instances of a process.

mod contract;
mod table;

pub use contract::{Mode, Spec, Status, contract};
pub use table::{desired, url};

use async_trait::async_trait;
use model::{Code, Error, Reason, Row};
use parking_lot::Mutex;
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Kind, Machine, Next, Plan, Report, Table, Turn, Wish};

use crate::settings::Settings;

/// How often a route with instances that still finish their requests looks again.
const DRAIN_LOOK_MS: u64 = 200;

pub struct Route {
    pub settings: Settings,
    /// Absent in a process that only describes the kinds.
    pub ingress: Option<fiberlb::Handle>,
    /// What was applied last by this process; the ingress itself keeps the last good one across restarts.
    pub applied: Mutex<Option<fiberlb::Desired>>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl Kind for Route {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, _cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let spec: Spec = read("spec", &wish.spec)?;
        let claim = table::check(&spec)?;
        if let Some(before) = wish.before {
            let before: Spec = read("spec", &before.spec)?;
            if (before.mode, &before.host, before.listen_port) != (spec.mode, &spec.host, spec.listen_port) {
                let message = "a route keeps its mode, host and listen_port; only process and port may change";
                return Err(Error::invalid("spec", message).hint("delete it and create another"));
            }
            return Admitted::spec(&spec);
        }
        Ok(Admitted { claims: vec![claim], ..Admitted::spec(&spec)? })
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        reconcile::turn::drive(self, turn).await
    }
}

/// What the ingress does now.
#[derive(Debug)]
pub struct Seen {
    pub applied: Option<fiberlb::Desired>,
    /// Backends of this route that the ingress knows, the draining ones too.
    pub backends: Vec<String>,
    /// Those of them that only finish what they have.
    pub draining: Vec<String>,
    pub problem: Option<String>,
}

#[derive(Debug)]
pub enum Step {
    Apply(fiberlb::Desired),
    /// Ends what a backend still had in flight: its machine is gone, and nothing will be answered.
    Cut {
        backend: String,
    },
}

#[async_trait]
impl Machine for Route {
    type Seen = Seen;
    type Step = Step;

    async fn observe(&self, turn: &Turn) -> Result<Seen, Error> {
        let ingress = self.ingress.as_ref().ok_or_else(|| Error::internal("this node has no ingress"))?;
        Ok(table::seen(ingress, self.applied.lock().clone(), &turn.row.id))
    }

    fn plan(&self, row: &Row, table: &Table, seen: &Seen, _now_ms: u64) -> Plan<Step> {
        let desired = desired(table, &self.settings);
        let same = seen.applied.as_ref().is_some_and(|applied| applied.routes == desired.routes);
        let spec: Option<Spec> = read("spec", &row.spec).ok();
        let mut backends: Vec<model::Id> = seen.backends.iter().filter_map(|id| id.parse().ok()).collect();
        backends.sort();
        let reason = if let Some(problem) = &seen.problem {
            Some(Reason::fault("listen_failed", problem.clone(), "choose another listen_port"))
        } else if desired.routes.iter().any(|route| route.id == row.id.as_str() && !route.asleep.is_empty()) {
            // Who asks wakes it.
            None
        } else if backends.is_empty() && !row.deleting() {
            let process = spec.as_ref().map_or("", |spec| &spec.process);
            Some(Reason::waiting("no_backends", format!("no instance of `{process}` is ready")))
        } else {
            None
        };
        let url = spec.as_ref().map_or_else(String::new, |spec| url(spec, &self.settings));
        let status = serde_json::to_value(Status { url, backends }).unwrap_or_default();
        let dead = |id: &&String| {
            let machine = id.parse().ok().and_then(|id| table.get(&id));
            machine.is_none_or(|machine| matches!(machine.phase.as_str(), "starting" | "failed"))
        };
        let mut steps: Vec<Step> =
            seen.draining.iter().filter(dead).map(|id| Step::Cut { backend: id.clone() }).collect();
        if !same {
            steps.insert(0, Step::Apply(desired));
        }
        // The ingress knows only routes that stay, so one that is to go is done once the table without it is applied.
        let next = match (row.deleting(), !seen.draining.is_empty()) {
            (true, _) => Next::Done,
            (false, true) => Next::After(DRAIN_LOOK_MS),
            (false, false) => Next::Wait,
        };
        // While steps are left, the row says what was true before them.
        let (phase, reason, status) = if steps.is_empty() {
            ("ready".to_owned(), reason, status)
        } else {
            (row.phase.clone(), row.reason.clone(), row.status.clone())
        };
        Plan { steps, report: Report { phase, reason, status, next } }
    }

    async fn act(&self, turn: &Turn, step: Step) -> Result<(), Error> {
        let ingress = self.ingress.as_ref().ok_or_else(|| Error::internal("this node has no ingress"))?;
        let desired = match step {
            Step::Apply(desired) => desired,
            Step::Cut { backend } => {
                ingress.cut(turn.row.id.as_str(), &backend);
                return Ok(());
            }
        };
        let applied = ingress
            .apply(desired.clone())
            .await
            .map_err(|error| Error::new(Code::Failed, error.to_string()).hint(error.hint()).reason(error.code()))?;
        // A table that a newer one overtook is not in force; the next look at the rows makes the newer one.
        if applied.outcome != fiberlb::Outcome::Stale {
            let mut last = self.applied.lock();
            if last.as_ref().is_none_or(|last| last.generation <= desired.generation) {
                *last = Some(desired);
            }
        }
        Ok(())
    }
}
