//! An env: where one release of an app runs at a time, with how many instances.

mod contract;

pub use contract::{REPLICAS_MAX, Spec, contract};

use async_trait::async_trait;
use model::Error;
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Kind, Report, Turn, Wish};

use crate::scopes::Scoped;

#[derive(Debug)]
pub struct Env;

#[async_trait]
impl Kind for Env {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, _cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let spec: Spec = read("spec", &wish.spec)?;
        for (process, count) in &spec.scale {
            let field = format!("spec.scale.{process}");
            model::name::check(&field, process)?;
            if *count > REPLICAS_MAX {
                let message = format!("`{field}`: {count} is more than {REPLICAS_MAX} instances");
                return Err(Error::invalid(field, message));
            }
        }
        Admitted::spec(&spec)
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        reconcile::turn::drive(&Scoped, turn).await
    }
}
