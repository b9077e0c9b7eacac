//! Clusters on a simulated network, disk and clock: many seeds, each a short life full of faults.
//!
//! ```text
//!   seed ──▶ hosts: member + clients + watcher + leases ──▶ history
//!     └────▶ faults: crashes with torn writes, partitions (one way, too), slow, full and failing disks
//!                                          at the end: everybody is back, the logs are one, the checker has no complaint
//! ```
//!
//! `CHAINFIRE_SIM_SEEDS` is how many are run, `CHAINFIRE_SIM_SEED` the first of them. Time is virtual and faults follow
//! from the seed; ids and election timeouts do not, so that a seed which fails is likely, not certain, to fail again.

mod faults;
mod network;
mod run;

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use run::{Seen, Shape};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs the seeds on all processors and answers what all of them saw together. Panics with the seed of the first that fails.
fn seeds(count: u64, life: impl Fn(u64) -> Result<Seen, String> + Sync) -> Seen {
    let count = setting("CHAINFIRE_SIM_SEEDS", count);
    let first = setting("CHAINFIRE_SIM_SEED", 1);
    let next = AtomicU64::new(first);
    let (failed, total) = (Mutex::new(Vec::new()), Mutex::new(Seen::default()));
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while failed.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    let lived = catch_unwind(AssertUnwindSafe(|| life(seed)));
                    match lived.unwrap_or_else(|_| Err("it panicked, see above".to_owned())) {
                        Ok(seen) => total.lock().unwrap().add(&seen),
                        Err(why) => failed.lock().unwrap().push(format!("CHAINFIRE_SIM_SEED={seed}: {why}")),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let total = total.into_inner().unwrap();
    println!("{count} seeds: {total:?}");
    total
}

fn proves_something(seen: &Seen, lives: u64) {
    assert!(seen.wrote > lives * 10 && seen.read > lives * 10, "hardly anything happened: {seen:?}");
    assert!(seen.undecided as u64 * 100 <= lives, "too much is left open: {seen:?}");
    assert!(seen.crashes > 0 && seen.partitions > 0 && seen.disks > 0, "hardly anything went wrong: {seen:?}");
}

#[test]
fn three_members_lose_nothing_that_was_acknowledged() {
    let seen = seeds(24, |seed| run::life(seed, &Shape { members: 3, ..Shape::default() }));
    proves_something(&seen, setting("CHAINFIRE_SIM_SEEDS", 24));
}

#[test]
fn five_members_lose_nothing_that_was_acknowledged() {
    let seen = seeds(8, |seed| run::life(seed, &Shape { members: 5, ..Shape::default() }));
    proves_something(&seen, setting("CHAINFIRE_SIM_SEEDS", 8));
}

/// Disks that say "it is there" and forget it: whoever checks has to notice, or notices nothing at all.
#[test]
fn a_disk_that_lies_is_found_out() {
    let shape = Shape { members: 3, lying: true, ..Shape::default() };
    let found = (1..=40).find_map(|seed| run::life(seed, &shape).err());
    let why = found.expect("a loss is found");
    println!("found out: {why}");
}
