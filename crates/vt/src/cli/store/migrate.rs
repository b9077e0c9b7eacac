//! A copy of one store into another, between any two engines.
//!
//! ```text
//! empty? -> mark the target -> leases, with their ids and what is left of them
//!        -> rows in the order in which they were last changed -> hash both -> take the mark away
//! ```
//!
//! Revisions are the target's own, but their order is kept: what was changed later in the source has the later revision
//! in the target, and what was changed together is changed together. That is what readers of a log in a store go by.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use model::Code;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use store::{Compare, Key, KeyValue, LeaseId, Op, Range, Revision, Store, Txn};

use super::link::LinkArgs;
use crate::cli::session::Session;
use crate::engine::{self, Access, COPYING, Place};
use crate::failure::{Failure, Outcome};
use crate::output::steps::{Progress, Steps};

/// Rows that are read at once.
const PAGE_ROWS: usize = 1000;
/// Rows that are on their way at once: with a store over a network, the way there and back is what takes time.
const READS_MAX: usize = 64;
/// Operations of one transaction, within the limit of every engine.
const WRITE_OPS: usize = 100;
/// Bytes of one transaction; half of what every engine takes.
const WRITE_BYTES: usize = store::limits::REQUEST_BYTES_MAX / 2;
/// What has an order that readers go by has a transaction of its own for each change: the event log.
const LOG: &str = reconcile::keys::LOG;

#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// The store to copy: embedded:DIR, etcd://HOST:PORT,... or postgres://USER@HOST/DATABASE. Nothing may write to it
    #[arg(long, value_name = "URL")]
    from: String,
    /// The store to copy into; it must be empty
    #[arg(long, value_name = "URL")]
    to: String,
    #[command(flatten)]
    access: LinkArgs,
}

pub async fn run(session: &Session, args: &MigrateArgs) -> Outcome {
    let (from, to) = (place("--from", &args.from)?, place("--to", &args.to)?);
    if from == to {
        return Err(Failure::usage("--from and --to are the same store"));
    }
    if let Place::Embedded(Some(dir)) = &from
        && !dir.join(engine::EMBEDDED_FILE).exists()
    {
        return Err(Failure::new(Code::NotFound, format!("there is no embedded store in {}", dir.display()))
            .hint("a member of a cluster is copied while it is served: --from etcd://HOST:PORT"));
    }
    let access = args.access.access()?;
    let mut steps = Steps::begin(&session.out);
    let source = open(&from, &access).await?;
    let target = open(&to, &access).await?;
    let copied = copy(&source, &target, &from, &mut steps).await?;
    let equal = copied.source == copied.target;
    let side = |place: &Place, sum: &Sum| json!({ "store": place.to_string(), "rows": sum.rows, "sha256": sum.hash });
    let next = if equal { vec![format!("vt up --store {}", to)] } else { Vec::new() };
    let receipt = json!({
        "operation": "migrate",
        "from": side(&from, &copied.source),
        "to": side(&to, &copied.target),
        "leases": copied.leases,
        "equal": equal,
        "next": next,
    });
    session.out.value(&receipt, || {
        let line = |word: &str, place: &Place, sum: &Sum| {
            format!("  {word}  {:>9} rows  sha256 {}  {place}\n", sum.rows, sum.hash)
        };
        let leases = copied.leases;
        let mut text = format!("copied, with {leases} leases\n");
        text += &line("from", &from, &copied.source);
        text += &line("to  ", &to, &copied.target);
        next.iter().fold(text, |text, command| text + &format!("  next  {command}\n"))
    })?;
    if !equal {
        return Err(Failure::new(Code::Failed, "the two stores differ after the copy")
            .why("something wrote to one of them meanwhile, or a lease ran out")
            .hint("stop what uses them, empty the target, and copy again"));
    }
    Ok(0)
}

/// A URL that is wrong is not repeated: it may hold a password.
fn place(flag: &str, url: &str) -> Result<Place, Failure> {
    match url.parse::<Place>() {
        Ok(Place::Embedded(None)) => {
            Err(Failure::usage(format!("{flag} embedded: which folder?")).hint(format!("{flag} embedded:DIR")))
        }
        Ok(Place::Replicated) => {
            Err(Failure::usage(format!("{flag} replicated: which one?")).hint(format!("{flag} etcd://HOST:PORT")))
        }
        Ok(place) => Ok(place),
        Err(why) => Err(Failure::usage(format!("{flag}: {why}"))),
    }
}

