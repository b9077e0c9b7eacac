//! A kind whose world is a number: it is ready once the world shows what the spec says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use model::{Code, Error, Id, Level, Reason, Row, Scope};
use parking_lot::Mutex;
use reconcile::kind::{Place, read};
use reconcile::rows::Changed;
use reconcile::{
    Admission, Admitted, Contract, Door, Kind, Loop, Machine, Next, Origin, Plan, Registry, Report, Rows, Table, Turn,
    Verb, Wish,
};
use schemars::{JsonSchema, schema_for};
use serde::{Deserialize, Serialize};
use store::Store;
use tokio::sync::broadcast;
use world::Clock;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub wanted: i64,
}

/// What the toys of one cloud act on.
#[derive(Debug, Default)]
pub struct World {
    pub shown: Mutex<BTreeMap<Id, i64>>,
    pub turns: AtomicUsize,
    pub acts: AtomicUsize,
    /// Acts fail while this is set.
    pub broken: Mutex<bool>,
    /// Turns panic while this is set.
    pub cursed: Mutex<bool>,
}

#[derive(Debug)]
pub struct Toy(pub Arc<World>);

static CONTRACT: Contract = Contract {
    name: "toy",
    plural: "toys",
    prefix: "toy",
    about: "A number.",
    levels: &[Level::Cloud],
    opens: None,
    place: Place::Control,
    create: true,
    set: true,
    delete: true,
    spec: || schema_for!(Spec),
    status: || schema_for!(()),
    phases: &["pending", "ready"],
    columns: &[],
    streams: &[],
    example: || serde_json::json!({ "wanted": 1 }),
};

#[async_trait]
impl Kind for Toy {
    fn contract(&self) -> &Contract {
        &CONTRACT
    }

    async fn admit(&self, _cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
        let spec: Spec = read("spec", &wish.spec)?;
        Ok(Admitted { claims: vec![format!("host/toy/{}", spec.wanted)], ..Admitted::spec(&spec)? })
    }

    async fn turn(&self, turn: &Turn) -> Result<Report, Error> {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
        assert!(!*self.0.cursed.lock(), "cursed");
        reconcile::turn::drive(self, turn).await
    }
}

#[derive(Debug)]
pub enum Step {
    Show(i64),
    Hide,
}

#[async_trait]
impl Machine for Toy {
    type Seen = Option<i64>;
    type Step = Step;

    async fn observe(&self, turn: &Turn) -> Result<Option<i64>, Error> {
        Ok(self.0.shown.lock().get(&turn.row.id).copied())
    }

    fn plan(&self, row: &Row, _table: &Table, seen: &Option<i64>, _now_ms: u64) -> Plan<Step> {
        let wanted = row.spec["wanted"].as_i64().unwrap_or_default();
        let steps = match (row.deleting(), seen) {
            (true, Some(_)) => vec![Step::Hide],
            (true, None) => vec![],
            (false, Some(shown)) if *shown == wanted => vec![],
            (false, _) => vec![Step::Show(wanted)],
        };
        if steps.is_empty() {
            return Plan { steps, report: Report::ready() };
        }
        let reason = Some(Reason::waiting("showing", "the number is being shown"));
        let report = Report { phase: "pending".into(), reason, status: serde_json::Value::Null, next: Next::Wait };
        Plan { steps, report }
    }

    async fn act(&self, turn: &Turn, step: Step) -> Result<(), Error> {
        self.0.acts.fetch_add(1, Ordering::Relaxed);
        if *self.0.broken.lock() {
            return Err(Error::new(Code::Failed, "the world is broken").reason("world_broken").hint("mend it"));
        }
        let mut shown = self.0.shown.lock();
        match step {
            Step::Show(number) => shown.insert(turn.row.id.clone(), number),
            Step::Hide => shown.remove(&turn.row.id),
        };
        Ok(())
    }
}

pub struct Cloud {
    pub store: Arc<dyn Store>,
    pub door: Door,
    pub rows: Rows,
    pub changes: broadcast::Sender<Changed>,
    pub world: Arc<World>,
}

impl Cloud {
    pub async fn new() -> Self {
        Self::on(Arc::new(store::memory::Memory::new())).await
    }

    pub async fn on(store: Arc<dyn Store>) -> Self {
        let world = Arc::new(World::default());
        let registry = Registry::new(vec![Arc::new(Toy(world.clone()))]);
        let door = Door::new(store.clone(), registry, Clock::real());
        let (rows, changes) = Rows::follow(store.clone()).await.unwrap();
        Self { store, door, rows, changes, world }
    }

    pub fn start(&self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(self.turns().run(self.changes.subscribe()))
    }

    pub fn turns(&self) -> Loop {
        Loop::new(self.door.clone(), self.rows.clone(), "test", None, Arc::new(|_: &dyn Kind, _: &Row| true))
    }

    pub fn create(name: &str, wanted: i64) -> Verb {
        Verb::Create {
            kind: "toy".into(),
            scope: Scope::CLOUD,
            name: name.into(),
            spec: serde_json::json!({ "wanted": wanted }),
            owner: None,
        }
    }

    pub fn origin(key: Option<&str>) -> Origin {
        Origin { idempotency_key: key.map(str::to_owned), ..Origin::system("test") }
    }

    pub async fn made(&self, name: &str, wanted: i64) -> Row {
        self.door.one(Self::origin(None), Self::create(name, wanted)).await.unwrap().row()
    }

    /// Waits until the row is as `right` says.
    pub async fn until(&self, id: &Id, right: impl Fn(Option<&Row>) -> bool) -> Option<Row> {
        for _ in 0..2_000 {
            let row = self.door.get(id).await.unwrap();
            if right(row.as_ref()) {
                return row;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("not within 20 s: {:?}", self.door.get(id).await.unwrap());
    }

    pub async fn revision(&self) -> u64 {
        self.store.status().await.unwrap().revision.0
    }
}
