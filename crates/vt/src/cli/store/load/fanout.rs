//! Many watchers on one prefix, and puts that all of them see.
//!
//! A watcher's stream is walked and not decoded: what is counted is the store's work. Of one watcher in each stream the
//! values are read: they hold when their put was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use etcd::proto::etcdserverpb::watch_request::RequestUnion;
use etcd::proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tokio::time::Instant;

use super::line::{self, Error, Line, Receiving};
use super::tally::Tally;
use super::work::{self, Draw};
use super::{LoadArgs, Measured, failed};
use crate::failure::Failure;

/// Of one stream; clients of etcd put many on one, too.
const WATCHERS_PER_STREAM: usize = 100;
/// Fields of `WatchResponse`.
const WATCH_ID: u32 = 2;
const EVENTS: u32 = 11;
/// Without an end of the waiting, lost events would hang a bench.
const PATIENCE: Duration = Duration::from_mins(1);

pub async fn run(args: &LoadArgs, lines: &[Line]) -> Result<Measured, Failure> {
    let puts = args.total.unwrap_or(500);
    let streams = args.watchers.div_ceil(WATCHERS_PER_STREAM);
    let wanted = puts * args.watchers as u64;
    let seen = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut watching = tokio::task::JoinSet::new();
    for at in 0..streams {
        let watchers = WATCHERS_PER_STREAM.min(args.watchers - at * WATCHERS_PER_STREAM);
        let answers = open(&lines[at % lines.len()], watchers).await.map_err(failed)?;
        watching.spawn(follow(answers, puts * watchers as u64, seen.clone(), began));
    }
    let first = Instant::now();
    let mut putting = tokio::task::JoinSet::new();
    let left = Arc::new(AtomicU64::new(puts));
    for at in 0..args.clients {
        let (line, left) = (lines[at % lines.len()].clone(), left.clone());
        let mut draw = Draw(args.seed.wrapping_add(at as u64));
        let (key_bytes, value_bytes) = (args.key_bytes, args.value_bytes.max(8));
        putting.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let mut value = work::value(&mut draw, value_bytes).to_vec();
                let key = work::key(b'w', draw.next() % 1000, key_bytes);
                value[..8].copy_from_slice(&(began.elapsed().as_micros() as u64).to_be_bytes());
                line.ask(line::PUT, &PutRequest { key, value: value.into(), ..PutRequest::default() }).await?;
            }
            Ok::<_, Error>(())
        });
    }
    let internal = |error: tokio::task::JoinError| Failure::new(model::Code::Internal, error.to_string());
    let ended = async {
        let mut tally = Tally::default();
        while let Some(done) = putting.join_next().await {
            done.map_err(internal)?.map_err(failed)?;
        }
        while let Some(done) = watching.join_next().await {
            tally.merge(&done.map_err(internal)?.map_err(failed)?);
        }
        Ok(tally)
    };
    let tally = tokio::time::timeout(PATIENCE, ended).await.unwrap_or_else(|_| {
        let missing = wanted - seen.load(Ordering::Relaxed);
        Err(Failure::new(model::Code::Failed, format!("{missing} of {wanted} events did not come")))
    })?;
    Ok(Measured { tally, time: first.elapsed(), events: seen.load(Ordering::Relaxed) })
}

/// A stream with its watchers, all of which are there when this returns.
async fn open(line: &Line, watchers: usize) -> Result<Receiving, Error> {
    let prefix = crate::cli::kv::stretch::prefix(Bytes::from_static(b"w"));
    let create = WatchCreateRequest { key: prefix.key, range_end: prefix.end, ..WatchCreateRequest::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (mut sending, mut answers) = line.stream(line::WATCH, &request).await?;
    for _ in 1..watchers {
        sending.send(&request)?;
    }
    let mut created = 0;
    while created < watchers {
        let answer = answers.next().await?.ok_or_else(|| Error::Refused("the watch ended".to_owned()))?;
        created += usize::from(WatchResponse::decode(answer)?.created);
    }
    // The stream stays open as long as its answers are read: dropping this side would reset it.
    tokio::spawn(async move {
        tokio::time::sleep(PATIENCE * 2).await;
        drop(sending);
    });
    Ok(answers)
}

/// Counts events until all have come. How long those of one watcher took is tallied.
async fn follow(mut answers: Receiving, wanted: u64, seen: Arc<AtomicU64>, began: Instant) -> Result<Tally, Error> {
    let mut tally = Tally::default();
    let mut counted = 0;
    let mut sample = None;
    while counted < wanted {
        let answer = answers.next().await?.ok_or_else(|| Error::Refused("the watch ended".to_owned()))?;
        let (watcher, events) = walk(answer.clone())?;
        counted += events;
        seen.fetch_add(events, Ordering::Relaxed);
        if *sample.get_or_insert(watcher) == watcher {
            let now = began.elapsed();
            for event in WatchResponse::decode(answer)?.events {
                let sent = event.kv.and_then(|kv| kv.value.get(..8)?.try_into().ok()).map(u64::from_be_bytes);
                tally.add(now.saturating_sub(Duration::from_micros(sent.unwrap_or(0))));
            }
        }
    }
    Ok(tally)
}

/// Which watcher an answer is for, and how many events it holds.
fn walk(mut answer: Bytes) -> Result<(u64, u64), Error> {
    let (mut watcher, mut events) = (0, 0);
    while answer.has_remaining() {
        let (tag, wire) = decode_key(&mut answer)?;
        match (tag, wire) {
            (WATCH_ID, WireType::Varint) => watcher = decode_varint(&mut answer)?,
            (EVENTS, WireType::LengthDelimited) => {
                let length = decode_varint(&mut answer)? as usize;
                answer.advance(length.min(answer.remaining()));
                events += 1;
            }
            _ => skip_field(wire, tag, &mut answer, DecodeContext::default())?,
        }
    }
    Ok((watcher, events))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd::proto::mvccpb::Event;

    #[test]
    fn an_answer_is_walked() {
        let answer = WatchResponse { watch_id: 7, events: vec![Event::default(); 3], ..WatchResponse::default() };
        assert_eq!(walk(answer.encode_to_vec().into()).unwrap(), (7, 3));
    }
}