async fn open(place: &Place, access: &Access) -> Result<Arc<dyn Store>, Failure> {
    Ok(engine::open(place, access, Path::new("")).await?)
}

fn failed(what: &'static str) -> impl Fn(store::Error) -> Failure {
    move |error| {
        let code = if matches!(error, store::Error::Corrupt { .. }) { Code::Failed } else { Code::Unavailable };
        Failure::new(code, format!("the copy stopped: {what}"))
            .why(error.to_string())
            .hint("nothing can start on an unfinished copy; empty the target and copy again")
    }
}

/// Rows, and a hash over key, value and lease of each in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    pub rows: u64,
    pub hash: String,
}

struct Copied {
    source: Sum,
    target: Sum,
    leases: usize,
}

/// A row's place in the order of changes.
struct Row {
    changed: Revision,
    key: Key,
}

async fn copy(
    source: &Arc<dyn Store>,
    target: &Arc<dyn Store>,
    from: &Place,
    steps: &mut Steps<'_>,
) -> Result<Copied, Failure> {
    empty(&**target).await?;
    let mut rows = Vec::new();
    let newest =
        each(&**source, None, true, |kv| rows.push(Row { changed: kv.mod_revision, key: kv.key.clone() })).await;
    let newest = newest.map_err(failed("reading the source"))?;
    if rows.iter().any(|row| row.key == COPYING) {
        return Err(Failure::new(Code::PreconditionFailed, "the source is itself an unfinished copy"));
    }
    rows.sort_by(|a, b| (a.changed, &a.key).cmp(&(b.changed, &b.key)));
    steps.step(&format!("{} rows at revision {newest} of {from}", rows.len()));
    let mark = Txn::when([Compare::missing(COPYING)])
        .then([Op::put(COPYING, json!({ "from": from.to_string() }).to_string())]);
    if !target.txn(mark).await.map_err(failed("marking the target"))?.succeeded {
        return Err(Failure::new(Code::Conflict, "another copy into the target is under way"));
    }
    let leases = leases(&**source, &**target).await?;
    rows_in_order(source, &**target, &rows, newest, steps).await?;
    steps.clear();
    target.txn(Txn::of([Op::delete(COPYING)])).await.map_err(failed("taking the mark away"))?;
    let sums = tokio::try_join!(sum(&**source), sum(&**target)).map_err(failed("comparing the two"))?;
    Ok(Copied { source: sums.0, target: sums.1, leases })
}

async fn empty(target: &dyn Store) -> Result<(), Failure> {
    let found =
        target.range(Range::all().limit(1).keys_only().uncounted()).await.map_err(failed("reading the target"))?;
    let leases = target.leases().await.map_err(failed("reading the target"))?;
    let Some(row) = found.first() else {
        return if leases.is_empty() {
            Ok(())
        } else {
            Err(Failure::new(Code::Conflict, format!("the target is not empty: it has {} leases", leases.len())))
        };
    };
    let failure = Failure::new(Code::Conflict, "the target is not empty; nothing was changed");
    let first = format!("its first key is {}", row.key.escape_ascii());
    Err(failure.why(first).hint("choose another target, or empty it: vt kv delete --prefix ''"))
}

/// Every row as of one revision, which is answered: `at`, or the newest.
async fn each(
    store: &dyn Store,
    at: Option<Revision>,
    keys_only: bool,
    mut take: impl FnMut(&KeyValue),
) -> Result<Revision, store::Error> {
    let mut range = Range::all().limit(PAGE_ROWS).uncounted();
    (range.revision, range.keys_only) = (at, keys_only);
    loop {
        let page = store.range(range.clone()).await?;
        let at = *range.revision.get_or_insert(page.revision);
        page.items.iter().for_each(&mut take);
        match page.items.last() {
            Some(last) if page.more => range.start = [&last.key[..], &[0]].concat().into(),
            _ => return Ok(at),
        }
    }
}

