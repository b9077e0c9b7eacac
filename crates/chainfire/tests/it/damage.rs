//! Damaged files, and files of old.

use std::path::Path;

use chainfire::{Embedded, Options};
use store::conformance::history::numbers;
use store::{Error, KeyValue, LeaseId, Op, Range, Revision, Store, Txn, WatchRequest};

/// Every record kind: rows with and without lease, history, deletes, a compacted past.
async fn fill(store: &Embedded) {
    store.lease_grant(3600, Some(LeaseId(77))).await.unwrap();
    store
        .txn(Txn::of([Op::put("a", "1"), Op::put("b", "1"), Op::put_leased("l", "leased", LeaseId(77))]))
        .await
        .unwrap();
    for n in 0..40 {
        store.txn(Txn::of([Op::put("a", format!("value {n}")), Op::put(format!("k/{n}"), vec![n; 50])])).await.unwrap();
    }
    store.txn(Txn::of([Op::delete("b"), Op::delete_prefix("k/1")])).await.unwrap();
    store.compact(Revision(20)).await.unwrap();
    store.txn(Txn::of([Op::put("last", "")])).await.unwrap();
}

#[derive(PartialEq, Debug)]
struct Contents {
    rows: Vec<KeyValue>,
    past: Vec<KeyValue>,
    batches: Vec<store::Batch>,
    leased: Vec<store::Key>,
}

async fn contents(store: &Embedded) -> Result<Contents, Error> {
    let rows = store.range(Range::all()).await?;
    let past = store.range(Range::all().at(Revision(25))).await?.items;
    let mut watcher = store.watch(WatchRequest::prefix("").from(Revision(20)).previous()).await?;
    let mut batches = Vec::new();
    for _ in 20..=rows.revision.0 {
        batches.extend(watcher.next().await?);
    }
    let leased = store.lease_time_to_live(LeaseId(77)).await?.keys;
    Ok(Contents { rows: rows.items, past, batches, leased })
}

async fn open(dir: &Path) -> Result<Embedded, Error> {
    Embedded::open(dir, Options::default()).await
}

/// Flips bits all over the file: the answer is the truth or an error, never anything else.
#[test]
fn a_flipped_bit_is_never_served() {
    const ROUNDS: usize = 150;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await.unwrap();
        fill(&store).await;
        store.close().await.unwrap();
        let store = open(dir.path()).await.unwrap();
        let truth = contents(&store).await.unwrap();
        store.close().await.unwrap();
        let path = dir.path().join("chainfire.redb");
        let sound = std::fs::read(&path).unwrap();
        let used: Vec<usize> = (0..sound.len()).filter(|at| sound[*at] != 0).collect();
        let (mut refused, mut survived) = (0, 0);
        for number in numbers(3, ROUNDS) {
            let mut damaged = sound.clone();
            let at = used[number as usize % used.len()];
            damaged[at] ^= 1 << ((number >> 32) % 8);
            std::fs::write(&path, &damaged).unwrap();
            let seen = match open(dir.path()).await {
                Ok(store) => tokio::time::timeout(std::time::Duration::from_secs(30), contents(&store)).await,
                Err(error) => Ok(Err(error)),
            };
            match seen.expect("no hang") {
                Ok(seen) => {
                    assert_eq!(seen, truth, "a bit at {at}");
                    survived += 1;
                }
                Err(Error::Corrupt { path: named, .. }) => {
                    assert_eq!(named, path);
                    refused += 1;
                }
                Err(error) => panic!("a bit at {at}: {error:?}"),
            }
        }
        // Much of the file is pages that are free again.
        assert!(refused >= 3 && survived > 0, "{refused} refused, {survived} survived: is anything checked?");
    });
}

const GOLDEN: &[u8] = include_bytes!("golden/format-1.redb.zst");
const GOLDEN_CONTENTS: &str = include_str!("golden/format-1.txt");

/// Written by the first version. Every later one reads it.
#[tokio::test]
async fn the_first_format_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("chainfire.redb"), zstd::decode_all(GOLDEN).unwrap()).unwrap();
    let store = open(dir.path()).await.unwrap();
    assert_eq!(format!("{:#?}\n", contents(&store).await.unwrap()), GOLDEN_CONTENTS);
    store.txn(Txn::of([Op::put("new", "")])).await.unwrap();
}

/// What this version writes holds the same; when the format changes on purpose, a new golden file joins the old one.
#[tokio::test]
async fn the_golden_contents_are_what_is_written_today() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    fill(&store).await;
    store.close().await.unwrap();
    if let Ok(make) = std::env::var("CHAINFIRE_GOLDEN") {
        let database = std::fs::read(dir.path().join("chainfire.redb")).unwrap();
        std::fs::write(Path::new(&make).join("format-1.redb.zst"), zstd::encode_all(&database[..], 19).unwrap())
            .unwrap();
        let store = open(dir.path()).await.unwrap();
        let shown = format!("{:#?}\n", contents(&store).await.unwrap());
        std::fs::write(Path::new(&make).join("format-1.txt"), shown).unwrap();
        return;
    }
    let store = open(dir.path()).await.unwrap();
    assert_eq!(format!("{:#?}\n", contents(&store).await.unwrap()), GOLDEN_CONTENTS);
}
