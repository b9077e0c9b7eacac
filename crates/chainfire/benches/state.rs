//! How fast entries are applied, and what they cost: `cargo bench -p chainfire --bench state`.
//!
//! For each batch size: random keys put once, then the same keys put again, 256-byte values. After `--`, `gather=MIB`,
//! `cache=MIB`, `recent=MIB`, `table=MIB` and `batch=N` choose other options.

use std::time::Duration;

use bytes::Bytes;
use chainfire::command::{Proposal, Request};
use chainfire::member::types::Types;
use chainfire::state::{LogId, Options, Place, State};
use openraft::EntryPayload;
use openraft::type_config::alias::EntryOf;
use rustix::time::{ClockId, clock_gettime};
use store::conformance::history::numbers;
use store::{Op, Range, Txn};

const PUTS: usize = 200_000;
const VALUE_BYTES: usize = 256;

type Entry = EntryOf<Types>;

fn at(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn since(clock: ClockId, before: Duration) -> Duration {
    at(clock).saturating_sub(before)
}

fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() / 256
}

struct Subject {
    _dir: tempfile::TempDir,
    state: State,
    index: u64,
}

fn chosen(name: &str) -> Option<u64> {
    std::env::args().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn options() -> Options {
    let mut options = Options::default();
    let tree = &mut options.tree;
    for (name, bytes) in [
        ("gather", &mut tree.gather_bytes),
        ("cache", &mut tree.cache_bytes),
        ("recent", &mut tree.recent_bytes),
        ("table", &mut tree.table_bytes),
    ] {
        if let Some(mib) = chosen(name) {
            *bytes = mib << 20;
        }
    }
    options
}

impl Subject {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&Place::Folder(dir.path().to_path_buf()), options()).unwrap();
        Self { _dir: dir, state, index: 0 }
    }

    fn puts(&mut self, seed: u64, batch: usize, what: &str) {
        let keys = numbers(seed, PUTS);
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        let (wall, all, thread) = (at(ClockId::Monotonic), at(ClockId::ProcessCPUTime), at(ClockId::ThreadCPUTime));
        let mut slowest = Duration::ZERO;
        for keys in keys.chunks(batch) {
            let requests = keys.iter().map(|key| {
                let key = Bytes::from(format!("/registry/things/{key:016x}"));
                Request::Txn { txn: Txn::of([Op::put(key, value.clone())]), guard: None }
            });
            let proposal = Proposal { requests: std::sync::Arc::new(requests.collect()) };
            self.index += 1;
            let entry = Entry { log_id: LogId::new_term_index(1, self.index), payload: EntryPayload::Normal(proposal) };
            let before = at(ClockId::Monotonic);
            self.state.take([&entry]).unwrap();
            slowest = slowest.max(since(ClockId::Monotonic, before));
        }
        let per = |clock, before| since(clock, before).as_nanos() as f64 / 1000.0 / PUTS as f64;
        let wall = per(ClockId::Monotonic, wall);
        println!(
            "{what:<10} batch {batch:>3}: {:>7.0} puts/s, {wall:.2} us each; cpu here {:.2} us, with upkeep {:.2} us; slowest batch {:.1} ms; {} MiB resident, {} MiB on disk",
            1e6 / wall,
            per(ClockId::ThreadCPUTime, thread),
            per(ClockId::ProcessCPUTime, all),
            slowest.as_secs_f64() * 1000.0,
            resident_mib(),
            self.state.reader().status().disk_bytes >> 20,
        );
    }

    fn reads(&self, seed: u64) {
        let keys = numbers(seed, PUTS);
        let reader = self.state.reader();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (wall, count) = (at(ClockId::Monotonic), 100_000);
        runtime.block_on(async {
            for key in &keys[..count] {
                let range = Range::key(format!("/registry/things/{key:016x}"));
                assert_eq!(reader.range(range).await.unwrap().items.len(), 1);
            }
        });
        let wall = since(ClockId::Monotonic, wall).as_nanos() as f64 / 1000.0 / count as f64;
        println!("get: {wall:.2} us each");
        let wall = at(ClockId::Monotonic);
        let all = runtime.block_on(async { reader.range(Range::all()).await.unwrap() });
        let spent = since(ClockId::Monotonic, wall).as_secs_f64() * 1000.0;
        println!("range of {} rows: {spent:.0} ms", all.count);
        let wall = at(ClockId::Monotonic);
        let all = runtime.block_on(async { reader.range(Range::all().count_only()).await.unwrap() });
        let spent = since(ClockId::Monotonic, wall).as_secs_f64() * 1000.0;
        println!("count of {} rows: {spent:.0} ms", all.count);
        let wall = at(ClockId::Monotonic);
        runtime.block_on(async { reader.hash(None).await.unwrap() });
        println!("hash: {:.0} ms", since(ClockId::Monotonic, wall).as_secs_f64() * 1000.0);
    }
}

fn main() {
    for batch in chosen("batch").map_or(vec![1, 16, 256], |batch| vec![batch as usize]) {
        let mut subject = Subject::new();
        subject.puts(1, batch, "new keys");
        subject.puts(1, batch, "again");
        subject.puts(2, batch, "more keys");
        subject.reads(1);
    }
}