pub async fn sum(store: &dyn Store) -> Result<Sum, store::Error> {
    let (mut rows, mut hash) = (0, Sha256::new());
    each(store, None, false, |kv| {
        rows += 1;
        for part in [&kv.key, &kv.value] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update(kv.lease.map_or(0, |lease| lease.0).to_be_bytes());
    })
    .await?;
    let hash = hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    Ok(Sum { rows, hash })
}

/// Grants every lease again, with its id and for what is left of it.
async fn leases(source: &dyn Store, target: &dyn Store) -> Result<usize, Failure> {
    let ids: Vec<LeaseId> = source.leases().await.map_err(failed("reading leases"))?;
    let mut granted = 0;
    for id in ids {
        let status = match source.lease_time_to_live(id).await {
            Ok(status) => status,
            // It ran out meanwhile, and its keys with it.
            Err(store::Error::LeaseNotFound { .. }) => continue,
            Err(error) => return Err(failed("reading leases")(error)),
        };
        let left = status.remaining_seconds.max(store::limits::LEASE_TTL_SECONDS_MIN);
        target.lease_grant(left, Some(id)).await.map_err(failed("granting a lease"))?;
        granted += 1;
    }
    Ok(granted)
}

async fn rows_in_order(
    source: &Arc<dyn Store>,
    target: &dyn Store,
    rows: &[Row],
    at: Revision,
    steps: &mut Steps<'_>,
) -> Result<(), Failure> {
    // What was changed together stays together, and an entry of the log has a revision of its own.
    let groups = rows.chunk_by(|a, b| a.changed == b.changed);
    let reads = groups.flat_map(|group| {
        let alone = group.len() > 1 || group[0].key.starts_with(LOG.as_bytes());
        group.iter().map(move |row| (row, alone))
    });
    let reads = reads.map(|(row, alone)| async move {
        let found = source.range(Range::key(row.key.clone()).at(at)).await?;
        Ok::<_, store::Error>((row.changed, found.items.into_iter().next(), alone))
    });
    let mut reads = futures::stream::iter(reads).buffered(READS_MAX);
    let (mut batch, mut done) = (Batch::default(), 0_u64);
    while let Some((changed, kv, alone)) = reads.try_next().await.map_err(failed("reading the source"))? {
        let Some(kv) = kv else { continue };
        if batch.ends_before(changed, &kv, alone) {
            target.txn(batch.take()).await.map_err(failed("writing the target"))?;
        }
        batch.add(changed, kv, alone);
        done += 1;
        if done.is_multiple_of(PAGE_ROWS as u64) {
            let progress = Progress { what: "copying".into(), done, total: rows.len() as u64, unit: "rows".into() };
            steps.draw(&progress.render());
        }
    }
    if !batch.ops.is_empty() {
        target.txn(batch.take()).await.map_err(failed("writing the target"))?;
    }
    Ok(())
}

/// Puts of one transaction.
#[derive(Default)]
struct Batch {
    ops: Vec<Op>,
    bytes: usize,
    last: Revision,
    /// One change of the source, and no other beside it.
    alone: bool,
}

impl Batch {
    /// Whether what is in it has to be written before `kv` is added.
    fn ends_before(&self, changed: Revision, kv: &KeyValue, alone: bool) -> bool {
        let bytes = self.bytes + kv.key.len() + kv.value.len();
        if self.ops.is_empty() {
            return false;
        }
        if changed == self.last {
            // One change is one transaction, unless the source allows larger ones than others do.
            return self.ops.len() >= store::limits::TXN_OPS_MAX || bytes > store::limits::REQUEST_BYTES_MAX;
        }
        self.alone || alone || self.ops.len() >= WRITE_OPS || bytes > WRITE_BYTES
    }

    fn add(&mut self, changed: Revision, kv: KeyValue, alone: bool) {
        self.bytes += kv.key.len() + kv.value.len();
        (self.last, self.alone) = (changed, alone);
        self.ops.push(match kv.lease {
            Some(lease) => Op::put_leased(kv.key, kv.value, lease),
            None => Op::put(kv.key, kv.value),
        });
    }

