//! Plays histories at two servers and compares what they say.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::play::{Clients, Played, Player};
use crate::servers::{Server, etcd};
use crate::shrink;
use crate::step::{Step, terse};

/// Pairs of servers that histories are played at side by side: a history spends most of its time waiting.
const LANES: usize = 4;
/// A history that is not over by then hangs.
const HISTORY_MAX: Duration = Duration::from_mins(3);
/// How long an answer that comes by itself may take. Only a history that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same while a failed history is shrunk, which plays it many times.
const PATIENCE_SHRINKING: Duration = Duration::from_secs(3);
/// Failed histories that are shown; after that no more are played.
const FAILURES_MAX: usize = 3;

/// Seeds that failed once: `KIND SEED what was wrong`.
const FAILED_ONCE: &str = include_str!("seeds.txt");

/// Plays exactly so many histories in each test, instead of as many as the time allows.
const HISTORIES: &str = "CHAINFIRE_HISTORIES";
/// The first seed.
const SEED: &str = "CHAINFIRE_SEED";

#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub make: fn(u64) -> Vec<Step>,
    /// Users and roles are removed between histories.
    pub with_auth: bool,
}

pub const KEYS: Kind = Kind { name: "keys", make: crate::make::history, with_auth: false };
pub const AUTH: Kind = Kind { name: "auth", make: crate::make_auth::history, with_auth: true };

/// Two servers that have to answer alike, the real etcd first.
struct Pair {
    clients: [Clients; 2],
    servers: [Server; 2],
}

impl Pair {
    async fn play(&self, kind: Kind, steps: &[Step], patience: Duration) -> Result<[Vec<Played>; 2]> {
        let side = async |clients: &Clients, name: &str| {
            let player = Player::begin(clients.clone(), kind.with_auth, patience);
            let played = Box::pin(async { anyhow::Ok(player.await?.play(steps).await) });
            timeout(HISTORY_MAX, played).await.context("it hangs").flatten().with_context(|| name.to_owned())
        };
        let (etcd, subject) = tokio::join!(
            side(&self.clients[0], "the real etcd"),
            side(&self.clients[1], "the server compared with it")
        );
        Ok([etcd?, subject?])
    }

    async fn differs(&self, kind: Kind, steps: &[Step]) -> Result<bool> {
        let [etcd, subject] = self.play(kind, steps, PATIENCE_SHRINKING).await?;
        Ok(first_difference(&etcd, &subject).is_some())
    }
}

fn first_difference(etcd: &[Played], subject: &[Played]) -> Option<usize> {
    let at = etcd.iter().zip(subject).position(|(etcd, subject)| etcd.told != subject.told);
    // A history that was given up differs, however little it said.
    at.or_else(|| (etcd.len() != subject.len()).then(|| etcd.len().min(subject.len()) - 1))
}

/// What is still to be played.
struct Queue {
    failed_once: VecDeque<u64>,
    next: u64,
    left: Option<u64>,
    until: Instant,
    played: usize,
    steps: usize,
    failures: Vec<String>,
}

