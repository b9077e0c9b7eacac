//! Power cuts at any moment: what was acknowledged is there afterwards, nothing is there by half.
//!
//! A killed process proves little about this, as the kernel keeps what it wrote. So the disk is simulated.

use std::sync::Arc;

use chainfire::{Embedded, Options};
use store::conformance::history::numbers;
use store::{Op, Revision, Store, Txn};

use crate::disk::Disk;
use crate::workload::{self, Done};

const WRITERS: u64 = 4;
const EACH: u64 = 12;
const SEEDS: u64 = 60;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn open(disk: &Disk) -> Result<Arc<Embedded>, store::Error> {
    let disk = disk.clone();
    Embedded::open_on(move || disk.attach(), Options::default()).map(Arc::new)
}

/// Writes, cuts the power, looks; several times on one disk, also in the middle of repairing it.
async fn lives(seed: u64, lies: bool) -> Result<(), String> {
    let mut chances = numbers(seed, 100_000).into_iter().cycle();
    let mut chance = move |below: u64| chances.next().unwrap() % below;
    let mut disk = Disk::new();
    // The folder's database is made under another name first, so a cut while making it is not this disk's worry.
    drop(open(&disk).map_err(|error| error.to_string())?);
    let mut acknowledged: Vec<Done> = Vec::new();
    for _ in 0..3 {
        if lies {
            disk.lie_about_syncs();
        }
        disk.cut_after(chance(400));
        if let Ok(store) = open(&disk) {
            let compactor = tokio::spawn({
                let store = store.clone();
                async move {
                    while let Ok(status) = store.status().await {
                        let _ = store.compact(Revision(status.revision.0.saturating_sub(3))).await;
                        if store.txn(Txn::of([Op::put("tick", "")])).await.is_err() {
                            break;
                        }
                    }
                }
            });
            acknowledged.extend(workload::write(&store, WRITERS, EACH).await);
            compactor.abort();
            let _ = compactor.await;
        }
        disk = disk.survivor(&mut chance);
    }
    let store = open(&disk).map_err(|error| format!("cannot be opened: {error}"))?;
    workload::check(&*store, WRITERS, &acknowledged).await?;
    let more = workload::write(&store, WRITERS, 3).await;
    if more.len() as u64 != WRITERS * 3 {
        return Err("cannot be written any more".into());
    }
    workload::check(&*store, WRITERS, &more).await
}

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut() {
    runtime().block_on(async {
        for seed in 1..=SEEDS {
            if let Err(wrong) = lives(seed, false).await {
                panic!("seed {seed}: {wrong}");
            }
        }
    });
}

/// The check itself: on a disk that says it synced and did not, it must find losses.
#[test]
fn a_disk_that_lies_is_found_out() {
    runtime().block_on(async {
        let mut found = 0;
        for seed in 1..=10 {
            // The storage engine may well stumble over such a disk.
            let wrong = tokio::spawn(async move { lives(seed, true).await }).await;
            found += u64::from(!matches!(wrong, Ok(Ok(()))));
        }
        assert!(found > 5, "only {found} of 10 losses were found");
    });
}

#[test]
fn one_sync_carries_all_that_wait_and_an_idle_store_does_nothing() {
    runtime().block_on(async {
        const TASKS: usize = 64;
        let disk = Disk::new();
        let store = open(&disk).unwrap();
        store.lease_grant(600, None).await.unwrap();
        let (syncs, writes) = (disk.syncs(), disk.writes());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!((disk.syncs(), disk.writes()), (syncs, writes), "idle");
        store.txn(Txn::of([Op::put("one", "")])).await.unwrap();
        assert_eq!(disk.syncs(), syncs + 1, "one put, one sync");
        // Handed over together by one thread, so that they do wait.
        let puts = (0..TASKS).map(|n| store.txn(Txn::of([Op::put(format!("{n}"), "")])));
        let syncs = disk.syncs();
        for answer in futures::future::join_all(puts).await {
            answer.unwrap();
        }
        let syncs = disk.syncs() - syncs;
        assert!(syncs <= TASKS as u64 / 4, "{syncs} syncs for {TASKS} puts that waited together");
        // Refusals and failed comparisons cost nothing.
        let before = disk.writes();
        store.txn(Txn::when([store::Compare::exists("missing")]).then([Op::put("x", "")])).await.unwrap();
        assert_eq!(disk.writes(), before);
    });
}

#[test]
fn a_full_disk_refuses_and_comes_back_by_itself() {
    runtime().block_on(async {
        let disk = Disk::new();
        let store = open(&disk).unwrap();
        let lease = store.lease_grant(600, None).await.unwrap().id;
        let mut watcher = store.watch(store::WatchRequest::prefix("")).await.unwrap();
        let mut acknowledged = workload::write(&store, WRITERS, 5).await;
        for _ in 0..3 {
            disk.set_full(true);
            for writer in 0..WRITERS {
                let n = workload::resume(&*store, writer).await;
                if let Ok(n) = n {
                    workload::step(&*store, writer, n).await.expect_err("the disk is full");
                }
            }
            disk.set_full(false);
            // The first write afterwards may be the one that finds the storage engine stopped.
            let _ = store.txn(Txn::of([Op::put("again", "")])).await;
            let more = workload::write(&store, WRITERS, 5).await;
            assert_eq!(more.len() as u64, WRITERS * 5);
            acknowledged.extend(more);
        }
        workload::check(&*store, WRITERS, &acknowledged).await.unwrap();
        store.lease_keep_alive(lease).await.unwrap();
        // The watcher from the beginning saw every revision once, whatever happened in between.
        let newest = store.status().await.unwrap().revision;
        for revision in 2..=newest.0 {
            assert_eq!(watcher.next().await.unwrap().unwrap().revision, Revision(revision));
        }
    });
}
