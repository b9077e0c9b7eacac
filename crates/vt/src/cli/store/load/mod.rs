//! A load on a store, measured: for benches. Any store that speaks etcd's protocol is driven the same way.
//!
//! ```text
//! line    gRPC calls on one HTTP/2 connection, with as little work for each as possible: client and store share a machine
//! work    what clients do, each one thing after the other
//! fanout  many watchers on one prefix, and puts that all of them see
//! tally   how long calls took
//! ```

mod fanout;
mod line;
mod tally;
mod work;

use std::time::Duration;

use clap::{Args, ValueEnum};
use etcd::proto::etcdserverpb::{StatusRequest, StatusResponse};
use model::Code;
use serde_json::json;

use crate::cli::session::Session;
use crate::failure::{Failure, Outcome};
use line::Line;
use tally::Tally;

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// What clients do
    #[arg(value_enum, value_name = "WORK")]
    work: Work,
    /// Members, HOST:PORT, separated by commas; the leader is found and used first
    #[arg(long, value_name = "LIST", default_value = "127.0.0.1:2379")]
    endpoints: String,
    /// Clients at once, each one call at a time
    #[arg(long, value_name = "COUNT", default_value = "1")]
    clients: usize,
    /// Connections that they share, spread over the members
    #[arg(long, value_name = "COUNT", default_value = "1")]
    connections: usize,
    /// Measured for so long, after a tenth of it that is not
    #[arg(long, value_name = "MS", default_value = "2000")]
    milliseconds: u64,
    /// Instead of a time: so many calls
    #[arg(long, value_name = "COUNT")]
    total: Option<u64>,
    #[arg(long, value_name = "BYTES", default_value = "256")]
    value_bytes: usize,
    #[arg(long, value_name = "BYTES", default_value = "16")]
    key_bytes: usize,
    /// Keys are drawn from so many
    #[arg(long, value_name = "COUNT", default_value = "10000")]
    keys: u64,
    /// Watchers on one prefix
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    watchers: usize,
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    seed: u64,
    /// Try for so many seconds until the store answers at all
    #[arg(long, value_name = "SECONDS", default_value = "0")]
    patience: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Random keys
    Put,
    /// One put to four linearizable reads
    Mixed,
    /// Compare a key's mod revision, put
    Txn,
    /// Grant a lease, put a key with it, revoke it
    Lease,
    /// Each key once, many in one transaction
    Fill,
    /// New keys, one in each call
    Grow,
    /// One linearizable read
    Read,
    /// Puts that every watcher sees
    Watch,
}

pub async fn run(session: &Session, args: &LoadArgs) -> Outcome {
    if args.clients == 0 || args.connections == 0 || args.keys == 0 || args.key_bytes < work::KEY_BYTES_MIN {
        return Err(Failure::usage("counts begin at 1, and a key has at least 16 bytes"));
    }
    let until = tokio::time::Instant::now() + Duration::from_secs(args.patience);
    let measured = loop {
        match attempt(args).await {
            Err(_) if tokio::time::Instant::now() < until => tokio::time::sleep(AGAIN_PAUSE).await,
            measured => break measured?,
        }
    };
    let Measured { tally, time, events } = measured;
    let answer = json!({
        "calls": tally.count(),
        "seconds": time.as_secs_f64(),
        "calls_per_second": tally.count() as f64 / time.as_secs_f64(),
        "p50_ms": tally.quantile_ms(0.5),
        "p99_ms": tally.quantile_ms(0.99),
        "max_ms": tally.quantile_ms(1.0),
        "events": events,
        "events_per_second": events as f64 / time.as_secs_f64(),
    });
    session.out.value(&answer, || {
        let field = |name: &str| answer[name].as_f64().unwrap_or_default();
        format!(
            "{} calls in {:.2} s: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms\n",
            answer["calls"],
            field("seconds"),
            field("calls_per_second"),
            field("p50_ms"),
            field("p99_ms"),
            field("max_ms")
        )
    })?;
    Ok(0)
}

/// Short: how soon a store answers again is measured by it.
const AGAIN_PAUSE: Duration = Duration::from_millis(2);

async fn attempt(args: &LoadArgs) -> Result<Measured, Failure> {
    let lines = lines(&args.endpoints, args.connections).await?;
    match args.work {
        Work::Watch => fanout::run(args, &lines).await,
        _ => work::run(args, &lines).await,
    }
}

/// What a load came to.
struct Measured {
    tally: Tally,
    time: Duration,
    /// That watchers saw.
    events: u64,
}

/// Connections, spread over the members with the leader first.
async fn lines(endpoints: &str, count: usize) -> Result<Vec<Line>, Failure> {
    let mut names: Vec<&str> = endpoints.split(',').map(|name| name.trim_start_matches("http://")).collect();
    if names.len() > 1 {
        for at in 0..names.len() {
            let line = Line::open(names[at]).await.map_err(failed)?;
            let status: StatusResponse = line.call(line::STATUS, &StatusRequest {}).await.map_err(failed)?;
            if status.header.is_some_and(|header| header.member_id == status.leader) {
                names.swap(0, at);
                break;
            }
        }
    }
    let mut lines = Vec::with_capacity(count);
    for at in 0..count {
        lines.push(Line::open(names[at % names.len()]).await.map_err(failed)?);
    }
    Ok(lines)
}

fn failed(error: line::Error) -> Failure {
    Failure::new(Code::Unavailable, "the store did not do its part").why(error.to_string())
}
