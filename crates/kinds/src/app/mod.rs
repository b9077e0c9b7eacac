//! An app: what is released.

mod contract;

pub use contract::{Spec, contract};

use async_trait::async_trait;
use model::Error;
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Kind, Report, Turn, Wish};

use crate::scopes::Scoped;

#[derive(Debug)]
pub struct App;

#[async_trait]
impl Kind for App {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, _cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let spec: Spec = read("spec", &wish.spec)?;
        Admitted::spec(&spec)
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        reconcile::turn::drive(&Scoped, turn).await
    }
}
