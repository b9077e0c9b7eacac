//! Was that history the history of one store that did one thing at a time?
//!
//! Two checks that know nothing of each other:
//!
//! - [`by_log`] takes the log of all changes, as a watch from the first revision told it at the end, plays it, and
//!   holds every answer against it: every acknowledged write is in it where it said, every comparison was decided
//!   rightly, every read is the state at its revision, and revisions agree with real time.
//! - [`by_values`] does not look at revisions at all. It takes each key's puts and reads and searches for an order of
//!   them that a register could have had (Wing and Gong's search with Lowe's memory of dead ends).

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{Batch, EventKind, Key, KeyValue, Revision};
use bytes::Bytes;

use super::history::{Call, Heard, Op};
use super::workload::PREFIX;

type Rows = BTreeMap<Key, KeyValue>;

/// `log` holds every revision from 2 on, as a watch of everything delivered it.
pub fn by_log(ops: &[Op], log: &[Batch]) -> Result<(), String> {
    let states = play(log)?;
    for op in ops {
        agrees(op, log, &states).map_err(|why| format!("{why}: {op:?}"))?;
    }
    appeared(ops, log)?;
    real_time(ops)
}

/// The rows after each revision, from the empty store on.
fn play(log: &[Batch]) -> Result<Vec<Rows>, String> {
    let mut states = vec![Rows::new(), Rows::new()];
    for (at, batch) in log.iter().enumerate() {
        let due = Revision(at as u64 + 2);
        if batch.revision != due {
            return Err(format!("the log has revision {} where {due} is due", batch.revision));
        }
        let mut rows = states.last().expect("never empty").clone();
        for event in &batch.events {
            match event.kind {
                EventKind::Put => rows.insert(event.kv.key.clone(), event.kv.clone()),
                EventKind::Delete => rows.remove(&event.kv.key),
            };
        }
        states.push(rows);
    }
    Ok(states)
}

fn state(states: &[Rows], at: Revision) -> Result<&Rows, String> {
    states.get(at.0 as usize).ok_or_else(|| format!("revision {at} is not in the log"))
}

fn modified(rows: &Rows, key: &Key) -> Revision {
    rows.get(key).map_or(Revision::ZERO, |kv| kv.mod_revision)
}

fn agrees(op: &Op, log: &[Batch], states: &[Rows]) -> Result<(), String> {
    match &op.heard {
        Heard::Refused | Heard::Unknown => Ok(()),
        Heard::Wrote(at) => {
            let before = state(states, at.before())?;
            let batch = log.get(at.0 as usize - 2).ok_or_else(|| "an acknowledged write is lost".to_owned())?;
            if !made(&op.call, batch) {
                return Err(format!("revision {at} is another change: {batch:?}"));
            }
            holds(&op.call, before).then_some(()).ok_or_else(|| "its comparison did not hold".to_owned())
        }
        Heard::Held(at) => {
            let rows = state(states, *at)?;
            let nothing = match &op.call {
                Call::Delete { key } => !rows.contains_key(key),
                Call::Swap { .. } | Call::Both { .. } => !holds(&op.call, rows),
                Call::Put { .. } | Call::Get { .. } | Call::All | Call::Stale { .. } => false,
            };
            nothing.then_some(()).ok_or_else(|| format!("it would have changed something at {at}"))
        }
        Heard::Read(at, found) => {
            let rows = state(states, *at)?;
            let expected: Vec<KeyValue> = match &op.call {
                Call::Get { key } | Call::Stale { key } => rows.get(key).into_iter().cloned().collect(),
                _ => rows.values().filter(|kv| kv.key.starts_with(PREFIX.as_bytes())).cloned().collect(),
            };
            if *found == expected { Ok(()) } else { Err(format!("at {at} there was {expected:?}")) }
        }
    }
}

fn holds(call: &Call, before: &Rows) -> bool {
    match call {
        Call::Swap { key, expected, .. } => modified(before, key) == *expected,
        Call::Both { keys, expected, .. } => keys.iter().zip(expected).all(|(key, at)| modified(before, key) == *at),
        Call::Delete { key } => before.contains_key(key),
        Call::Put { .. } | Call::Get { .. } | Call::All | Call::Stale { .. } => true,
    }
}

