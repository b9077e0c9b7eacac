//! The node's part: it makes this machine known, and takes the turns of the rows that are assigned to it.
//!
//! ```text
//! Agent::open    the machine's own row is there, with what it offers, and assigned to itself
//! Agent::run     THE loop (reconcile::Loop) over
//!                  rows of kinds that an assigned node realises, where that node is this one
//!                  rows of kinds that every node realises
//!                nudged by engines: "look at this row, something happened"
//! ```
//!
//! Control plane and agent share one process and talk through the store; see `docs/decisions/0003-agent-in-process.md`.
//! Nothing here names a kind but the one word it is given for the machine's own row.

mod register;

use std::sync::Arc;

use model::{Error, Id, Row};
use reconcile::kind::Place;
use reconcile::rows::Changed;
use reconcile::{Door, Kind, Loop, Rows};
use tokio::sync::{broadcast, mpsc};

pub use register::Offer;

/// The agent of one node.
pub struct Agent {
    node: Id,
    turns: Loop,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Agent {
    /// Makes this machine known.
    ///
    /// Errors: those of the door.
    pub async fn open(door: Door, rows: Rows, offer: Offer) -> Result<Agent, Error> {
        let node = register::register(&door, &offer).await?;
        let own = node.clone();
        let charge = Arc::new(move |kind: &dyn Kind, row: &Row| match kind.contract().place {
            Place::AssignedNode => row.node.as_ref() == Some(&own),
            Place::EveryNode => true,
            Place::Control => false,
        });
        let actor = format!("agent/{}", offer.name);
        let turns = Loop::new(door, rows, &actor, Some(node.clone()), charge);
        Ok(Agent { node, turns })
    }

    /// The id of this machine's row.
    pub fn node(&self) -> &Id {
        &self.node
    }

    /// Runs until the future is dropped. Ids that arrive on `nudges` get a turn soon.
    pub async fn run(self, changes: broadcast::Receiver<Changed>, mut nudges: mpsc::Receiver<Id>) {
        let turns = self.turns.clone();
        let nudged = async move {
            while let Some(id) = nudges.recv().await {
                turns.wake(&id);
            }
            // Engines that have nothing more to say do not end the loop.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.turns.run(changes) => {}
            () = nudged => {}
        }
    }
}
