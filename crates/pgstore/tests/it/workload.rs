//! Writers whose work can be checked afterwards, and the check.
//!
//! Writer `w` counts: its transaction `n` puts `put/w/n`, sets `counter/w` from `n - 1` to `n` by comparison, and puts
//! `ring/w` when `n` is even and deletes it when it is odd. So the counter tells how far it came, whatever happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgstore::{Address, Postgres};
use store::{
    Batch, Compare, Error, EventKind, Key, KeyValue, Op, Range, RangeAnswer, Revision, Store, Txn, WatchRequest,
    Watcher,
};

/// Only a failing test waits for it.
pub const WAIT_MAX: Duration = Duration::from_mins(2);

/// Before a request that was refused for the moment is made again.
const AGAIN: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    pub writer: u64,
    pub n: u64,
    pub revision: Revision,
}

pub async fn open(url: &str) -> Arc<Postgres> {
    Arc::new(Postgres::open(Address::parse(url).unwrap()).await.unwrap())
}

pub async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.txn(Txn::of([Op::put(key.to_owned(), value.to_owned())])).await.unwrap().revision
}

pub async fn get(store: &dyn Store, key: &str) -> Option<String> {
    let answer = store.range(Range::key(key.to_owned())).await.unwrap();
    answer.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

pub async fn next(watcher: &mut Watcher) -> Result<Option<Batch>, Error> {
    tokio::time::timeout(WAIT_MAX, watcher.next()).await.expect("the watcher is told in time")
}

pub async fn step(store: &dyn Store, writer: u64, n: u64) -> Result<Done, Error> {
    let counter = format!("counter/{writer}");
    let before = match n {
        0 => Compare::missing(counter.clone()),
        n => Compare::value_is(counter.clone(), (n - 1).to_string()),
    };
    let ring = format!("ring/{writer}");
    let ring = if n.is_multiple_of(2) { Op::put(ring, n.to_string()) } else { Op::delete(ring) };
    let then = [Op::put(format!("put/{writer}/{n}"), n.to_string()), Op::put(counter, n.to_string()), ring];
    let answer = store.txn(Txn::when([before]).then(then)).await?;
    assert!(answer.succeeded, "writer {writer} is the only one to count, and {n} comes next");
    Ok(Done { writer, n, revision: answer.revision })
}

/// Which transaction of a writer comes next.
pub async fn resume(store: &dyn Store, writer: u64) -> Result<u64, Error> {
    let counter = store.range(Range::key(format!("counter/{writer}"))).await?;
    Ok(counter.first().map_or(0, |kv| std::str::from_utf8(&kv.value).unwrap().parse::<u64>().unwrap() + 1))
}

/// Writes until `enough`, through whatever happens, and tells and answers what was acknowledged. Only errors that say
/// "not done" or "nobody knows" may come.
pub async fn write_through(
    store: Arc<Postgres>,
    writer: u64,
    enough: impl Fn(u64) -> bool,
    tell: impl Fn(Done),
) -> Vec<Done> {
    let mut done = Vec::new();
    // What comes next, when that is known for sure.
    let mut expected = None;
    loop {
        let mut n = match resume(&*store, writer).await {
            Ok(n) => n,
            Err(error) => {
                passing(error);
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        assert!(expected.is_none_or(|expected| n == expected), "writer {writer}: what was refused was done");
        loop {
            if enough(n) {
                return done;
            }
            match step(&*store, writer, n).await {
                Ok(step) => {
                    tell(step);
                    done.push(step);
                }
                Err(error) => {
                    expected = error.is_refusal().then_some(n);
                    passing(error);
                    tokio::time::sleep(AGAIN).await;
                    break;
                }
            }
            n += 1;
        }
    }
}

fn passing(error: Error) {
    assert!(
        matches!(error, Error::NoLeader | Error::TimedOut | Error::Storage { .. }),
        "not an error of a connection that is lost: {error:?}"
    );
}

const READS_MAX: usize = 500;

/// Reads through what is left of the faults: a session may still be about to find out that it was ended.
async fn range(store: &dyn Store, range: Range) -> RangeAnswer {
    for _ in 0..READS_MAX {
        match store.range(range.clone()).await {
            Ok(answer) => return answer,
            Err(error) => passing(error),
        }
        tokio::time::sleep(AGAIN).await;
    }
    panic!("{range:?} is not answered any more");
}

/// Checks the rows against what was acknowledged, and the history against the rows.
pub async fn check(store: &dyn Store, writers: u64, acknowledged: &[Done]) {
    let newest = store.status().await.unwrap().revision;
    for done in acknowledged {
        let Done { writer, n, revision } = done;
        assert!(*revision <= newest, "{done:?} was acknowledged and the store is at {newest}");
        let found = range(store, Range::key(format!("put/{writer}/{n}"))).await;
        assert_eq!(found.first().map(|kv| kv.mod_revision), Some(*revision), "{done:?} was acknowledged");
    }
    for writer in 0..writers {
        let next = resume(store, writer).await.unwrap();
        let puts = range(store, Range::prefix(format!("put/{writer}/"))).await;
        assert_eq!(puts.count, next, "writer {writer} counted");
        let ring = (next % 2 == 1).then(|| (next - 1).to_string());
        assert_eq!(get(store, &format!("ring/{writer}")).await, ring);
    }
    let mut replay = Replay::new(store).await;
    replay.up_to(newest).await;
    let rows = range(store, Range::all().at(newest)).await.items;
    assert!(replay.rows.values().eq(rows.iter()), "the history leads to the rows there are");
}

/// A watcher from the oldest revision there is, and what its events add up to.
pub struct Replay {
    watcher: Watcher,
    last: Revision,
    pub rows: BTreeMap<Key, KeyValue>,
}

impl Replay {
    pub async fn new(store: &dyn Store) -> Self {
        let oldest = store.status().await.unwrap().compacted.max(Revision::FIRST);
        let rows = store.range(Range::all().at(oldest)).await.unwrap().items;
        let watcher = store.watch(WatchRequest::prefix("").from(oldest.next()).previous()).await.unwrap();
        Self { watcher, last: oldest, rows: rows.into_iter().map(|kv| (kv.key.clone(), kv)).collect() }
    }

    /// Every revision once, in order, each on top of the one before.
    pub async fn up_to(&mut self, newest: Revision) {
        while self.last < newest {
            let batch = next(&mut self.watcher).await.unwrap().expect("the store is open");
            assert_eq!(batch.revision, self.last.next(), "no revision twice, none skipped");
            self.last = batch.revision;
            for event in batch.events {
                let old = match event.kind {
                    EventKind::Put => self.rows.insert(event.kv.key.clone(), event.kv),
                    EventKind::Delete => self.rows.remove(&event.kv.key),
                };
                assert_eq!(event.previous, old, "at revision {}", self.last);
            }
        }
    }
}
