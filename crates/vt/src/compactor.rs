//! Gives up history as it grows old, so that its space is used again. Where several members could, the leader alone does;
//! the others keep count, so that a new leader can go on.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use store::{Error, Revision, Store};

/// A period of time is looked at so many times, so history stays for at most a tenth longer than asked.
const LOOKS: u32 = 10;
/// However long the period.
const LOOK_PAUSE_MAX: Duration = Duration::from_hours(1);
/// However short.
const LOOK_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Between two looks when revisions are counted, as etcd has it.
const REVISIONS_PAUSE: Duration = Duration::from_mins(5);

/// How much history stays without anybody asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    All,
    For(Duration),
    Revisions(u64),
}

/// A length of time as Go writes it: `1h30m`, `90s`, `500ms`. Nothing, and no time at all, keep everything.
impl FromStr for Retention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match duration(text) {
            _ if text.is_empty() || text == "0" => Ok(Retention::All),
            Some(Duration::ZERO) => Ok(Retention::All),
            Some(time) => Ok(Retention::For(time)),
            None => Err("write a time such as 1h, 30m or 1h30m; 0 keeps all".to_owned()),
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let part = match &rest[..unit] {
            "h" => Duration::from_secs(count.checked_mul(3600)?),
            "m" => Duration::from_secs(count.checked_mul(60)?),
            "s" => Duration::from_secs(count),
            "ms" => Duration::from_millis(count),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

/// Runs until it is dropped. `leads` says whether it is this process's turn.
pub async fn run(retention: Retention, store: Arc<dyn Store>, leads: impl AsyncFn() -> Result<bool, Error>) {
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
        if let Err(error) = look(&mut past, kept, &*store, &leads).await {
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

async fn look(
    past: &mut Past,
    kept: Kept,
    store: &dyn Store,
    leads: &impl AsyncFn() -> Result<bool, Error>,
) -> Result<(), Error> {
    let status = store.status().await?;
    let due = past.due(kept, status.revision).filter(|at| *at > status.compacted);
    let Some(at) = due else { return Ok(()) };
    if !leads().await? {
        return Ok(());
    }
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
    fn a_time_is_read_as_go_writes_it() {
        assert_eq!("1h30m".parse(), Ok(Retention::For(Duration::from_mins(90))));
        assert_eq!("90s500ms".parse(), Ok(Retention::For(Duration::from_millis(90_500))));
        for all in ["", "0", "0h"] {
            assert_eq!(all.parse(), Ok(Retention::All));
        }
        for wrong in ["h", "1", "1x", "1h 30m", "-1h"] {
            assert!(wrong.parse::<Retention>().is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn history_goes_where_it_is_this_ones_turn() {
        let store = store::memory::Memory::new();
        for at in 0..10 {
            store.txn(store::Txn::of([store::Op::put("a", format!("{at}"))])).await.unwrap();
        }
        let mut past = Past::default();
        look(&mut past, Kept::Revisions(4), &store, &async || Ok(false)).await.unwrap();
        assert_eq!(store.status().await.unwrap().compacted, Revision::ZERO);
        look(&mut past, Kept::Revisions(4), &store, &async || Ok(true)).await.unwrap();
        assert_eq!(store.status().await.unwrap().compacted, Revision(7));
    }

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
