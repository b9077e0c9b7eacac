//! A node's network, from rows.

use std::collections::BTreeMap;

use model::{Code, Error, Id};
use reconcile::kind::read;
use reconcile::{Table, Turn};

use crate::engines::Engines;
use crate::vm::{Address, Spec};

/// How often a wish for the network is made again after a newer one was faster.
const RACES_MAX: usize = 8;

/// The networks and ports that `node` has to hold: of every machine that is to run there, and of those that are to go
/// while they still exist.
pub fn desired(table: &Table, node: &Id, existing: &[String]) -> novanet::Desired {
    let mut networks: BTreeMap<u16, Vec<novanet::Port>> = BTreeMap::new();
    for row in table.of_kind("vm").filter(|row| row.node.as_ref() == Some(node)) {
        let gone = row.deleting() && !existing.iter().any(|id| id == row.id.as_str());
        let Ok(spec) = read::<Spec>("spec", &row.spec) else { continue };
        if !gone {
            let Address { number, offset } = spec.network;
            networks.entry(number).or_default().push(novanet::Port::new(row.id.to_string(), offset));
        }
    }
    let networks = networks.into_iter().map(|(number, ports)| novanet::Network { number, ports }).collect();
    novanet::Desired { generation: table.revision, networks }
}

pub fn fault(error: novanet::Error) -> Error {
    Error::new(Code::Failed, error.to_string()).hint(error.hint()).reason(error.code())
}

/// Brings this node's network up to the rows. Safe to repeat: what drifted is put back.
pub async fn apply(engines: &Engines, turn: &Turn) -> Result<(), Error> {
    let node = turn.node.as_ref().ok_or_else(|| Error::internal("machines are realised on nodes"))?;
    for _ in 0..RACES_MAX {
        // The newest rows, not the turn's: the wish is complete, and an old one would take a neighbour's port away.
        let table = turn.rows.table();
        let desired = desired(&table, node, &engines.machines.list());
        match engines.network.apply(desired).await {
            Ok(_) => return Ok(()),
            // Another machine's turn applied newer rows meanwhile.
            Err(error) if error.code() == "generation_stale" => tokio::task::yield_now().await,
            Err(error) => return Err(fault(error)),
        }
    }
    Err(Error::new(Code::Unavailable, "the network changes too fast").reason("generation_stale"))
}
