//! How many puts of 256 bytes a second, and how long the slowest of a hundred takes: one member and three, with 1, 16 and
//! 256 clients. Reads in between are linearizable.
//!
//! `cargo bench -p chainfire --bench member -- [FOLDER] [SECONDS]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chainfire::member::{Member, Options, Place};
use store::{Op, Range, Store, Txn};
use tokio::time::Instant;

const VALUE_BYTES: usize = 256;

async fn members(count: usize, below: &Path) -> Vec<Arc<Member>> {
    let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
    let url = |n: usize| format!("http://127.0.0.1:{}", ports[n]);
    let initial: Vec<_> = (0..count).map(|n| (format!("m{n}"), url(n))).collect();
    let mut members = Vec::new();
    for n in 0..count {
        let options = Options {
            name: format!("m{n}"),
            place: Place::Folder(below.join(format!("{count}-{n}"))),
            listen_peer_urls: if count > 1 { vec![url(n)] } else { Vec::new() },
            advertise_peer_urls: vec![url(n)],
            initial_cluster: initial.clone(),
            ..Options::default()
        };
        members.push(Arc::new(Member::open(options).await.expect("a member")));
    }
    for member in &members {
        while member.range(Range::key("none")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    members
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

async fn run(what: &str, stores: Vec<Arc<dyn Store>>, clients: usize, seconds: u64, reads: bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    let tasks = (0..clients).map(|client| {
        let store = stores[client % stores.len()].clone();
        tokio::spawn(async move {
            let (mut took, value, mut n) = (Vec::new(), "v".repeat(VALUE_BYTES), 0u64);
            while Instant::now() < until {
                let key = format!("key/{client}/{:04}", n % 10_000);
                n += 1;
                let begun = Instant::now();
                if reads {
                    store.range(Range::key(key)).await.expect("a read");
                } else {
                    store.txn(Txn::of([Op::put(key, value.clone())])).await.expect("a put");
                }
                took.push(begun.elapsed());
            }
            took
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a client"));
    }
    took.sort();
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied().unwrap_or_default();
    let per_second = took.len() as u64 / seconds;
    println!("{what:28} {clients:4} clients {per_second:8}/s  p50 {:8.2?}  p99 {:8.2?}", at(0.5), at(0.99));
}

fn main() {
    // Cargo passes flags of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(3);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let below = tempfile::tempdir_in(folder).expect("a folder");
        for count in [1, 3] {
            let members = members(count, below.path()).await;
            let mut leader = 0;
            for (n, member) in members.iter().enumerate() {
                if chainfire::door::Host::status(&**member).await.expect("a status").leader == Some(member.id()) {
                    leader = n;
                }
            }
            let through_leader: Vec<Arc<dyn Store>> = vec![members[leader].clone()];
            let through_all: Vec<Arc<dyn Store>> =
                members.iter().map(|member| member.clone() as Arc<dyn Store>).collect();
            for clients in [1, 16, 256] {
                run(&format!("{count} put, leader"), through_leader.clone(), clients, seconds, false).await;
                run(&format!("{count} get, leader"), through_leader.clone(), clients, seconds, true).await;
                if count > 1 {
                    run(&format!("{count} put, all members"), through_all.clone(), clients, seconds, false).await;
                    run(&format!("{count} get, all members"), through_all.clone(), clients, seconds, true).await;
                }
            }
            for member in members {
                member.close().await.expect("it closes");
            }
        }
    });
}
