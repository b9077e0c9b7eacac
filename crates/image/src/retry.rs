//! Trying again what may work the next time.

use std::future::Future;
use std::time::Duration;

use crate::error::Result;

const ATTEMPTS_MAX: u32 = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Runs `act` until it works, fails for good, or has failed [`ATTEMPTS_MAX`] times. Waits double in between.
pub async fn transient<T, F: Future<Output = Result<T>>>(mut act: impl FnMut() -> F) -> Result<T> {
    let mut backoff = BACKOFF_FIRST;
    for _ in 1..ATTEMPTS_MAX {
        match act().await {
            Err(error) if error.transient() => {
                tracing::debug!(%error, wait_ms = backoff.as_millis() as u64, "trying again");
            }
            done => return done,
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
    act().await
}
