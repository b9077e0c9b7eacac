//! Writers whose work can be checked afterwards, and the check.
//!
//! Every writer counts: transaction `n` of writer `w` puts `put/w/n`, sets `counter/w` to `n` by comparison, and moves
//! `ring/w`: deletes it when `n` is odd, puts it when `n` is even. So after any crash: the counter names the last
//! transaction that survived, everything up to it is there, nothing beyond it, and the ring agrees.

use std::sync::Arc;

use chainfire::Embedded;
use store::{Compare, Error, Op, Range, Revision, SortOrder, Store, Txn, WatchRequest};
use tokio::task::JoinSet;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Done {
    pub writer: u64,
    pub n: u64,
    pub revision: Revision,
}

pub async fn step(store: &dyn Store, writer: u64, n: u64) -> Result<Done, Error> {
    let counter = format!("counter/{writer}");
    let before = match n {
        0 => Compare::missing(counter.clone()),
        n => Compare::value_is(counter.clone(), (n - 1).to_string()),
    };
    let ring = format!("ring/{writer}");
    let ring = if n.is_multiple_of(2) { Op::put(ring, n.to_string()) } else { Op::delete(ring) };
    let then = [Op::put(format!("put/{writer}/{n}"), vec![n as u8; 100]), Op::put(counter, n.to_string()), ring];
    let answer = store.txn(Txn::when([before]).then(then)).await?;
    assert!(answer.succeeded, "writer {writer} is the only one to count, and {n} comes next");
    Ok(Done { writer, n, revision: answer.revision })
}

/// Where a writer has come to.
pub async fn resume(store: &dyn Store, writer: u64) -> Result<u64, Error> {
    let counter = store.range(Range::key(format!("counter/{writer}"))).await?;
    Ok(counter.first().map_or(0, |kv| number(&kv.value) + 1))
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// Lets `writers` write until one meets an error or has done `each`; answers what was acknowledged.
pub async fn write(store: &Arc<Embedded>, writers: u64, each: u64) -> Vec<Done> {
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let mut done = Vec::new();
            let Ok(next) = resume(&*store, writer).await else { return done };
            for n in next..next + each {
                match step(&*store, writer, n).await {
                    Ok(step) => done.push(step),
                    Err(_) => break,
                }
            }
            done
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// Checks the store against what was acknowledged; answers what is wrong.
pub async fn check(store: &dyn Store, writers: u64, acknowledged: &[Done]) -> Result<(), String> {
    let told = |error: Error| error.to_string();
    let status = store.status().await.map_err(told)?;
    for done in acknowledged {
        let Done { writer, n, revision } = done;
        if *revision > status.revision {
            return Err(format!("{done:?} was acknowledged and the store is at {}", status.revision));
        }
        let found = store.range(Range::key(format!("put/{writer}/{n}"))).await.map_err(told)?;
        if found.first().map(|kv| kv.mod_revision) != Some(*revision) {
            return Err(format!("{done:?} was acknowledged and is not there"));
        }
    }
    for writer in 0..writers {
        let next = resume(store, writer).await.map_err(told)?;
        let mine = store.range(Range::prefix(format!("put/{writer}/"))).await.map_err(told)?;
        if mine.count != next {
            return Err(format!("writer {writer} counted {next} and put {}", mine.count));
        }
        let ring = store.range(Range::key(format!("ring/{writer}"))).await.map_err(told)?;
        let expected = (next % 2 == 1).then(|| (next - 1).to_string());
        if ring.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()) != expected {
            return Err(format!("the ring of writer {writer} does not agree with its counter {next}"));
        }
    }
    check_history(store, writers).await
}

/// Replays every revision there is and compares the outcome with the rows.
async fn check_history(store: &dyn Store, writers: u64) -> Result<(), String> {
    let told = |error: Error| error.to_string();
    let status = store.status().await.map_err(told)?;
    let from = status.compacted.max(Revision::FIRST);
    let mut rows = std::collections::BTreeMap::new();
    for kv in store.range(Range::all().at(from)).await.map_err(told)?.items {
        rows.insert(kv.key.clone(), kv);
    }
    if status.revision > from {
        let mut watcher = store.watch(WatchRequest::prefix("").from(from.next())).await.map_err(told)?;
        for revision in (from.0 + 1)..=status.revision.0 {
            let batch = watcher.next().await.map_err(told)?.ok_or("the store closed")?;
            if batch.revision != Revision(revision) {
                return Err(format!("revision {} where {revision} should be", batch.revision));
            }
            for event in batch.events {
                match event.kind {
                    store::EventKind::Put => rows.insert(event.kv.key.clone(), event.kv),
                    store::EventKind::Delete => rows.remove(&event.kv.key),
                };
            }
        }
    }
    let now = store.range(Range::all().sort(store::SortBy::Key, SortOrder::Ascend)).await.map_err(told)?;
    if !rows.values().eq(now.items.iter()) {
        return Err(format!("the history of {writers} writers does not lead to the rows there are"));
    }
    Ok(())
}
