//! What goes wrong, decided by dice.

use std::time::Duration;

use store::conformance::linear::Dice;
use turmoil::Sim;

use crate::run::{Host, Seen};

/// On top of what is there when a disk becomes full: at times enough for a vote, at times for nothing.
const ROOM_BYTES: u64 = 64 * 1024;

/// One fault, or the end of some. `Err` when turmoil says so.
pub fn strike(sim: &mut Sim<'_>, hosts: &mut [Host], dice: &mut Dice, seen: &mut Seen) {
    let count = hosts.len() as u64;
    let one = dice.below(count) as usize;
    let other = (one + 1 + dice.below(count - 1) as usize) % hosts.len();
    match dice.below(16) {
        0..=2 => crash(sim, &mut hosts[one], dice, seen),
        3 => (0..hosts.len()).for_each(|n| crash(sim, &mut hosts[n], dice, seen)),
        4..=6 => begin(sim, hosts, dice),
        7 => {
            seen.partitions += 1;
            sim.partition(hosts[one].name.as_str(), hosts[other].name.as_str());
        }
        8 => {
            seen.partitions += 1;
            sim.partition_oneway(hosts[one].name.as_str(), hosts[other].name.as_str());
        }
        9 => {
            seen.partitions += 1;
            let way = dice.below(3);
            for n in (0..hosts.len()).filter(|n| *n != one) {
                let (a, b) = (hosts[one].name.as_str(), hosts[n].name.as_str());
                match way {
                    0 => sim.partition(a, b),
                    1 => sim.partition_oneway(a, b),
                    _ => sim.partition_oneway(b, a),
                }
            }
        }
        10 | 11 => heal(sim, hosts),
        12 => {
            seen.disks += 1;
            hosts[one].place.log.set_lag(Duration::from_millis(dice.below(400)));
        }
        13 => {
            seen.disks += 1;
            let log = &hosts[one].place.log;
            log.set_capacity(Some(log.used_bytes() + dice.below(ROOM_BYTES)));
        }
        14 => {
            seen.disks += 1;
            hosts[one].place.log.fail_syncs(true);
        }
        _ => hosts.iter().for_each(repair),
    }
}

/// The power goes: what was not synced is torn. At times it is the process alone that dies.
fn crash(sim: &mut Sim<'_>, host: &mut Host, dice: &mut Dice, seen: &mut Seen) {
    if host.runs {
        seen.crashes += 1;
        sim.crash(host.name.as_str());
        host.runs = false;
    }
    if dice.below(3) > 0 {
        host.place.log.power_cycle(&mut |end| dice.below(end));
    }
}

fn repair(host: &Host) {
    let log = &host.place.log;
    log.set_lag(Duration::ZERO);
    log.set_capacity(None);
    log.fail_syncs(false);
}

/// Starts those who do not run.
fn begin(sim: &mut Sim<'_>, hosts: &mut [Host], dice: &mut Dice) {
    for host in hosts.iter_mut().filter(|host| !host.runs) {
        if dice.below(4) > 0 {
            repair(host);
            sim.bounce(host.name.as_str());
            host.runs = true;
        }
    }
}

pub fn heal(sim: &Sim<'_>, hosts: &[Host]) {
    for (n, a) in hosts.iter().enumerate() {
        for b in &hosts[n + 1..] {
            sim.repair(a.name.as_str(), b.name.as_str());
        }
    }
}

/// Everything works again, and everybody is there.
pub fn end(sim: &mut Sim<'_>, hosts: &mut [Host]) {
    heal(sim, hosts);
    for host in hosts.iter_mut() {
        repair(host);
        // One whose disk failed has ended by itself.
        if host.runs && sim.is_host_running(host.name.as_str()) && !host.has_ended() {
            continue;
        }
        sim.crash(host.name.as_str());
        sim.bounce(host.name.as_str());
        host.runs = true;
    }
}
