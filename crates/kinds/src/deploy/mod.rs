//! A deploy: the rollout of one release into one env, and from then on the keeper of its instances.
//!
//! ```text
//! pending -> rolling -> live ----------------> superseded      a newer deploy went live
//!               |  \--> superseded                             a newer deploy came before this one was done
//!               \----> failed                                  the last live deploy keeps, or gets back, the env
//! ```
//!
//! The newest deploy that is neither failed nor superseded is the env's keeper: its plan alone makes and removes
//! instances. So the return to the last good release needs no machinery of its own: when a deploy fails, the live
//! one before it is the keeper again and its ordinary plan restores what it wants.

mod contract;
mod plan;
#[cfg(test)]
mod tests;

pub use contract::{Instance, Spec, Status, contract};
pub use plan::{REPLACEMENTS_MAX, ROLLOUT_MS_MAX};

use async_trait::async_trait;
use model::{Code, Error, Level, Row};
use reconcile::command::Verb;
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Kind, Machine, Plan, Report, Table, Turn, Wish};

use crate::settings::Settings;
use plan::Step;

#[derive(Debug)]
pub struct Deploy {
    pub settings: Settings,
}

#[async_trait]
impl Kind for Deploy {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let spec: Spec = read("spec", &wish.spec)?;
        let release = cx.door.get(&spec.release).await?;
        let app = wish.scope.at(Level::App);
        let release = release.filter(|row| row.kind == "release" && Some(&row.scope) == app.as_ref());
        let release = release.ok_or_else(|| {
            Error { field: Some("spec.release".into()), ..Error::not_found(format!("release {}", spec.release)) }
                .hint("`vt releases` lists the releases of this app")
        })?;
        crate::secret::require(cx, wish.scope, &release).await?;
        let taken = cx.door.claims(&format!("retired/deploy/{}/", wish.scope)).await?;
        let number = taken.iter().filter_map(|(claim, _)| claim.rsplit('/').next()?.parse::<u64>().ok()).max();
        let number = number.unwrap_or(0) + 1;
        Ok(Admitted {
            claims: vec![format!("retired/deploy/{}/{number:08}", wish.scope)],
            name: Some(format!("d{number}")),
            ..Admitted::spec(&spec)?
        })
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        reconcile::turn::drive(self, turn).await
    }
}

#[async_trait]
impl Machine for Deploy {
    type Seen = ();
    type Step = Step;

    async fn observe(&self, _turn: &Turn) -> Result<(), Error> {
        Ok(())
    }

    fn plan(&self, row: &Row, table: &Table, (): &(), now_ms: u64) -> Plan<Step> {
        plan::plan(row, table, now_ms, &self.settings)
    }

    async fn act(&self, turn: &Turn, step: Step) -> Result<(), Error> {
        let done = match step {
            Step::Create { name, spec } => {
                let scope = turn.row.scope.clone();
                let spec = serde_json::to_value(spec).map_err(|error| Error::internal(error.to_string()))?;
                let owner = Some(turn.row.id.clone());
                turn.submit(Verb::Create { kind: "vm".into(), scope, name, spec, owner }).await
            }
            Step::Route { name, spec } => {
                let scope = turn.row.scope.clone();
                let spec = serde_json::to_value(spec).map_err(|error| Error::internal(error.to_string()))?;
                turn.submit(Verb::Create { kind: "route".into(), scope, name, spec, owner: None }).await
            }
            Step::Delete { id, .. } => turn.submit(Verb::Delete { id, if_version: None }).await,
        };
        match done {
            // Someone else removed it first: that is what was wanted.
            Err(error) if error.code == Code::NotFound && turn.door.get(&turn.row.id).await?.is_some() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}
