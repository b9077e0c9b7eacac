//! The life of one cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use chainfire::member::{Member, OpenError, Options, Place, Simulated as Disks};
use parking_lot::Mutex;
use store::conformance::linear::{
    Client, Dice, Heard, History, LeaseWatch, by_log, by_values, follow, told_rightly, whole_log,
};
use store::{Batch, Store};
use tokio::task::JoinSet;
use tokio::time::sleep;
use turmoil::Sim;

use crate::faults;
use crate::network::Simulated as Net;

/// Virtual time in which things go wrong.
const LIFE: Duration = Duration::from_secs(25);
/// Virtual time in which all has to be well again.
const AFTERMATH: Duration = Duration::from_mins(2);
const TICK: Duration = Duration::from_millis(2);
const CLIENTS: usize = 2;
/// Calls of one client between two crashes of its host.
const CALLS: usize = 400;
const PAUSE: Duration = Duration::from_millis(40);
/// Between the begin of two faults at most.
const CALM_MS: u64 = 1500;
const LEASES: usize = 3;

#[derive(Clone, Copy)]
pub struct Shape {
    pub members: usize,
    /// Entries between two snapshots: few, so that members who were away get one.
    pub snapshot_entries: u64,
    /// Syncs do nothing.
    pub lying: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { members: 3, snapshot_entries: 60, lying: false }
    }
}

#[derive(Default, Debug)]
pub struct Seen {
    pub calls: usize,
    pub wrote: u64,
    pub read: u64,
    pub unknown: usize,
    pub revisions: usize,
    pub crashes: u64,
    pub partitions: u64,
    pub disks: u64,
    pub leases: u64,
    /// Keys with too many orders to try; the log has told of them, too.
    pub undecided: usize,
}

impl Seen {
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.wrote += other.wrote;
        self.read += other.read;
        self.unknown += other.unknown;
        self.revisions += other.revisions;
        self.crashes += other.crashes;
        self.partitions += other.partitions;
        self.disks += other.disks;
        self.leases += other.leases;
        self.undecided += other.undecided;
    }
}

/// What survives the crash of a host.
pub struct Host {
    pub name: String,
    pub place: Disks,
    pub runs: bool,
    common: Arc<Common>,
    number: usize,
}

impl Host {
    pub fn has_ended(&self) -> bool {
        self.common.ended[self.number].load(Ordering::Relaxed)
    }
}

/// What the hosts share with who looks at them.
struct Common {
    seed: u64,
    history: History,
    values: Arc<AtomicU64>,
    clients: AtomicUsize,
    stop: Arc<AtomicBool>,
    /// What a watcher on each host was told, over all its crashes.
    told: Vec<Arc<Mutex<Vec<Batch>>>>,
    /// Set by a host that has nothing more to do.
    logs: Vec<Mutex<Option<Vec<Batch>>>>,
    ended: Vec<AtomicBool>,
    complaints: Mutex<Vec<String>>,
    leases: AtomicU64,
}

fn name(n: usize) -> String {
    format!("m{n}")
}

fn url(n: usize) -> String {
    format!("http://{}:2380", name(n))
}

fn options(n: usize, shape: Shape, place: Disks) -> Options {
    Options {
        name: name(n),
        place: Place::Simulated(place),
        listen_peer_urls: vec![url(n)],
        advertise_peer_urls: vec![url(n)],
        initial_cluster: (0..shape.members).map(|n| (name(n), url(n))).collect(),
        snapshot_entries: shape.snapshot_entries,
        network: Arc::new(Net),
        ..Options::default()
    }
}

