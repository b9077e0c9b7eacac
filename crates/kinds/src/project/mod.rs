//! A project: the boundary of security and quota. It owns one network number, never given out again.

mod contract;

pub use contract::{Spec, contract};

use async_trait::async_trait;
use model::{Code, Error, Row};
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Contract, Kind, Report, Turn, Wish};

use crate::scopes::{self, Scoped};

/// Claims of network numbers. They outlive their project.
const NUMBERS: &str = "retired/network/";
/// Numbers from 0 to here.
pub const NUMBER_MAX: u16 = 4095;

#[derive(Debug)]
pub struct Project;

#[async_trait]
impl Kind for Project {
    fn contract(&self) -> &Contract {
        contract()
    }

    async fn admit(&self, cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let mut spec: Spec = read("spec", &wish.spec)?;
        if let Some(before) = wish.before {
            let before: Spec = read("spec", &before.spec)?;
            if spec.network.is_some() && spec.network != before.network {
                return Err(Error::invalid("spec.network", "a project keeps its network number").hint("leave it out"));
            }
            spec.network = before.network;
            return Admitted::spec(&spec);
        }
        if spec.network.is_some() {
            return Err(Error::invalid("spec.network", "the cloud chooses the network number").hint("leave it out"));
        }
        let taken = cx.door.claims(NUMBERS).await?;
        let newest = taken.iter().filter_map(|(claim, _)| claim.rsplit('/').next()?.parse::<u16>().ok()).max();
        let number = newest.map_or(0, |newest| newest + 1);
        if number > NUMBER_MAX {
            return Err(
                Error::new(Code::Conflict, "all 4096 network numbers have been given out").reason("ipam_exhausted")
            );
        }
        spec.network = Some(number);
        Ok(Admitted { claims: vec![format!("{NUMBERS}{number:05}")], ..Admitted::spec(&spec)? })
    }

    fn admit_delete(&self, row: &Row, below: &reconcile::Table) -> Result<(), Error> {
        scopes::require_empty(row, below)
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        reconcile::turn::drive(&Scoped, turn).await
    }
}