impl Queue {
    fn take(&mut self) -> Option<u64> {
        if self.failures.len() >= FAILURES_MAX {
            return None;
        }
        if let Some(seed) = self.failed_once.pop_front() {
            return Some(seed);
        }
        match &mut self.left {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None if Instant::now() >= self.until => return None,
            None => {}
        }
        self.next += 1;
        Some(self.next - 1)
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

fn failed_once(kind: Kind) -> VecDeque<u64> {
    let seed = |line: &str| {
        let mut words = line.split_whitespace();
        let named = words.next()? == kind.name;
        let seed = words.next().and_then(|word| word.parse().ok()).expect("a seed in seeds.txt");
        named.then_some(seed)
    };
    FAILED_ONCE.lines().filter(|line| !line.starts_with('#')).filter_map(seed).collect()
}

/// Plays histories for `budget` at Debian's etcd and at what `open` opens; panics when they differ.
pub async fn compare(kind: Kind, budget: Duration, open: impl AsyncFn() -> Result<Server>) {
    // Side by side: an etcd takes more than a second to elect itself.
    let pairs = try_join_all((0..LANES).map(|_| pair(&open))).await.expect("pairs of servers");
    let queue = Mutex::new(Queue {
        failed_once: failed_once(kind),
        next: number(SEED).unwrap_or(1),
        left: number(HISTORIES),
        until: Instant::now() + budget,
        played: 0,
        steps: 0,
        failures: Vec::new(),
    });
    join_all(pairs.into_iter().map(|pair| lane(pair, kind, &queue))).await;
    let queue = queue.into_inner();
    println!("{} histories of kind {}, {} steps", queue.played, kind.name, queue.steps);
    assert!(queue.failures.is_empty(), "{}", queue.failures.join("\n"));
    assert!(queue.played > 0, "not one history was played");
}

async fn pair(open: &impl AsyncFn() -> Result<Server>) -> Result<Pair> {
    let (etcd, subject) = tokio::join!(etcd::start(), open());
    let servers = [etcd.context("etcd")?, subject.context("the server compared with etcd")?];
    let clients = [Clients::connect(&servers[0].endpoint).await?, Clients::connect(&servers[1].endpoint).await?];
    Ok(Pair { clients, servers })
}

async fn lane(pair: Pair, kind: Kind, queue: &Mutex<Queue>) {
    loop {
        let Some(seed) = queue.lock().take() else { return };
        let steps = (kind.make)(seed);
        let outcome = pair.play(kind, &steps, PATIENCE).await;
        let mut failure = None;
        match outcome {
            Ok([etcd, subject]) => {
                if let Some(at) = first_difference(&etcd, &subject) {
                    let whole = keep(kind, seed, &show(&etcd, &subject));
                    let shown = show(&etcd[at..=at], &subject[at..=at]);
                    let of = steps.len();
                    let head =
                        format!("\n== {} history {seed} differs at step {at} of {of}{whole}\n{shown}", kind.name);
                    failure = Some(head + &shrunk(&pair, kind, steps.clone()).await);
                }
            }
            Err(error) => {
                let said = pair.servers.each_ref().map(Server::last_words).concat();
                failure = Some(format!("\n== {} history {seed}: {error:#}\n{said}", kind.name));
            }
        }
        let mut queue = queue.lock();
        queue.played += 1;
        queue.steps += steps.len();
        queue.failures.extend(failure);
    }
}

/// Writes a whole history down; tells where.
fn keep(kind: Kind, seed: u64, shown: &str) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("differential-{}-{seed}.txt", kind.name));
    match std::fs::write(&file, shown) {
        Ok(()) => format!(" (all of it: {})", file.display()),
        Err(_) => String::new(),
    }
}

async fn shrunk(pair: &Pair, kind: Kind, steps: Vec<Step>) -> String {
    let again = pair.differs(kind, &steps).await;
    if !again.is_ok_and(|differs| differs) {
        return "-- played once more, it does not differ".to_owned();
    }
    let whole = steps.len();
    let still = async |steps: &[Step]| pair.differs(kind, steps).await.unwrap_or(false);
    let steps = shrink::shrink(steps, still).await;
    match pair.play(kind, &steps, PATIENCE_SHRINKING).await {
        Ok([etcd, subject]) if first_difference(&etcd, &subject).is_none() && steps.len() < whole => {
            "-- it differs, but not each time".to_owned()
        }
        Ok([etcd, subject]) => format!("-- shrunk:\n{}", show(&etcd, &subject)),
        Err(error) => format!("-- shrunk, and then: {error:#}"),
    }
}

/// Step by step; lines that one side alone told are marked.
fn show(etcd: &[Played], subject: &[Played]) -> String {
    let mut out = String::new();
    for (at, (etcd, subject)) in etcd.iter().zip(subject).enumerate() {
        let _ = writeln!(out, "{at:3} {}", etcd.asked);
        let mut rest = subject.told.clone();
        for line in &etcd.told {
            let both = rest.iter().position(|other| other == line).map(|at| rest.remove(at)).is_some();
            let _ = writeln!(out, "    {} {}", if both { "     " } else { "etcd:" }, terse(line));
        }
        for line in rest {
            let _ = writeln!(out, "    not:  {}", terse(&line));
        }
    }
    out
}
