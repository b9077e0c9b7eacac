//! After `101 Switching Protocols`: a tunnel, in flight until both sides have ended.

use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::Client;
use super::wire::Busy;
use crate::backend::Flight;
use crate::splice::splice;

/// From the answer's head to both connections being handed over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Carries bytes between the two sides once both are there. The tunnel keeps the client's place and both counts.
pub fn tunnel(client: Arc<Client>, from_client: OnUpgrade, from_backend: OnUpgrade, flight: Flight, busy: Busy) {
    let engine = Arc::clone(&client.engine);
    engine.tasks.clone().spawn(async move {
        let handover = async { tokio::try_join!(from_client, from_backend) };
        match timeout(HANDOVER_TIMEOUT, handover).await {
            Ok(Ok((near, far))) => splice(TokioIo::new(near), TokioIo::new(far), &flight, &engine).await,
            Ok(Err(error)) => tracing::debug!(%error, "upgrade failed"),
            Err(_) => tracing::debug!("upgrade was not handed over in time"),
        }
        drop((flight, busy, client));
    });
}
