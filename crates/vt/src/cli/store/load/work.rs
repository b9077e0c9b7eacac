//! What clients do, each one thing after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use etcd::proto::etcdserverpb::{
    Compare, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse, request_op, response_op,
};
use tokio::time::Instant;

use super::line::{self, Error, Line};
use super::tally::Tally;
use super::{LoadArgs, Measured, Work, failed};
use crate::failure::Failure;

/// Room for the number of a key.
pub const KEY_BYTES_MIN: usize = 16;
/// Puts in one transaction of a fill; the limit of a store is 128 by default.
const FILL_PUTS: u64 = 100;
/// Keys of each client that compares.
const OWN_KEYS: u64 = 32;
/// Longer than any run.
const LEASE_SECONDS: i64 = 600;

/// SplitMix64 (Steele, Lea and Flood 2014): the same numbers for every store.
#[derive(Clone)]
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Key number `at`, `bytes` long.
pub fn key(prefix: u8, at: u64, bytes: usize) -> Bytes {
    let text = format!("{at:0width$}", width = bytes.saturating_sub(1));
    let mut key = BytesMut::with_capacity(bytes);
    key.put_u8(prefix);
    key.extend_from_slice(text.as_bytes());
    key.freeze()
}

/// Bytes that do not compress away.
pub fn value(draw: &mut Draw, bytes: usize) -> Bytes {
    let mut value = BytesMut::with_capacity(bytes + 8);
    while value.len() < bytes {
        value.put_u64(draw.next());
    }
    value.truncate(bytes);
    value.freeze()
}

/// When it is over, and what was done by then.
struct Course {
    measured_from: Instant,
    until: Option<Instant>,
    /// Calls that are left, where their number was given.
    left: AtomicU64,
    next: AtomicU64,
}

impl Course {
    fn goes_on(&self) -> bool {
        match self.until {
            Some(until) => Instant::now() < until,
            None => self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok(),
        }
    }
}

pub async fn run(args: &LoadArgs, lines: &[Line]) -> Result<Measured, Failure> {
    let span = Duration::from_millis(args.milliseconds);
    let began = Instant::now();
    let total = match args.work {
        Work::Fill => Some(args.keys.div_ceil(FILL_PUTS)),
        Work::Read => Some(1),
        _ => args.total,
    };
    let warm = if total.is_some() { Duration::ZERO } else { span / 10 };
    let course = Arc::new(Course {
        measured_from: began + warm,
        until: total.is_none().then(|| began + warm + span),
        left: AtomicU64::new(total.unwrap_or(0)),
        next: AtomicU64::new(0),
    });
    let mut clients = tokio::task::JoinSet::new();
    for at in 0..args.clients {
        let client = Client {
            line: lines[at % lines.len()].clone(),
            draw: Draw(args.seed.wrapping_mul(1_000_003).wrapping_add(at as u64)),
            at: at as u64,
            work: args.work,
            keys: args.keys,
            key_bytes: args.key_bytes,
            value_bytes: args.value_bytes,
            course: course.clone(),
            revisions: vec![0; OWN_KEYS as usize],
            tally: Tally::default(),
        };
        clients.spawn(client.run());
    }
    let mut tally = Tally::default();
    while let Some(done) = clients.join_next().await {
        let done = done.map_err(|error| Failure::new(model::Code::Internal, error.to_string()))?;
        tally.merge(&done.map_err(failed)?);
    }
    let time = Instant::now().saturating_duration_since(course.measured_from);
    Ok(Measured { tally, time, events: 0 })
}

struct Client {
    line: Line,
    draw: Draw,
    at: u64,
    work: Work,
    keys: u64,
    key_bytes: usize,
    value_bytes: usize,
    course: Arc<Course>,
    /// Where this client's own keys were last seen.
    revisions: Vec<i64>,
    tally: Tally,
}

impl Client {
    async fn run(mut self) -> Result<Tally, Error> {
        while self.course.goes_on() {
            match self.work {
                Work::Mixed if !self.draw.next().is_multiple_of(5) => self.get().await?,
                Work::Put | Work::Mixed => self.put().await?,
                Work::Grow => self.grow().await?,
                Work::Txn => self.txn().await?,
                Work::Lease => self.lease().await?,
                Work::Fill => self.fill().await?,
                Work::Read | Work::Watch => self.get().await?,
            }
        }
        Ok(self.tally)
    }