/// Ends when its member does.
async fn host(n: usize, shape: Shape, place: Disks, common: Arc<Common>) -> turmoil::Result {
    common.ended[n].store(false, Ordering::Relaxed);
    let member = match Member::open(options(n, shape, place)).await {
        Ok(member) => Arc::new(member),
        // The disk does not let it begin; who looks after it tries again.
        Err(OpenError::Store(store::Error::DiskFull | store::Error::Storage { .. })) => {
            common.ended[n].store(true, Ordering::Relaxed);
            return Ok(());
        }
        Err(error) => {
            common.complaints.lock().push(format!("{} does not open: {error}", name(n)));
            common.ended[n].store(true, Ordering::Relaxed);
            return Ok(());
        }
    };
    let store: Arc<dyn Store> = member.clone();
    let mut tasks = JoinSet::new();
    for _ in 0..CLIENTS {
        let number = common.clients.fetch_add(1, Ordering::Relaxed);
        let client = Client::new(number, store.clone(), common.history.clone(), common.values.clone(), common.seed);
        tasks.spawn(client.run(CALLS, PAUSE, common.stop.clone()));
    }
    tasks.spawn(leases(n, store.clone(), common.clone()));
    let following = tokio::spawn(follow(store.clone(), common.told[n].clone()));
    let working = async {
        while tasks.join_next().await.is_some() {}
        while !common.stop.load(Ordering::Relaxed) {
            sleep(PAUSE).await;
        }
        loop {
            if let Ok(log) = whole_log(&*store).await {
                break log;
            }
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        log = working => *common.logs[n].lock() = Some(log),
        _ = member.ended() => {}
    }
    if common.logs[n].lock().is_some() {
        // The others may still need it.
        member.ended().await;
    }
    following.abort();
    common.ended[n].store(true, Ordering::Relaxed);
    Ok(())
}

async fn leases(n: usize, store: Arc<dyn Store>, common: Arc<Common>) {
    let mut held: Vec<LeaseWatch> = Vec::new();
    let mut turn = 0;
    while !common.stop.load(Ordering::Relaxed) {
        turn += 1;
        if held.len() < LEASES
            && let Ok(lease) = LeaseWatch::grant(&*store, 2 + turn % 4, &format!("{n}/{turn}")).await
        {
            common.leases.fetch_add(1, Ordering::Relaxed);
            held.push(lease);
        }
        for (nth, lease) in held.iter_mut().enumerate() {
            if let Err(early) = lease.early(&*store).await {
                common.complaints.lock().push(early);
            }
            if (turn as usize + nth).is_multiple_of(3) {
                // What did not work counts as if it had not been tried.
                let _ = lease.keep_alive(&*store).await;
            }
        }
        held.retain(|lease| lease.alive.elapsed() < lease.ttl * 3);
        sleep(PAUSE * 5).await;
    }
}

fn common(seed: u64, members: usize) -> Common {
    Common {
        seed,
        history: History::default(),
        values: Arc::default(),
        clients: AtomicUsize::new(0),
        stop: Arc::default(),
        told: (0..members).map(|_| Arc::default()).collect(),
        logs: (0..members).map(|_| Mutex::default()).collect(),
        ended: (0..members).map(|_| AtomicBool::new(false)).collect(),
        complaints: Mutex::default(),
        leases: AtomicU64::new(0),
    }
}

fn step_until(sim: &mut Sim<'_>, until: Duration, done: impl Fn() -> bool) -> Result<bool, String> {
    while sim.elapsed() < until {
        if done() {
            return Ok(true);
        }
        sim.step().map_err(|error| error.to_string())?;
    }
    Ok(done())
}

/// One life. Why it was not as it has to be, otherwise.
pub fn life(seed: u64, shape: &Shape) -> Result<Seen, String> {
    let shape = *shape;
    let mut sim = turmoil::Builder::new()
        .simulation_duration(LIFE + AFTERMATH * 2)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(30))
        .tcp_capacity(4096)
        .rng_seed(seed)
        .build();
    let common = Arc::new(common(seed, shape.members));
    let mut hosts: Vec<Host> = (0..shape.members)
        .map(|number| Host { name: name(number), place: Disks::default(), runs: true, common: common.clone(), number })
        .collect();
    for (n, this) in hosts.iter().enumerate() {
        this.place.log.lie(shape.lying);
        let (place, common) = (this.place.clone(), common.clone());
        sim.host(this.name.as_str(), move || host(n, shape, place.clone(), common.clone()));
    }
    let (mut dice, mut seen) = (Dice::new(seed), Seen::default());
    while sim.elapsed() < LIFE {
        let calm = Duration::from_millis(100 + dice.below(CALM_MS));
        let until = sim.elapsed() + calm;
        step_until(&mut sim, until, || false)?;
        faults::strike(&mut sim, &mut hosts, &mut dice, &mut seen);
    }
    common.stop.store(true, Ordering::Relaxed);
    faults::end(&mut sim, &mut hosts);
    let all_told = || common.logs.iter().all(|log| log.lock().is_some());
    let until = sim.elapsed() + AFTERMATH;
    let mut well = false;
    while !well && sim.elapsed() < until {
        let soon = (sim.elapsed() + Duration::from_secs(2)).min(until);
        well = step_until(&mut sim, soon, all_told)?;
        // One that ended by itself when the disk came back too late.
        for host in &hosts {
            if host.has_ended() && common.logs[host.number].lock().is_none() {
                sim.crash(host.name.as_str());
                sim.bounce(host.name.as_str());
            }
        }
    }
    judge(&common, well, &mut seen)?;
    Ok(seen)
}

fn judge(common: &Common, well: bool, seen: &mut Seen) -> Result<(), String> {
    if let Some(complaint) = common.complaints.lock().first() {
        return Err(complaint.clone());
    }
    if !well {
        return Err("everything works, and still not everybody answers".to_owned());
    }
    let logs: Vec<Vec<Batch>> = common.logs.iter().filter_map(|log| log.lock().take()).collect();
    let longest = logs.iter().max_by_key(|log| log.len()).ok_or("nobody has a log")?;
    for (n, log) in logs.iter().enumerate() {
        if *log != longest[..log.len()] {
            return Err(format!("{} tells another history than the rest", name(n)));
        }
    }
    let ops = common.history.ops();
    by_log(&ops, longest)?;
    seen.undecided = by_values(&ops)?;
    // Leases still run out after the last log was told.
    let newest = longest.last().map(|batch| batch.revision);
    for told in &common.told {
        let told: Vec<Batch> = told.lock().iter().filter(|batch| Some(batch.revision) <= newest).cloned().collect();
        told_rightly(&told, longest)?;
    }
    let count = |wanted: fn(&Heard) -> bool| ops.iter().filter(|op| wanted(&op.heard)).count();
    seen.calls = ops.len();
    seen.wrote = count(|heard| matches!(heard, Heard::Wrote(_))) as u64;
    seen.read = count(|heard| matches!(heard, Heard::Read(..))) as u64;
    seen.unknown = count(|heard| matches!(heard, Heard::Unknown));
    seen.revisions = longest.len();
    seen.leases = common.leases.load(Ordering::Relaxed);
    Ok(())
}