/// Whether the call makes exactly these events.
fn made(call: &Call, batch: &Batch) -> bool {
    let puts: Vec<(&Key, &Bytes)> = match call {
        Call::Put { key, value } | Call::Swap { key, value, .. } => vec![(key, value)],
        Call::Both { keys, value, .. } => keys.iter().map(|key| (key, value)).collect(),
        Call::Delete { key } => {
            return matches!(&batch.events[..], [event] if event.kind == EventKind::Delete && event.kv.key == key);
        }
        Call::Get { .. } | Call::All | Call::Stale { .. } => return false,
    };
    let seen: Vec<_> = batch.events.iter().map(|event| (&event.kv.key, &event.kv.value)).collect();
    batch.events.iter().all(|event| event.kind == EventKind::Put) && seen == puts
}

/// Every change in the log is somebody's call, once, and nobody's that was refused.
fn appeared(ops: &[Op], log: &[Batch]) -> Result<(), String> {
    let mut by_value: HashMap<&Bytes, &Op> = HashMap::new();
    for op in ops {
        if let Call::Put { value, .. } | Call::Swap { value, .. } | Call::Both { value, .. } = &op.call {
            by_value.insert(value, op);
        }
    }
    let mut seen = HashSet::new();
    for batch in log {
        let ours =
            |event: &&crate::WatchEvent| event.kind == EventKind::Put && event.kv.key.starts_with(PREFIX.as_bytes());
        let Some(put) = batch.events.iter().find(ours) else { continue };
        let op = by_value.get(&put.kv.value).ok_or_else(|| format!("nobody asked for {batch:?}"))?;
        if !made(&op.call, batch) {
            return Err(format!("half of a change: {batch:?} of {op:?}"));
        }
        if !seen.insert(&put.kv.value) {
            return Err(format!("happened twice: {op:?}"));
        }
        match op.heard {
            Heard::Wrote(at) if at == batch.revision => {}
            Heard::Unknown => {}
            _ => return Err(format!("was answered otherwise but is at {}: {op:?}", batch.revision)),
        }
    }
    Ok(())
}

/// What was answered before something else was called comes before it in the order of revisions.
fn real_time(ops: &[Op]) -> Result<(), String> {
    let point = |op: &Op| match &op.heard {
        Heard::Wrote(at) | Heard::Held(at) => Some(*at),
        Heard::Read(at, _) if !matches!(op.call, Call::Stale { .. }) => Some(*at),
        Heard::Read(..) | Heard::Refused | Heard::Unknown => None,
    };
    let mut calls: Vec<&Op> = ops.iter().filter(|op| point(op).is_some()).collect();
    let mut answers = calls.clone();
    calls.sort_by_key(|op| op.called);
    answers.sort_by_key(|op| op.heard_at);
    let mut answers = answers.into_iter().peekable();
    let mut newest: Option<(&Op, Revision)> = None;
    for op in calls {
        while let Some(done) = answers.next_if(|done| done.heard_at < op.called) {
            let at = point(done).expect("filtered");
            if newest.is_none_or(|(_, newest)| at > newest) {
                newest = Some((done, at));
            }
        }
        let (Some((earlier, at)), Some(here)) = (newest, point(op)) else { continue };
        let wrote = matches!(op.heard, Heard::Wrote(_));
        if here < at || (wrote && here == at) {
            return Err(format!("stale: {op:?} was called after the answer to {earlier:?}"));
        }
    }
    Ok(())
}

/// What one call did to one key; no bytes for a key that is not there.
#[derive(Clone, Debug)]
enum Act {
    Wrote(Option<Bytes>),
    Found(Option<Bytes>),
}

#[derive(Clone, Debug)]
struct Step {
    called: u64,
    heard_at: u64,
    act: Act,
}

/// Searches at most this many states of one key before giving up on the search.
const STATES_MAX: usize = 2_000_000;

