//! THE loop. Woken by a watch and by a timer, told nothing about what changed.
//!
//! ```text
//!            change of a row          timer            nudge from an engine
//!                  |                    |                      |
//!                  +------ wakes ids ---+----------------------+
//!                                       v
//!        one turn per row at a time, TURNS_MAX at once over all rows
//!        observe -> plan (pure) -> report -> act, step by step -> observe ...
//!                                       |
//!                     a fault: reported with its reason, and again after a growing pause
//!                     the store is away: no turn begins until it answers, and then every row has one
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use model::{Error, Id, Reason, Row};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore, broadcast};

use crate::command::{Door, Origin, Verb};
use crate::kind::Kind;
use crate::rows::{self, Changed, Rows, Table};

/// Turns that run at once in one loop.
pub const TURNS_MAX: usize = 32;
/// Every row in charge has a turn at least this often, whatever was or was not noticed.
pub const PASS_SECONDS: u64 = 30;
/// Rounds of observe, plan and act in one turn before the row waits for the next.
const ROUNDS_MAX: usize = 16;
/// The pause after a fault: doubles from the first to the last.
const PAUSE_MS_FIRST: u64 = 200;
const PAUSE_MS_LAST: u64 = 30_000;

/// What a turn may look at and act through.
#[derive(Clone, Debug)]
pub struct Turn {
    pub row: Arc<Row>,
    pub table: Arc<Table>,
    pub door: Door,
    pub rows: Rows,
    /// The newest revision that this turn's own commands made.
    made: Arc<AtomicU64>,
    /// The generation of the wish that the newest plan was made for: a turn may change its own row's wish and go on.
    planned: Arc<AtomicU64>,
    /// The loop's name, for the log of who acted.
    pub actor: String,
    /// The node this loop runs on, for loops on nodes.
    pub node: Option<Id>,
}

impl Turn {
    pub fn now_ms(&self) -> u64 {
        self.door.clock().now_ms()
    }

    /// Submits a follow-up on this row.
    pub async fn submit(&self, verb: Verb) -> Result<Row, Error> {
        let origin = Origin::following(&self.row, &self.actor);
        let receipt = self.door.one(origin, verb).await?;
        self.made.fetch_max(receipt.sequence, Ordering::Relaxed);
        Ok(receipt.row())
    }

    /// The same turn with row and table as they are after its own commands; `None` when the row is gone. Without
    /// this a plan would not see the rows it has just made, and make them again.
    async fn refreshed(&self) -> Option<Turn> {
        self.rows.reach(self.made.load(Ordering::Relaxed)).await;
        let table = self.rows.table();
        let row = table.get(&self.row.id)?.clone();
        Some(Turn { row, table, ..self.clone() })
    }
}

/// When the row wants its next turn, besides being woken by changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing more to do. A row that is to go is gone with this.
    Done,
    /// Something else has to change first.
    Wait,
    /// After so many milliseconds.
    After(u64),
}

/// What a turn found.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub phase: String,
    pub reason: Option<Reason>,
    pub status: Value,
    pub next: Next,
}

impl Report {
    pub fn ready() -> Self {
        Self { phase: "ready".to_owned(), reason: None, status: Value::Null, next: Next::Done }
    }
}

/// What a plan decided: the steps to take now, in order, and what to say meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<S> {
    pub steps: Vec<S>,
    pub report: Report,
}

/// A kind's machinery, split so that the decision is pure.
#[async_trait]
pub trait Machine: Sync {
    type Seen: Send;
    type Step: Send + std::fmt::Debug;

    /// Looks at the world; changes nothing.
    async fn observe(&self, turn: &Turn) -> Result<Self::Seen, Error>;

    /// Decides. Pure: the same arguments give the same plan.
    fn plan(&self, row: &Row, table: &Table, seen: &Self::Seen, now_ms: u64) -> Plan<Self::Step>;

    /// The only side effects.
    async fn act(&self, turn: &Turn, step: Self::Step) -> Result<(), Error>;
}

