//! An org: who owns everything below it.

mod contract;

pub use contract::{Spec, contract};

use async_trait::async_trait;
use model::{Error, Row};
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Kind, Report, Turn, Wish};

use crate::scopes::{self, Scoped};

#[derive(Debug)]
pub struct Org;

#[async_trait]
impl Kind for Org {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, _cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let spec: Spec = read("spec", &wish.spec)?;
        Admitted::spec(&spec)
    }

    fn admit_delete(&self, row: &Row, below: &reconcile::Table) -> Result<(), Error> {
        scopes::require_empty(row, below)
    }
    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        reconcile::turn::drive(&Scoped, turn).await
    }
}
