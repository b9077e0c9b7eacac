//! Power cuts at any moment of random histories: what is found afterwards is what the log was after some step, and no
//! step before the newest one that was acknowledged.

use std::time::Duration;

use chainfire::log::{Disk, Log};
use openraft::storage::{RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use crate::log_support::{Contents, Id, append, chances, contents, id, open, put, vote};

const SEEDS: u64 = 400;
const LIVES: usize = 5;
const STEPS: u64 = 40;

type Flushed = oneshot::Receiver<std::io::Result<()>>;

/// What the log was after each step, the last one the newest.
struct History {
    steps: Vec<Contents>,
    /// Steps up to this one were acknowledged.
    durable: usize,
    waiting: Vec<(usize, Flushed)>,
    committed: Option<Id>,
    term: u64,
}

impl History {
    fn now(&self) -> &Contents {
        self.steps.last().expect("there is a first")
    }

    fn next(&self) -> u64 {
        self.now().last.map_or(0, |last| last.index + 1)
    }

    fn step(&mut self, change: impl FnOnce(&mut Contents)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.steps.push(next);
    }

    fn hear(&mut self) {
        let durable = &mut self.durable;
        self.waiting.retain_mut(|(step, flushed)| match flushed.try_recv() {
            Ok(Ok(())) => {
                *durable = (*durable).max(*step);
                false
            }
            Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => false,
            Err(oneshot::error::TryRecvError::Empty) => true,
        });
    }

    /// What was found is one of the steps that may be; from now on it is all there ever was.
    fn found(&mut self, found: Contents, committed: Option<Id>) -> Result<(), String> {
        self.hear();
        let Some(step) = (self.durable..self.steps.len()).rev().find(|step| self.steps[*step] == found) else {
            let (durable, newest) = (&self.steps[self.durable], self.now());
            return Err(format!("found\n{found:?}\nat least\n{durable:?}\nat most\n{newest:?}"));
        };
        if committed > self.committed {
            return Err(format!("{committed:?} was never said to be committed"));
        }
        if committed > found.last {
            return Err(format!("{committed:?} is committed and not there"));
        }
        self.term = self.term.max(self.now().vote.map_or(0, |vote| vote.leader_id.term));
        self.steps = vec![self.steps.swap_remove(step)];
        self.durable = 0;
        self.waiting.clear();
        self.committed = committed;
        Ok(())
    }
}

async fn act(
    log: &mut Log,
    disk: &Disk,
    history: &mut History,
    chance: &mut impl FnMut(u64) -> u64,
) -> std::io::Result<()> {
    match chance(20) {
        0..8 => {
            let first = history.next();
            let entries: Vec<_> = (first..=first + chance(5))
                .map(|index| {
                    let filling = if chance(4) == 0 { 0 } else { index as u8 | 1 };
                    put(history.term, index, vec![filling; chance(1200) as usize])
                })
                .collect();
            for entry in &entries {
                history.step(|now| {
                    now.last = Some(entry.log_id);
                    now.entries.push(entry.clone());
                });
            }
            let step = history.steps.len() - 1;
            history.waiting.push((step, append(log, entries).await?));
        }
        8..10 => {
            history.term += 1;
            let vote = vote(history.term);
            history.step(|now| now.vote = Some(vote));
            let step = history.steps.len() - 1;
            log.save_vote(&vote).await?;
            history.durable = step;
        }
        10..12 => {
            // Never what is committed.
            let low =
                history.committed.map_or(0, |id| id.index + 1).max(history.now().purged.map_or(0, |id| id.index + 1));
            if low < history.next() {
                let end = low + chance(history.next() - low);
                history.step(|now| {
                    now.entries.retain(|entry| entry.log_id.index < end);
                    now.last = now.entries.last().map(|entry| entry.log_id).or(now.purged);
                });
                history.term += 1;
                log.truncate_after(history.now().last).await?;
            }
        }
        12..14 => {
            let committed =
                history.now().entries.iter().map(|entry| entry.log_id).filter(|id| Some(*id) > history.committed);
            let committed: Vec<_> = committed.collect();
            if !committed.is_empty() {
                history.committed = Some(committed[chance(committed.len() as u64) as usize]);
                log.save_committed(history.committed).await?;
            }
        }
        14..16 => {
            let beyond = chance(8) == 0;
            let purged = if beyond { Some(id(history.term, history.next() + chance(3))) } else { history.committed };
            if let Some(purged) = purged.filter(|purged| Some(*purged) > history.now().purged) {
                history.step(|now| {
                    now.entries.retain(|entry| entry.log_id.index > purged.index);
                    now.purged = Some(purged);
                    if now.entries.is_empty() {
                        now.last = Some(purged);
                    }
                });
                history.committed = history.committed.max(Some(purged));
                log.purge(purged).await?;
                log.save_committed(history.committed).await?;
            }
        }
        16 => {
            let (from, to) = (chance(history.next() + 1), chance(history.next() + 3));
            let read = log.try_get_log_entries(from..to).await?;
            let expected = history.now().entries.iter().filter(|entry| (from..to).contains(&entry.log_id.index));
            assert!(read.iter().eq(expected), "{from}..{to}");
        }
        17 => {
            // Full for a while.
            disk.set_capacity(Some(disk.used_bytes()));
            tokio::time::sleep(Duration::from_millis(chance(1500))).await;
            let first = history.next();
            let entry = put(history.term, first, vec![7; chance(3000) as usize]);
            history.step(|now| {
                now.last = Some(entry.log_id);
                now.entries.push(entry.clone());
            });
            let step = history.steps.len() - 1;
            history.waiting.push((step, append(log, vec![entry]).await?));
            tokio::time::sleep(Duration::from_millis(chance(1500))).await;
            disk.set_capacity(None);
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        18 if chance(4) == 0 => {
            // The log ends with the first sync that fails. Opened again without a power cut, it finds what is in the
            // kernel's cache and not on the disk.
            disk.fail_syncs(true);
        }
        _ => tokio::time::sleep(Duration::from_millis(chance(20))).await,
    }
    history.hear();
    Ok(())
}

/// Several lives on one disk, each ended by a power cut, a kill, or well.
async fn lives(seed: u64, lies: bool) -> Result<(), String> {
    let mut chance = chances(seed);
    let disk = Disk::new();
    let mut history =
        History { steps: vec![Contents::default()], durable: 0, waiting: Vec::new(), committed: None, term: 1 };
    for life in 0..LIVES {
        disk.fail_syncs(false);
        disk.set_lag(Duration::from_millis(chance(3)));
        disk.lie(lies);
        let cut = chance(3) > 0;
        if cut {
            disk.cut_after(chance(100));
        }
        match open(&disk) {
            Ok(mut log) => {
                if let (Ok(found), Ok(committed)) = (contents(&log).await, log.read_committed().await) {
                    history.found(found, committed).map_err(|wrong| format!("life {life}: {wrong}"))?;
                    for _ in 0..STEPS {
                        if act(&mut log, &disk, &mut history, &mut chance).await.is_err() {
                            break;
                        }
                    }
                }
                disk.set_capacity(None);
                if !cut && chance(2) == 0 && log.close().await.is_ok() {
                    history.hear();
                    history.durable = history.steps.len() - 1;
                }
            }
            Err(error) if cut && !matches!(error, store::Error::Corrupt { .. }) => {}
            Err(error) => return Err(format!("life {life}: cannot be opened: {error}")),
        }
        history.hear();
        if cut {
            disk.power_cycle(&mut chance);
        }
    }
    disk.fail_syncs(false);
    let mut log = open(&disk).map_err(|error| format!("cannot be opened: {error}"))?;
    let found = contents(&log).await.map_err(|error| format!("cannot be read: {error}"))?;
    let committed = log.read_committed().await.expect("it is in memory");
    history.found(found, committed)
}

fn run(seed: u64, lies: bool) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(lives(seed, lies))
}

#[test]
fn what_is_found_after_a_power_cut_is_a_step_of_the_history_and_no_acknowledged_one_is_lost() {
    for seed in 1..=SEEDS {
        if let Err(wrong) = run(seed, false) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

/// The check itself: on a disk that says it synced and did not, it must find losses.
#[test]
fn losses_on_a_disk_that_lies_are_found() {
    let found = (1..=20).filter(|seed| run(*seed, true).is_err()).count();
    assert!(found > 10, "only {found} of 20 losses were found");
}