/// Judges by values alone, without a word about revisions. Answers of how many keys it could not tell, because there are
/// too many orders to try.
pub fn by_values(ops: &[Op]) -> Result<usize, String> {
    let mut keys: BTreeMap<Key, Vec<Step>> = BTreeMap::new();
    for op in ops {
        let mut add = |key: &Key, act| {
            let step = Step { called: op.called, heard_at: op.heard_at, act };
            keys.entry(key.clone()).or_default().push(step);
        };
        match (&op.call, &op.heard) {
            (Call::Get { key }, Heard::Read(_, found)) => {
                add(key, Act::Found(found.first().map(|kv| kv.value.clone())));
            }
            (Call::Put { key, value } | Call::Swap { key, value, .. }, Heard::Wrote(_) | Heard::Unknown) => {
                add(key, Act::Wrote(Some(value.clone())));
            }
            (Call::Both { keys: two, value, .. }, Heard::Wrote(_) | Heard::Unknown) => {
                for key in two {
                    add(key, Act::Wrote(Some(value.clone())));
                }
            }
            (Call::Delete { key }, Heard::Wrote(_) | Heard::Unknown) => add(key, Act::Wrote(None)),
            (Call::Delete { key }, Heard::Held(_)) => add(key, Act::Found(None)),
            // Refused, or about more than one key's value, or allowed to be old.
            _ => {}
        }
    }
    let mut undecided = 0;
    for (key, steps) in keys {
        let told = register(steps).map_err(|why| format!("key {key:?}: {why}"))?;
        undecided += usize::from(!told);
    }
    Ok(undecided)
}

/// Whether a register could have done these steps. Those with an unknown outcome may be left out. `Ok(false)`: unknown.
fn register(mut steps: Vec<Step>) -> Result<bool, String> {
    // One that perhaps was, and that nobody saw, explains nothing.
    let found: HashSet<Option<Bytes>> = steps
        .iter()
        .filter_map(|step| match &step.act {
            Act::Found(value) => Some(value.clone()),
            Act::Wrote(_) => None,
        })
        .collect();
    steps.retain(|step| match &step.act {
        Act::Wrote(value) => step.heard_at != u64::MAX || found.contains(value),
        Act::Found(_) => true,
    });
    steps.sort_by_key(|step| step.called);
    let mut seen: HashSet<(Vec<u64>, Option<Bytes>)> = HashSet::new();
    let words = steps.len().div_ceil(64);
    let mut stack = vec![(vec![0u64; words], None::<Bytes>)];
    let must = steps.iter().filter(|step| step.heard_at != u64::MAX).count();
    let mut furthest = 0;
    while let Some((done, value)) = stack.pop() {
        let is_done = |at: usize| done[at / 64] >> (at % 64) & 1 == 1;
        let finished = steps.iter().enumerate().filter(|(at, step)| step.heard_at != u64::MAX && is_done(*at)).count();
        if finished == must {
            return Ok(true);
        }
        furthest = furthest.max(finished);
        // Nothing may go before a step that was answered before it was called.
        let bound = steps.iter().enumerate().filter(|(at, _)| !is_done(*at)).map(|(_, step)| step.heard_at).min();
        let bound = bound.unwrap_or(u64::MAX);
        for (at, step) in steps.iter().enumerate() {
            if step.called > bound {
                break;
            }
            if is_done(at) {
                continue;
            }
            let left = match &step.act {
                Act::Found(found) if *found != value => continue,
                Act::Found(found) | Act::Wrote(found) => found.clone(),
            };
            let mut next = done.clone();
            next[at / 64] |= 1 << (at % 64);
            let state = (next, left);
            if seen.insert(state.clone()) {
                stack.push(state);
            }
        }
        if seen.len() > STATES_MAX {
            return Ok(false);
        }
    }
    Err(format!("no order explains more than {furthest} of {must} answers: {steps:?}"))
}

#[cfg(test)]
mod tests {
    use crate::WatchEvent;

    use super::*;

    fn put(key: &'static str, value: &'static str, called: u64, heard_at: u64, heard: Heard) -> Op {
        Op { client: 0, call: Call::Put { key: key.into(), value: value.into() }, called, heard_at, heard }
    }