    fn take(&mut self) -> Txn {
        Txn::of(std::mem::take(self).ops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, Out};
    use store::memory::Memory;

    fn out() -> Out {
        Out::new(Format::Json, true, 0)
    }

    async fn copied(source: &Arc<dyn Store>, target: &Arc<dyn Store>) -> Result<Copied, Failure> {
        copy(source, target, &Place::Embedded(None), &mut Steps::begin(&out())).await
    }

    fn memory() -> Arc<dyn Store> {
        Arc::new(Memory::new())
    }

    #[tokio::test]
    async fn a_copy_has_the_rows_the_leases_and_the_order_of_changes() {
        let (source, target) = (memory(), memory());
        let lease = source.lease_grant(600, Some(LeaseId(77))).await.unwrap().id;
        source.txn(Txn::of([Op::put("z", "1"), Op::put("log/b/1", "x"), Op::put("log/a/1", "x")])).await.unwrap();
        for at in 0..300 {
            source.txn(Txn::of([Op::put(format!("k{at:03}"), "old")])).await.unwrap();
        }
        source.txn(Txn::of([Op::put("log/a/2", "y"), Op::put("a", "2")])).await.unwrap();
        source
            .txn(Txn::of([Op::put_leased("leased", [0xff, 0].to_vec(), lease), Op::put("k000", "new")]))
            .await
            .unwrap();
        source.txn(Txn::of([Op::delete("k001")])).await.unwrap();
        let copied = copied(&source, &target).await.unwrap();
        assert_eq!(copied.source, copied.target);
        assert_eq!((copied.target.rows, copied.leases), (305, 1));
        let status = target.lease_time_to_live(lease).await.unwrap();
        assert!(status.remaining_seconds > 500 && status.keys == ["leased"], "{status:?}");
        let order = async |store: &Arc<dyn Store>| {
            let range = Range::all().sort(store::SortBy::Mod, store::SortOrder::Ascend);
            let items = store.range(range).await.unwrap().items;
            items.iter().map(|kv| (kv.mod_revision, kv.key.clone())).collect::<Vec<_>>()
        };
        let (before, after) = (order(&source).await, order(&target).await);
        let log = |rows: &[(Revision, Key)]| {
            let rows: Vec<_> = rows.iter().filter(|(_, key)| key.starts_with(b"log/")).cloned().collect();
            let together = rows.chunk_by(|a, b| a.0 == b.0);
            together.map(|rows| rows.iter().map(|row| row.1.clone()).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        assert_eq!(log(&before), log(&after), "events that were written together are together, in their order");
        assert!(target.range(Range::key(COPYING)).await.unwrap().items.is_empty());
    }

    #[tokio::test]
    async fn a_target_that_is_not_empty_stays_as_it_is() {
        let (source, target) = (memory(), memory());
        source.txn(Txn::of([Op::put("a", "1")])).await.unwrap();
        target.txn(Txn::of([Op::put("b", "1")])).await.unwrap();
        let failure = copied(&source, &target).await.err().unwrap();
        assert_eq!(failure.error.code, Code::Conflict);
        assert_eq!(target.status().await.unwrap().revision, Revision(2));
        let leased = memory();
        leased.lease_grant(600, None).await.unwrap();
        assert_eq!(copied(&source, &leased).await.err().unwrap().error.code, Code::Conflict);
    }

    #[tokio::test]
    async fn a_copy_that_was_cut_off_is_marked() {
        let (source, target) = (memory(), memory());
        // More than one transaction takes: the copy fails in the middle.
        source.lease_grant(600, Some(LeaseId(5))).await.unwrap();
        source.txn(Txn::of([Op::put_leased("a", "1", LeaseId(5))])).await.unwrap();
        let cut = async {
            empty(&*target).await.unwrap();
            target.txn(Txn::of([Op::put(COPYING, "{}")])).await.unwrap();
        };
        cut.await;
        let failure = copied(&source, &target).await.err().unwrap();
        assert_eq!(failure.error.code, Code::Conflict, "{failure:?}");
        let failure = copied(&target, &memory()).await.err().unwrap();
        assert_eq!(failure.error.code, Code::PreconditionFailed, "{failure:?}");
    }
}
