//! The same random histories at the real etcd and at ChainFire's etcd API: every answer, every error and every watch has to
//! be the same.
//!
//! ```text
//!   seed ──▶ make ──▶ steps ──▶ play at etcd ─────▶ lines ─┐
//!                       │                                  ├──▶ equal, or shrink and show
//!                       └─────▶ play at ChainFire ▶ lines ─┘
//! ```
//!
//! Each history begins on an emptied store (`play`) and speaks in numbers of its own (`frame`), so that one pair of servers
//! plays thousands. What is not compared is listed in `inward`. `CHAINFIRE_HISTORIES=N` plays N histories in each test
//! instead of as many as its time allows, `CHAINFIRE_SEED=S` begins with seed S; the same seed makes the same history.

mod choice;
mod frame;
mod inward;
mod make;
mod make_auth;
mod play;
mod run;
#[allow(dead_code, reason = "each of the two test programs uses its part")]
#[path = "../servers/mod.rs"]
mod servers;
mod shrink;
mod step;
mod streams;
mod tidy;

use std::time::Duration;

use parking_lot::Mutex;

use crate::run::{AUTH, KEYS, Kind};
use crate::servers::{Server, chainfire, etcd};

/// Side by side the tests would only wait for each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn compare(kind: Kind, seconds: u64, open: impl AsyncFn() -> anyhow::Result<Server>) {
    if let Some(reason) = etcd::is_missing() {
        println!("skipped: {reason}");
        return;
    }
    let _alone = ONE_AT_A_TIME.lock();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime");
    runtime.block_on(run::compare(kind, Duration::from_secs(seconds), open));
}

/// What differs between two of them is no difference to speak of.
#[test]
fn etcd_answers_as_etcd_does() {
    compare(KEYS, 3, etcd::start);
}

#[test]
fn etcd_lets_through_whom_etcd_lets_through() {
    compare(AUTH, 3, etcd::start);
}

#[test]
fn the_door_over_memory_answers_as_etcd_does() {
    compare(KEYS, 10, chainfire::memory);
}

#[test]
fn the_door_over_the_embedded_engine_answers_as_etcd_does() {
    compare(KEYS, 10, chainfire::embedded);
}

#[test]
fn the_door_over_a_member_answers_as_etcd_does() {
    compare(KEYS, 15, chainfire::member);
}

#[test]
fn the_door_over_a_follower_answers_as_etcd_does() {
    compare(KEYS, 15, chainfire::follower);
}

#[test]
fn the_door_over_the_embedded_engine_lets_through_whom_etcd_lets_through() {
    compare(AUTH, 10, chainfire::embedded);
}

#[test]
fn the_door_over_a_follower_lets_through_whom_etcd_lets_through() {
    compare(AUTH, 10, chainfire::follower);
}
