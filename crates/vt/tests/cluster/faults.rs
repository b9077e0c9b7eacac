//! Clients write and read while members are killed, paused, cut off and filled up. At the end every answer is held
//! against the log of all changes, against time, and against a search that trusts no revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use etcd::Etcd;
use parking_lot::Mutex;
use store::conformance::linear::{
    Client, Dice, Heard, History, LeaseWatch, by_log, by_values, follow, told_rightly, whole_log,
};
use store::{Batch, Op, Range, Store, Txn};

use crate::lab::{Lab, Way, until};

pub const ALL: &[crate::Scenario] = &[
    ("three_members_under_faults_lose_nothing", || under_faults(3)),
    ("five_members_under_faults_lose_nothing", || under_faults(5)),
    ("a_member_that_comes_and_goes_does_not_disturb_the_others", flapping),
    ("a_full_disk_refuses_puts_and_takes_them_again", full_disk),
];

const CLIENTS_PER_MEMBER: usize = 2;
/// Calls of one client at most; with the pause more than it comes to.
const CALLS: usize = 1000;
const PAUSE: Duration = Duration::from_millis(60);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

async fn connect(lab: &Lab, member: usize) -> Result<Arc<dyn Store>> {
    let options = etcd::Options::new([lab.endpoint(member)]);
    Ok(Arc::new(Etcd::connect(&options).await.with_context(|| format!("connect to member {member}"))?))
}

/// Every member answers a linearizable read.
async fn ready(lab: &mut Lab) -> Result<Vec<Arc<dyn Store>>> {
    let mut stores = Vec::new();
    for member in 0..lab.members.len() {
        let began = tokio::time::Instant::now();
        let store = loop {
            lab.runs(member)?;
            match connect(lab, member).await {
                Ok(store) if store.range(Range::key("ready")).await.is_ok() => break store,
                Ok(_) | Err(_) if began.elapsed() < Duration::from_mins(1) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Ok(_) => anyhow::bail!("member {member} does not answer reads"),
                Err(error) => return Err(error),
            }
        };
        stores.push(store);
    }
    Ok(stores)
}

