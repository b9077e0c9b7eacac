//! A look at the host every now and then, for what every call wants to know and none should have to ask for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::host::Host;

const PERIOD: Duration = Duration::from_secs(1);

/// Looks without a leader after which streams are given up that must have one. Reconnecting costs a client more than
/// waiting for an election does.
const LEADERLESS_LOOKS: u32 = 3;

/// Looks for as long as somebody listens.
pub async fn watch_leader(host: Arc<dyn Host>, leaderless: watch::Sender<bool>) {
    let mut without = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = leaderless.closed() => return,
        }
        let leader = host.status().await.is_ok_and(|status| status.leader.is_some());
        without = if leader { 0 } else { without + 1 };
        let _ = leaderless.send_if_modified(|was| std::mem::replace(was, without >= LEADERLESS_LOOKS) != *was);
    }
}