/// Takes one turn with a machine: observe, plan, act, until a plan has no steps.
pub async fn drive<M: Machine>(machine: &M, turn: &Turn) -> Result<Report, Error> {
    let mut turn = turn.clone();
    let mut last = None;
    for _ in 0..ROUNDS_MAX {
        let seen = machine.observe(&turn).await?;
        turn.planned.store(turn.row.generation, Ordering::Relaxed);
        let plan = machine.plan(&turn.row, &turn.table, &seen, turn.now_ms());
        if plan.steps.is_empty() {
            return Ok(plan.report);
        }
        // A fault that is being tried again stays on record until it is mended: "trying" would hide it each time.
        let faulty = turn.row.current() && turn.row.reason.as_ref().is_some_and(|reason| !reason.transient);
        if !faulty {
            publish(&turn, &plan.report).await?;
        }
        for step in plan.steps {
            tracing::debug!(row = %turn.row.id, name = turn.row.name, ?step, "act");
            machine.act(&turn, step).await?;
        }
        last = Some(plan.report);
        let Some(next) = turn.refreshed().await else { break };
        turn = next;
    }
    let mut report = last.unwrap_or_else(Report::ready);
    // Not an error: a long rollout may have more to do than one turn is given.
    report.next = Next::After(PAUSE_MS_FIRST);
    Ok(report)
}