/// One fault, for a while.
async fn fault(lab: &mut Lab, dice: &mut Dice, told: &mut Vec<String>) -> Result<()> {
    let member = dice.below(lab.members.len() as u64) as usize;
    let way = [Way::Both, Way::Out, Way::In][dice.below(3) as usize];
    let length = Duration::from_millis(200 + dice.below(2500));
    let name = match dice.below(10) {
        0..=2 => {
            lab.kill(member);
            tokio::time::sleep(length).await;
            lab.start(member)?;
            format!("kill {member} for {length:?}")
        }
        3 => {
            for member in 0..lab.members.len() {
                lab.kill(member);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            lab.start_all()?;
            "kill all".into()
        }
        4 | 5 => {
            lab.pause(member, true)?;
            tokio::time::sleep(length).await;
            lab.pause(member, false)?;
            format!("pause {member} for {length:?}")
        }
        6..=8 => {
            lab.cut(member, way)?;
            tokio::time::sleep(length).await;
            lab.mend(member)?;
            format!("cut {member} {way:?} for {length:?}")
        }
        _ => {
            let seconds = dice.below(7200) as i64 - 3600;
            let jumped = lab.jump(member, seconds)?;
            tokio::time::sleep(length / 2).await;
            format!("clock of {member} by {seconds} s (possible: {jumped})")
        }
    };
    told.push(name);
    tokio::time::sleep(Duration::from_millis(300 + dice.below(1500))).await;
    Ok(())
}

fn under_faults(members: usize) -> Result<()> {
    let seed = setting("VT_CLUSTER_SEED", 1);
    let lasting = Duration::from_secs(setting("VT_CLUSTER_SECONDS", 25));
    let mut lab = Lab::new(members)?;
    let mut faults = Vec::new();
    let outcome = runtime()?.block_on(faulty_run(&mut lab, seed, lasting, &mut faults));
    outcome.with_context(|| format!("seed {seed}; faults: {}\n{}", faults.join("; "), lab.logs()))
}

async fn faulty_run(lab: &mut Lab, seed: u64, lasting: Duration, faults: &mut Vec<String>) -> Result<()> {
    lab.start_all()?;
    let stores = ready(lab).await?;
    let history = History::default();
    let (values, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let followed: Vec<Arc<Mutex<Vec<Batch>>>> = stores.iter().map(|_| Arc::default()).collect();
    let following: Vec<_> =
        stores.iter().zip(&followed).map(|(store, told)| tokio::spawn(follow(store.clone(), told.clone()))).collect();
    let clients: Vec<_> = (0..stores.len() * CLIENTS_PER_MEMBER)
        .map(|number| {
            let store = stores[number % stores.len()].clone();
            let client = Client::new(number, store, history.clone(), values.clone(), seed);
            tokio::spawn(client.run(CALLS, PAUSE, stop.clone()))
        })
        .collect();
    let leases = tokio::spawn(keep_leases(stores.clone(), stop.clone()));
    let mut dice = Dice::new(seed);
    let began = tokio::time::Instant::now();
    while began.elapsed() < lasting {
        fault(lab, &mut dice, faults).await?;
    }
    lab.heal()?;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }
    leases.await?.map_err(|early| anyhow!(early))?;
    let stores = ready(lab).await?;
    let log = whole_log(&*stores[0]).await?;
    for store in &stores[1..] {
        let other = whole_log(&**store).await?;
        ensure!(other.len() >= log.len() && other[..log.len()] == log[..], "two members tell two histories");
    }
    for following in following {
        following.abort();
    }
    let ops = history.ops();
    let count = |wanted: fn(&Heard) -> bool| ops.iter().filter(|op| wanted(&op.heard)).count();
    let wrote = count(|heard| matches!(heard, Heard::Wrote(_)));
    let unknown = count(|heard| matches!(heard, Heard::Unknown));
    println!(
        "  {} calls, {wrote} writes acknowledged, {unknown} of unknown outcome, {} refused, {} revisions, {} faults",
        ops.len(),
        count(|heard| matches!(heard, Heard::Refused)),
        log.len(),
        faults.len()
    );
    ensure!(wrote > 50, "hardly anything was written: the run proves nothing");
    by_log(&ops, &log).map_err(|why| anyhow!(why))?;
    let undecided = by_values(&ops).map_err(|why| anyhow!(why))?;
    println!("  {undecided} keys with too many orders to try by value alone");
    for told in followed {
        told_rightly(&told.lock(), &log).map_err(|why| anyhow!(why))?;
    }
    Ok(())
}

/// Leases of a few seconds, kept alive now and then, never gone early.
async fn keep_leases(stores: Vec<Arc<dyn Store>>, stop: Arc<AtomicBool>) -> Result<(), String> {
    let mut held: Vec<LeaseWatch> = Vec::new();
    let mut turn = 0usize;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let store = &*stores[turn % stores.len()];
        if held.len() < 4
            && let Ok(lease) = LeaseWatch::grant(store, 2 + turn as u64 % 4, &turn.to_string()).await
        {
            held.push(lease);
        }
        for (nth, lease) in held.iter_mut().enumerate() {
            lease.early(store).await?;
            if (turn + nth).is_multiple_of(3) {
                let _ = lease.keep_alive(store).await;
            }
        }
        held.retain(|lease| lease.alive.elapsed() < lease.ttl * 3);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    Ok(())
}

/// The leader's term and the leader, as a member tells them.
async fn leader(lab: &Lab, member: usize) -> Result<(u64, u64)> {
    let client = etcd::Client::connect(&etcd::Options::new([lab.endpoint(member)])).await?;
    let status = client.maintenance().status(etcd::proto::etcdserverpb::StatusRequest {}).await?.into_inner();
    Ok((status.raft_term, status.leader))
}

fn flapping() -> Result<()> {
    let mut lab = Lab::new(3)?;
    let outcome = runtime()?.block_on(async {
        lab.start_all()?;
        let stores = ready(&mut lab).await?;
        let (term, first) = leader(&lab, 0).await?;
        let mut ids = Vec::new();
        for member in 0..3 {
            let client = etcd::Client::connect(&etcd::Options::new([lab.endpoint(member)])).await?;
            let status = client.maintenance().status(etcd::proto::etcdserverpb::StatusRequest {}).await?.into_inner();
            ids.push(status.header.context("a header")?.member_id);
        }
        let follower = ids.iter().position(|id| *id != first).context("a follower")?;
        let other = (0..3).find(|member| *member != follower).context("another member")?;
        for _ in 0..4 {
            lab.cut(follower, Way::Both)?;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            lab.mend(follower)?;
            stores[other].txn(Txn::of([Op::put("r/x", "1")])).await?;
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        let (now, last) = leader(&lab, other).await?;
        ensure!((now, last) == (term, first), "term {term} of {first:x} became {now} of {last:x}");
        Ok(())
    });
    outcome.with_context(|| lab.logs())
}

fn full_disk() -> Result<()> {
    const DISK_BYTES: u64 = 512 * 1024 * 1024;
    let mut lab = Lab::new(3)?;
    let outcome = runtime()?.block_on(async {
        for member in 0..3 {
            lab.bound(member, DISK_BYTES)?;
        }
        lab.start_all()?;
        let stores = ready(&mut lab).await?;
        let store = stores[0].clone();
        store.txn(Txn::of([Op::put("r/before", "1")])).await?;
        for member in 0..3 {
            lab.fill(member, true)?;
        }
        let put = |nth: u32| Txn::of([Op::put(format!("r/{nth}"), vec![7u8; 1024])]);
        until("puts are refused", || async { matches!(store.txn(put(1)).await, Err(store::Error::DiskFull)) }).await?;
        ensure!(store.range(Range::key("r/before")).await?.items.len() == 1, "reads go on");
        store.txn(Txn::of([Op::delete("r/before")])).await.context("deletes go on")?;
        for member in 0..3 {
            lab.fill(member, false)?;
        }
        until("puts are taken again", || async { store.txn(put(2)).await.is_ok() }).await?;
        for member in 0..3 {
            ensure!(lab.runs(member)?, "a member ended");
        }
        Ok(())
    });
    outcome.with_context(|| lab.logs())
}
