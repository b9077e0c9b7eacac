//! The scheduler: a row with a demand and no node is assigned to one; where none can take it, the row says why.
//!
//! One task, woken by changes of rows and by a timer. Each decision is submitted and seen again in the table before
//! the next is made, so that two decisions never count on the same memory.

mod place;

use std::time::Duration;

use model::{Code, Error};
use reconcile::rows::{Changed, STORE_UNAVAILABLE};
use reconcile::{Door, Origin, Rows, Verb};
use tokio::sync::broadcast;

pub use place::{Decision, place};

/// The name of the scheduler in the log of who acted.
const ACTOR: &str = "scheduler";
/// Everything is looked at this often, whatever was or was not noticed.
const PASS_SECONDS: u64 = 30;
/// The pause after a fault.
const PAUSE_MS: u64 = 500;

/// Runs until the view of rows ends.
pub async fn run(door: Door, rows: Rows, mut changes: broadcast::Receiver<Changed>) {
    let mut outage = rows.outage().follow();
    loop {
        // An error means that the rows are followed no longer; then nothing changes and nothing is to be placed.
        let _ = outage.wait_for(Option::is_none).await;
        let wait = match pass(&door, &rows).await {
            Ok(()) => Duration::from_secs(PASS_SECONDS),
            Err(error) if error.reason.as_deref() == Some(STORE_UNAVAILABLE) => {
                rows.outage().suspect();
                Duration::from_millis(PAUSE_MS)
            }
            Err(error) => {
                tracing::warn!(%error, why = error.why, "the scheduler could not write a decision");
                Duration::from_millis(PAUSE_MS)
            }
        };
        let noticed = async {
            loop {
                match changes.recv().await {
                    Ok(change) if !matters(&door, &change) => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return true,
                    Err(broadcast::error::RecvError::Closed) => return false,
                }
            }
        };
        if tokio::time::timeout(wait, noticed).await == Ok(false) {
            return;
        }
    }
}

/// Whether a change can lead to another decision: it is about a row that is placed, or about one that takes rows.
fn matters(door: &Door, change: &Changed) -> bool {
    let rows = change.before.iter().chain(&change.after);
    rows.into_iter().any(|row| {
        let Some(kind) = door.registry().get(&row.kind) else { return false };
        kind.demand(row).is_some() || kind.capacity(row).is_some() || row.node.is_none() && row.deleting()
    })
}

async fn pass(door: &Door, rows: &Rows) -> Result<(), Error> {
    for (row, decision) in place(&rows.table(), door.registry()) {
        let verb = match decision {
            Decision::Assign(node) => Verb::Assign { id: row.id.clone(), node },
            Decision::Refuse(reason) => Verb::Observe {
                id: row.id.clone(),
                generation: row.generation,
                phase: row.phase.clone(),
                reason: Some(reason),
                status: row.status.clone(),
            },
            Decision::Remove => Verb::Remove { id: row.id.clone() },
        };
        match door.one(Origin::following(&row, ACTOR), verb).await {
            Ok(receipt) => rows.reach(receipt.sequence).await,
            // It went away meanwhile.
            Err(error) if error.code == Code::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
