//! Room on the disk. Without it nothing is put any more, on any member; what makes data smaller goes on.
//!
//! ```text
//!   disk nearly full ──▶ puts refused here at once ──▶ alarm row: puts refused everywhere
//!   room again       ──▶ alarm row removed
//!   quota exceeded   ──▶ alarm row: puts refused everywhere, until an operator takes it back
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use store::{Error, admit};

use super::proposer::Proposer;
use super::types::MemberId;
use crate::command::{Refusal, Request};
use crate::door::host::System;
use crate::log::{self, Log};
use crate::state::Reader;

/// Between two looks at the disk.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What all rows of alarms begin with; the door reads them too.
const ALARMS: &str = "alarm/";

const NO_SPACE: &str = "/NOSPACE";

/// Why the alarm was raised: it goes by itself.
const DISK: &[u8] = b"disk";

/// It stays until somebody takes it back.
const QUOTA: &[u8] = b"quota";

pub struct Room {
    reader: Reader,
    tight: AtomicBool,
}

/// As the door writes it.
fn row_of(member: MemberId) -> Bytes {
    Bytes::from(format!("{ALARMS}{member:016x}{NO_SPACE}"))
}

fn rings(system: &System) -> bool {
    let rows = system.rows.range(Bytes::from_static(ALARMS.as_bytes())..);
    let mut alarms = rows.map(|(key, _)| key).take_while(|key| key.starts_with(ALARMS.as_bytes()));
    alarms.any(|key| key.ends_with(NO_SPACE.as_bytes()))
}

impl Room {
    pub fn new(reader: Reader) -> Arc<Self> {
        Arc::new(Self { reader, tight: AtomicBool::new(false) })
    }

    pub fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    pub fn admits(&self, request: &Request) -> Result<(), Error> {
        let grows = match request {
            Request::Txn { txn, .. } => admit::may_put(txn),
            Request::Grant { .. } => true,
            Request::Revoke(_) | Request::Compact(_) | Request::System { .. } => false,
        };
        if grows && (self.is_tight() || rings(&self.reader.system())) { Err(Error::DiskFull) } else { Ok(()) }
    }

    /// Looks at the disk again and again.
    pub async fn watch(self: Arc<Self>, me: MemberId, log: Log, quota_bytes: u64, proposer: Arc<Proposer>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let status = self.reader.status();
            let full = matches!(status.problem, Some(Error::DiskFull)) || log.room() != log::Room::Enough;
            let over = status.disk_bytes.saturating_add(status.memory_bytes) > quota_bytes;
            if self.tight.swap(full, Ordering::Relaxed) != full {
                if full {
                    tracing::error!("the disk is nearly full; nothing is put until there is room");
                } else {
                    tracing::info!("there is room on the disk again");
                }
            }
            let system = self.reader.system();
            let raised = system.rows.get(&row_of(me)).map(|why| &why[..]);
            let row = match raised {
                None if full => Some(Bytes::from_static(DISK)),
                None if over => Some(Bytes::from_static(QUOTA)),
                Some(DISK) if !full => None,
                None | Some(_) => continue,
            };
            // Whatever came between is looked at the next time.
            let change = Request::System { expected: system.version, rows: vec![(row_of(me), row)] };
            match proposer.submit(change).await {
                Ok(_) | Err(Refusal::SystemMoved { .. }) => {}
                Err(Refusal::Store(error)) => tracing::debug!(%error, "the alarm could not be set"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_heard_among_other_rows() {
        let rows = |keys: &[&str]| System {
            version: 1,
            rows: keys.iter().map(|key| (Bytes::copy_from_slice(key.as_bytes()), Bytes::new())).collect(),
        };
        assert!(!rings(&rows(&["a", "alarm/00/CORRUPT", "z/NOSPACE"])));
        assert!(rings(&rows(&["a", "alarm/0000000000000001/NOSPACE"])));
        assert!(!rings(&rows(&[])));
    }
}