    async fn timed<A>(&mut self, call: impl Future<Output = Result<A, Error>>) -> Result<A, Error> {
        let began = Instant::now();
        let answer = call.await?;
        if began >= self.course.measured_from {
            self.tally.add(began.elapsed());
        }
        Ok(answer)
    }

    fn drawn_put(&mut self) -> PutRequest {
        let key = key(b'k', self.draw.next() % self.keys, self.key_bytes);
        PutRequest { key, value: value(&mut self.draw, self.value_bytes), ..PutRequest::default() }
    }

    async fn put(&mut self) -> Result<(), Error> {
        let put = self.drawn_put();
        let line = self.line.clone();
        self.timed(line.ask(line::PUT, &put)).await.map(drop)
    }

    async fn grow(&mut self) -> Result<(), Error> {
        let at = self.course.next.fetch_add(1, Ordering::Relaxed);
        // Scattered, as names are, and never the same twice.
        let key = key(b'g', at.wrapping_mul(0x9e37_79b9_7f4a_7c15), self.key_bytes.max(21));
        let put = PutRequest { key, value: value(&mut self.draw, self.value_bytes), ..PutRequest::default() };
        let line = self.line.clone();
        self.timed(line.ask(line::PUT, &put)).await.map(drop)
    }

    async fn get(&mut self) -> Result<(), Error> {
        let key = key(b'k', self.draw.next() % self.keys, self.key_bytes);
        let line = self.line.clone();
        self.timed(line.ask(line::RANGE, &RangeRequest { key, ..RangeRequest::default() })).await.map(drop)
    }

    async fn txn(&mut self) -> Result<(), Error> {
        let own = self.draw.next() % OWN_KEYS;
        let key = key(b't', self.at * OWN_KEYS + own, self.key_bytes);
        let compare = Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::ModRevision(self.revisions[own as usize])),
        };
        let put =
            PutRequest { key: key.clone(), value: value(&mut self.draw, self.value_bytes), ..PutRequest::default() };
        let get = RangeRequest { key, ..RangeRequest::default() };
        let txn = TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
            failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(get)) }],
        };
        let line = self.line.clone();
        let answer: TxnResponse = self.timed(line.call(line::TXN, &txn)).await?;
        let at = |header: &Option<ResponseHeader>| header.as_ref().map_or(0, |header| header.revision);
        self.revisions[own as usize] = match answer.responses.first().and_then(|first| first.response.as_ref()) {
            // A run before this one was there.
            Some(response_op::Response::ResponseRange(found)) => found.kvs.first().map_or(0, |kv| kv.mod_revision),
            _ => at(&answer.header),
        };
        Ok(())
    }

    async fn lease(&mut self) -> Result<(), Error> {
        let line = self.line.clone();
        let granted: LeaseGrantResponse =
            self.timed(line.call(line::GRANT, &LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 })).await?;
        let put = PutRequest { lease: granted.id, key: key(b'l', self.at, self.key_bytes), ..self.drawn_put() };
        self.timed(line.ask(line::PUT, &put)).await?;
        self.timed(line.ask(line::REVOKE, &LeaseRevokeRequest { id: granted.id })).await.map(drop)
    }

    async fn fill(&mut self) -> Result<(), Error> {
        let first = self.course.next.fetch_add(FILL_PUTS, Ordering::Relaxed);
        let puts = (first..(first + FILL_PUTS).min(self.keys)).map(|at| {
            let value = value(&mut self.draw, self.value_bytes);
            let put = PutRequest { key: key(b'k', at, self.key_bytes), value, ..PutRequest::default() };
            RequestOp { request: Some(request_op::Request::RequestPut(put)) }
        });
        let txn = TxnRequest { success: puts.collect(), ..TxnRequest::default() };
        let line = self.line.clone();
        self.timed(line.ask(line::TXN, &txn)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_their_length() {
        assert_eq!((key(b'k', 7, 16), key(b'k', u64::MAX, 16).len()), (Bytes::from_static(b"k000000000000007"), 21));
        let (mut one, mut same) = (Draw(1), Draw(1));
        assert_eq!(value(&mut one, 250), value(&mut same, 250));
        assert_eq!(value(&mut one, 250).len(), 250);
    }
}
