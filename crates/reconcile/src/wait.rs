//! Is a row as wished at my generation, and if not, why not.

use std::sync::Arc;
use std::time::Duration;

use model::{Error, Id, Row};
use tokio::sync::broadcast;

use crate::rows::{Changed, Rows};

/// The longest that one wait may last.
pub const WAIT_SECONDS_MAX: u64 = 3600;

/// How a wait ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// As wished at the generation, or beyond it.
    Settled(Arc<Row>),
    /// Something is wrong that waiting does not mend: a reason that is no step on the way, in a final phase.
    Failed(Arc<Row>),
    /// The row is gone.
    Gone,
    /// Still on the way when the time was up.
    Waiting(Arc<Row>),
}

/// Waits for a row to settle at `generation` or later, at most `limit`. `failed` tells a final failure.
pub async fn settled(
    rows: &Rows,
    mut changes: broadcast::Receiver<Changed>,
    id: &Id,
    generation: u64,
    limit: Duration,
    failed: impl Fn(&Row) -> bool,
) -> Result<Outcome, Error> {
    let deadline = tokio::time::Instant::now() + limit.min(Duration::from_secs(WAIT_SECONDS_MAX));
    loop {
        let Some(row) = rows.table().get(id).cloned() else { return Ok(Outcome::Gone) };
        if row.observed_generation >= generation && row.settled() {
            return Ok(Outcome::Settled(row));
        }
        if row.observed_generation >= generation && failed(&row) {
            return Ok(Outcome::Failed(row));
        }
        let changed = async {
            loop {
                match changes.recv().await {
                    Ok(change) => {
                        let about = change.after.as_ref().or(change.before.as_ref());
                        if about.is_some_and(|row| row.id == *id) {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        };
        if tokio::time::timeout_at(deadline, changed).await.is_err() {
            let Some(row) = rows.table().get(id).cloned() else { return Ok(Outcome::Gone) };
            return Ok(Outcome::Waiting(row));
        }
    }
}
