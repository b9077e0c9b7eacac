//! Gives up history by itself. On the leader alone; the others only keep count, so that a new leader can go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chainfire::door::Host;
use store::{Error, Revision, Store};

use super::settings::Retention;

/// A period of time is looked at so many times, so history stays for at most a tenth longer than asked.
const LOOKS: u32 = 10;
/// However long the period.
const LOOK_PAUSE_MAX: Duration = Duration::from_hours(1);
/// However short.
const LOOK_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Between two looks when revisions are counted, as etcd has it.
const REVISIONS_PAUSE: Duration = Duration::from_mins(5);

pub async fn run(retention: Retention, store: Arc<dyn Store>, host: Arc<dyn Host>) {
    let mut past = Past::default();
    loop {
        let (pause, kept) = match retention {
            Retention::All => return,
            Retention::Revisions(count) => (REVISIONS_PAUSE, Kept::Revisions(count)),
            Retention::For(time) => {
                let pause = (time.min(LOOK_PAUSE_MAX) / LOOKS).max(LOOK_PAUSE_MIN);
                (pause, Kept::Looks((time.as_millis().div_ceil(pause.as_millis())) as usize))
            }
        };
        tokio::time::sleep(pause).await;
        if let Err(error) = look(&mut past, kept, &*store, &*host).await {
            tracing::warn!(%error, "history could not be given up this time");
        }
    }
}

#[derive(Clone, Copy)]
enum Kept {
    Revisions(u64),
    Looks(usize),
}

/// The revisions of the looks so far, oldest first.
#[derive(Default)]
struct Past(VecDeque<Revision>);

impl Past {
    /// Where to compact now, if anywhere.
    fn due(&mut self, kept: Kept, newest: Revision) -> Option<Revision> {
        match kept {
            Kept::Revisions(count) => newest.0.checked_sub(count).filter(|at| *at > 0).map(Revision),
            Kept::Looks(count) => {
                self.0.push_back(newest);
                (self.0.len() > count).then(|| self.0.pop_front()).flatten()
            }
        }
    }
}

async fn look(past: &mut Past, kept: Kept, store: &dyn Store, host: &dyn Host) -> Result<(), Error> {
    let status = store.status().await?;
    let due = past.due(kept, status.revision).filter(|at| *at > status.compacted);
    let leads = host.status().await?.leader == Some(host.header().member_id);
    let Some(at) = due.filter(|_| leads) else { return Ok(()) };
    match store.compact(at).await {
        Ok(()) => tracing::info!(revision = at.0, "history was given up"),
        // Somebody else was faster.
        Err(Error::Compacted { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_enough_is_due_and_nothing_else() {
        let mut past = Past::default();
        let due = |past: &mut Past, newest| past.due(Kept::Looks(2), Revision(newest)).map(|at| at.0);
        assert_eq!(
            [due(&mut past, 10), due(&mut past, 20), due(&mut past, 30), due(&mut past, 30)],
            [None, None, Some(10), Some(20)]
        );
        let due = |newest| Past::default().due(Kept::Revisions(100), Revision(newest)).map(|at| at.0);
        assert_eq!([due(50), due(100), due(101)], [None, None, Some(1)]);
    }
}