/// Writes a report when it says something new; a quiet row writes nothing.
async fn publish(turn: &Turn, report: &Report) -> Result<(), Error> {
    let row = &turn.row;
    let same_reason = match (&row.reason, &report.reason) {
        (None, None) => true,
        (Some(before), Some(now)) => before.same(now),
        _ => false,
    };
    // After a report of this very turn the row in hand is old news; the door compares with the present one.
    let untouched = turn.made.load(Ordering::Relaxed) == 0;
    if untouched && row.current() && row.phase == report.phase && same_reason && row.status == report.status {
        return Ok(());
    }
    let verb = Verb::Observe {
        id: row.id.clone(),
        generation: turn.planned.load(Ordering::Relaxed),
        phase: report.phase.clone(),
        reason: report.reason.clone(),
        status: report.status.clone(),
    };
    match turn.submit(verb).await {
        Ok(_) => Ok(()),
        // The row went away under the turn: there is nothing left to report on.
        Err(error) if error.code == model::Code::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Decides whether a loop is in charge of a row.
pub type Charge = Arc<dyn Fn(&dyn Kind, &Row) -> bool + Send + Sync>;

/// One loop over the rows it is in charge of. Clones share it.
#[derive(Clone)]
pub struct Loop {
    inner: Arc<Inner>,
}

struct Inner {
    door: Door,
    rows: Rows,
    actor: String,
    node: Option<Id>,
    charge: Charge,
    state: Mutex<State>,
    work: Notify,
    permits: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    dirty: BTreeSet<Id>,
    running: BTreeSet<Id>,
    /// When rows asked for a turn, by monotonic milliseconds.
    timers: BTreeMap<Id, u64>,
    faults: BTreeMap<Id, Faults>,
}

/// What a row's turns ran into lately. Its own report of a fault must not wake it before the pause is over; a new wish
/// does.
#[derive(Clone, Copy, Default)]
struct Faults {
    count: u32,
    /// By monotonic milliseconds.
    paused_until: u64,
    generation: u64,
    deleting: bool,
}

impl Faults {
    fn hold(&self, row: &Row, now: u64) -> bool {
        now < self.paused_until && self.generation == row.generation && self.deleting == row.deleting()
    }
}

impl Loop {
    /// `actor` names the loop in the log. `charge` picks its rows.
    pub fn new(door: Door, rows: Rows, actor: &str, node: Option<Id>, charge: Charge) -> Self {
        let inner = Inner {
            door,
            rows,
            actor: actor.to_owned(),
            node,
            charge,
            state: Mutex::default(),
            work: Notify::new(),
            permits: Arc::new(Semaphore::new(TURNS_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Asks for a turn of the row soon.
    pub fn wake(&self, id: &Id) {
        self.inner.state.lock().dirty.insert(id.clone());
        self.inner.work.notify_one();
    }

    /// Runs until the future is dropped or the view of rows ends.
    pub async fn run(self, mut changes: broadcast::Receiver<Changed>) {
        self.wake_all();
        let mut pass = tokio::time::interval(Duration::from_secs(PASS_SECONDS));
        pass.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        pass.tick().await;
        let mut outage = self.inner.rows.outage().follow();
        loop {
            // The branch without a store has no turns: they would do what they cannot write down.
            let away = outage.borrow_and_update().is_some();
            if !away {
                self.start_turns();
            }
            let timer = if away { Duration::from_secs(PASS_SECONDS) } else { self.next_timer() };
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(change) => self.noticed(&change),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                () = self.inner.work.notified() => {}
                () = tokio::time::sleep(timer) => self.fire_timers(),
                _ = pass.tick() => self.wake_all(),
                Ok(()) = outage.changed() => if outage.borrow().is_none() { self.wake_all() },
            }
        }
    }

    fn in_charge(&self, row: &Row) -> bool {
        let kind = self.inner.door.registry().get(&row.kind);
        kind.is_some_and(|kind| (self.inner.charge)(&**kind, row))
    }

    fn wake_all(&self) {
        let table = self.inner.rows.table();
        let mut state = self.inner.state.lock();
        state.dirty.extend(table.iter().filter(|row| self.in_charge(row)).map(|row| row.id.clone()));
    }

    /// Wakes the row that changed, its owner, the rows beside it, the row that names its scope, and what lives
    /// directly below: the rows that a plan may have looked at.
    fn noticed(&self, change: &Changed) {
        let Some(row) = change.after.as_ref().or(change.before.as_ref()) else { return };
        let table = self.inner.rows.table();
        let opens = self.inner.door.registry().get(&row.kind).is_some_and(|kind| kind.contract().opens.is_some());
        let inner = opens.then(|| row.inner_scope());
        let near = |other: &Row| {
            other.scope == row.scope
                || row.owner.as_ref() == Some(&other.id)
                || row.scope.last() == Some(&other.id)
                || inner.as_ref() == Some(&other.scope)
        };
        let mut state = self.inner.state.lock();
        for other in table.iter().filter(|other| near(other) && self.in_charge(other)) {
            state.dirty.insert(other.id.clone());
        }
        if change.after.is_none() {
            state.timers.remove(&row.id);
            state.faults.remove(&row.id);
            drop(state);
            if let Some(kind) = self.inner.door.registry().get(&row.kind) {
                kind.forget(&row.id);
            }
        }
    }

    fn next_timer(&self) -> Duration {
        let now = self.inner.door.clock().monotonic().as_millis() as u64;
        let first = self.inner.state.lock().timers.values().copied().min();
        let wait = first.map_or(PASS_SECONDS * 1000, |at| at.saturating_sub(now));
        Duration::from_millis(wait.min(PASS_SECONDS * 1000))
    }

    fn fire_timers(&self) {
        let now = self.inner.door.clock().monotonic().as_millis() as u64;
        let mut state = self.inner.state.lock();
        let due: Vec<Id> = state.timers.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            state.timers.remove(&id);
            state.dirty.insert(id);
        }
    }

    fn start_turns(&self) {
        let table = self.inner.rows.table();
        let now = self.inner.door.clock().monotonic().as_millis() as u64;
        let mut state = self.inner.state.lock();
        let ready: Vec<Id> = state.dirty.iter().filter(|id| !state.running.contains(*id)).cloned().collect();
        for id in ready {
            let Ok(permit) = self.inner.permits.clone().try_acquire_owned() else { return };
            state.dirty.remove(&id);
            let Some(row) = table.get(&id).filter(|row| self.in_charge(row)).cloned() else { continue };
            if let Some(faults) = state.faults.get(&id).filter(|faults| faults.hold(&row, now)).copied() {
                state.timers.insert(id, faults.paused_until);
                continue;
            }
            state.running.insert(id);
            let this = self.clone();
            tokio::spawn(async move {
                this.turn(row).await;
                drop(permit);
                this.inner.work.notify_one();
            });
        }
    }

    async fn turn(&self, row: Arc<Row>) {
        let inner = &self.inner;
        let id = row.id.clone();
        let turn = Turn {
            row: row.clone(),
            table: inner.rows.table(),
            door: inner.door.clone(),
            rows: inner.rows.clone(),
            made: Arc::default(),
            planned: Arc::new(AtomicU64::new(row.generation)),
            actor: inner.actor.clone(),
            node: inner.node.clone(),
        };
        let kind = inner.door.registry().get(&row.kind).expect("a row in charge has its kind").clone();
        // A panic in one kind's turn is that row's fault; the other rows go on.
        let taken = tokio::spawn({
            let turn = turn.clone();
            async move {
                let report = kind.turn(&turn).await?;
                settle(&turn, report).await
            }
        });
        let outcome = match taken.await {
            Ok(outcome) => outcome,
            Err(panic) => Err(Error::internal(format!("a turn of {} failed: {panic}", row.kind)).reason("turn_failed")),
        };
        let next = match outcome {
            Ok(next) => {
                inner.state.lock().faults.remove(&id);
                next
            }
            Err(error) => self.fault(&turn, &error).await,
        };
        // The next turn of this row sees what this one made.
        inner.rows.reach(turn.made.load(Ordering::Relaxed)).await;
        let now = inner.door.clock().monotonic().as_millis() as u64;
        let mut state = inner.state.lock();
        state.running.remove(&id);
        match next {
            Next::After(ms) => state.timers.insert(id, now + ms),
            Next::Done | Next::Wait => state.timers.remove(&id),
        };
    }

    async fn fault(&self, turn: &Turn, error: &Error) -> Next {
        let row = &turn.row;
        let now = self.inner.door.clock().monotonic().as_millis() as u64;
        let (count, pause) = {
            let mut state = self.inner.state.lock();
            let faults = state.faults.entry(row.id.clone()).or_default();
            let count = faults.count + 1;
            let pause = (PAUSE_MS_FIRST << count.min(10)).min(PAUSE_MS_LAST);
            *faults = Faults { count, paused_until: now + pause, generation: row.generation, deleting: row.deleting() };
            (count, pause)
        };
        if error.reason.as_deref() == Some(rows::STORE_UNAVAILABLE) {
            // Not the row's fault, and there is nowhere to write it.
            tracing::debug!(row = %row.id, name = row.name, why = error.why, count, "a turn was not answered by the store");
            self.inner.rows.outage().suspect();
            return Next::After(pause);
        }
        // A row that was read before someone else changed it is simply read again.
        let raced = matches!(error.code, model::Code::VersionConflict | model::Code::NotFound) && count == 1;
        if !raced {
            tracing::warn!(row = %row.id, name = row.name, %error, why = error.why, count, "a turn ended in a fault");
            if let Err(error) = self.report_fault(turn, error).await {
                tracing::warn!(row = %row.id, %error, "a fault could not be reported");
            }
        }
        Next::After(pause)
    }

    /// Adds the fault to the row as it is now: the turn may have reported before it failed.
    async fn report_fault(&self, turn: &Turn, error: &Error) -> Result<(), Error> {
        let Some(row) = self.inner.door.get(&turn.row.id).await? else { return Ok(()) };
        let verb = Verb::Observe {
            id: row.id.clone(),
            generation: turn.row.generation,
            phase: row.phase,
            reason: Some(error.as_reason()),
            status: row.status,
        };
        turn.submit(verb).await.map(drop)
    }
}

/// Writes down what a turn found; removes the row when it was to go and nothing is left.
async fn settle(turn: &Turn, report: Report) -> Result<Next, Error> {
    if turn.row.deleting() && report.next == Next::Done {
        return match turn.submit(Verb::Remove { id: turn.row.id.clone() }).await {
            Ok(_) => Ok(Next::Done),
            Err(error) if error.code == model::Code::NotFound => Ok(Next::Done),
            Err(error) => Err(error),
        };
    }
    publish(turn, &report).await?;
    Ok(report.next)
}