    fn kv(value: &'static str, create: u64, at: u64) -> KeyValue {
        KeyValue {
            key: "r/k".into(),
            value: value.into(),
            create_revision: Revision(create),
            mod_revision: Revision(at),
            version: at - create + 1,
            lease: None,
        }
    }

    fn log(values: &[&'static str]) -> Vec<Batch> {
        let batch = |(nth, value): (usize, &&'static str)| {
            let at = nth as u64 + 2;
            let event = WatchEvent { kind: EventKind::Put, kv: kv(value, 2, at), previous: None };
            Batch { revision: Revision(at), events: vec![event] }
        };
        values.iter().enumerate().map(batch).collect()
    }

    fn get(called: u64, at: u64, found: Option<KeyValue>) -> Op {
        let heard = Heard::Read(Revision(at), found.into_iter().collect());
        Op { client: 1, call: Call::Get { key: "r/k".into() }, called, heard_at: called + 1, heard }
    }

    #[test]
    fn an_honest_history_passes() {
        let ops = [
            put("r/k", "a", 0, 3, Heard::Wrote(Revision(2))),
            get(1, 1, None),
            put("r/k", "b", 4, u64::MAX, Heard::Unknown),
            get(5, 3, Some(kv("b", 2, 3))),
            put("r/k", "c", 7, 8, Heard::Refused),
        ];
        by_log(&ops, &log(&["a", "b"])).unwrap();
        by_values(&ops).unwrap();
    }

    #[test]
    fn a_lost_write_a_stale_read_and_a_zombie_are_found() {
        let acknowledged = put("r/k", "a", 0, 1, Heard::Wrote(Revision(2)));
        assert!(by_log(std::slice::from_ref(&acknowledged), &[]).unwrap_err().contains("lost"));
        let stale = get(2, 1, None);
        assert!(by_log(&[acknowledged.clone(), stale.clone()], &log(&["a"])).unwrap_err().contains("stale"));
        assert!(by_values(&[acknowledged.clone(), stale]).is_err());
        let refused = put("r/k", "b", 2, 3, Heard::Refused);
        assert!(by_log(&[acknowledged.clone(), refused], &log(&["a", "b"])).unwrap_err().contains("otherwise"));
        assert!(by_log(std::slice::from_ref(&acknowledged), &log(&["a", "a"])).unwrap_err().contains("twice"));
        let mut gap = log(&["a", "b", "c"]);
        gap.remove(1);
        assert!(by_log(&[acknowledged], &gap).unwrap_err().contains("due"));
    }

    #[test]
    fn a_comparison_decided_wrongly_is_found() {
        let swap = |heard| Op {
            client: 0,
            call: Call::Swap { key: "r/k".into(), expected: Revision(2), value: "c".into() },
            called: 4,
            heard_at: 5,
            heard,
        };
        let a = put("r/k", "a", 0, 1, Heard::Wrote(Revision(2)));
        let b = put("r/k", "b", 2, 3, Heard::Wrote(Revision(3)));
        let all = log(&["a", "b", "c"]);
        assert!(by_log(&[a.clone(), b.clone(), swap(Heard::Wrote(Revision(4)))], &all).unwrap_err().contains("hold"));
        assert!(by_log(&[a.clone(), swap(Heard::Held(Revision(2)))], &log(&["a"])).is_err());
        by_log(&[a, b, swap(Heard::Held(Revision(3)))], &log(&["a", "b"])).unwrap();
    }

    #[test]
    fn values_that_go_back_are_found_without_revisions() {
        let a = put("r/k", "a", 0, 1, Heard::Wrote(Revision(2)));
        let b = put("r/k", "b", 2, 20, Heard::Unknown);
        let sees = |called, value| get(called, 9, Some(kv(value, 2, 2)));
        by_values(&[a.clone(), b.clone(), sees(3, "a"), sees(5, "b")]).unwrap();
        assert!(by_values(&[a, b, sees(3, "b"), sees(5, "a")]).is_err());
    }
}
