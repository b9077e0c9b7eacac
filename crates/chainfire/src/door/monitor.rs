//! A look at the host every now and then, for what every call wants to know and none should have to ask for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::host::Host;
use crate::member::types::MemberId;

const PERIOD: Duration = Duration::from_secs(1);

/// Looks without a leader after which streams are given up that must have one. Reconnecting costs a client more than
/// waiting for an election does.
const LEADERLESS_LOOKS: u32 = 3;

/// What was seen at the last look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    pub leader: Option<MemberId>,
    /// There has been no leader for a while.
    pub leaderless: bool,
    pub learner: bool,
    pub db_bytes: u64,
    /// Times that another member was seen as the leader.
    pub leader_changes: u64,
}

/// Looks for as long as somebody listens.
pub async fn look(host: Arc<dyn Host>, seen: watch::Sender<Seen>) {
    let mut without = 0;
    loop {
        let status = host.status().await.ok();
        let leader = status.as_ref().and_then(|status| status.leader);
        without = if leader.is_some() { 0 } else { without + 1 };
        seen.send_if_modified(|seen| {
            let mut new = Seen { leader, leaderless: without >= LEADERLESS_LOOKS, ..*seen };
            if let Some(status) = status {
                new.learner = status.learner;
                new.db_bytes = status.db_bytes;
            }
            if leader.is_some() && leader != seen.leader {
                new.leader_changes += 1;
            }
            std::mem::replace(seen, new) != new
        });
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = seen.closed() => return,
        }
    }
}
