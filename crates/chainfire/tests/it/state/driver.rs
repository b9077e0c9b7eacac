//! A store of one state and nothing else: every request is an entry of its own, applied at once.

use std::sync::Arc;

use async_trait::async_trait;
use chainfire::command::{Answer, Proposal, Refusal, Request};
use chainfire::member::types::Types;
use chainfire::state::{LeaseChange, LeaseHook, LogId, Options, Place, Reader, State, TreeOptions};
use openraft::EntryPayload;
use openraft::type_config::alias::EntryOf;
use parking_lot::Mutex;
use store::lessor::Lessor;
use store::{
    Error, Lease, LeaseId, LeaseStatus, Range, RangeAnswer, Revision, Status, Store, Txn, TxnAnswer, WatchRequest,
    Watcher, admit,
};
use tokio::task::AbortHandle;

pub type Entry = EntryOf<Types>;

pub fn entry(index: u64, requests: Vec<Request>) -> Entry {
    let payload = if requests.is_empty() {
        EntryPayload::Blank
    } else {
        EntryPayload::Normal(Proposal { requests: Arc::new(requests) })
    };
    Entry { log_id: LogId::new_term_index(1, index), payload }
}

/// So small that everything happens all the time: seals, tables, merges.
pub fn tiny() -> Options {
    let tree =
        TreeOptions { cache_bytes: 1 << 20, recent_bytes: 64 << 10, gather_bytes: 32 << 10, table_bytes: 64 << 10 };
    Options { tree, on_leases: None }
}

pub struct Driver {
    shared: Arc<Shared>,
    expiry: AbortHandle,
}

struct Shared {
    state: Mutex<(State, u64)>,
    reader: Reader,
    lessor: Arc<Lessor>,
}

impl Shared {
    fn propose(&self, request: Request) -> Result<Answer, Error> {
        let (state, index) = &mut *self.state.lock();
        *index += 1;
        let mut outcomes = state.take([&entry(*index, vec![request])])?;
        match outcomes.remove(0).answers.remove(0) {
            Ok(answer) => Ok(answer),
            Err(Refusal::Store(error)) => Err(error),
            Err(Refusal::SystemMoved { version }) => panic!("nothing here is guarded, and it moved to {version}"),
        }
    }
}

impl Driver {
    /// Needs a runtime, which runs the leases.
    pub fn open(place: &Place, mut options: Options) -> Self {
        let lessor = Arc::new(Lessor::default());
        options.on_leases = Some(LeaseHook({
            let lessor = lessor.clone();
            Arc::new(move |changes| {
                for change in changes {
                    match change {
                        LeaseChange::Granted(lease) => lessor.insert(*lease),
                        LeaseChange::Revoked(id) => lessor.remove(*id),
                        LeaseChange::Replaced(leases) => lessor.replace(leases.clone()),
                    }
                }
            })
        }));
        let state = State::open(place, options).unwrap();
        let reader = state.reader();
        lessor.replace(reader.leases());
        let index = reader.status().applied.map_or(0, |id| id.index);
        let shared = Arc::new(Shared { state: Mutex::new((state, index)), reader, lessor });
        let expiry = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    let id = shared.lessor.run_out().await;
                    // Already revoked is as good.
                    let _ = shared.propose(Request::Revoke(id));
                }
            }
        });
        Self { shared, expiry: expiry.abort_handle() }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

#[async_trait]
impl Store for Driver {
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        admit::range(&range)?;
        self.shared.reader.range(range).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        admit::txn(&txn)?;
        if admit::reads_only(&txn) {
            return self.shared.reader.txn(txn).await;
        }
        match self.shared.propose(Request::Txn { txn, guard: None })? {
            Answer::Txn(answer) => Ok(answer),
            other => panic!("not the answer of a transaction: {other:?}"),
        }
    }

    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error> {
        admit::watch(&watch)?;
        self.shared.reader.watch(watch)
    }

    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        let ttl_seconds = admit::lease(ttl_seconds, id)?;
        match self.shared.propose(Request::Grant { ttl_seconds, id })? {
            Answer::Grant(lease) => Ok(lease),
            other => panic!("not the answer of a grant: {other:?}"),
        }
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.shared.lessor.keep_alive(id)
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        match self.shared.propose(Request::Revoke(id))? {
            Answer::Revoke(revision) => Ok(revision),
            other => panic!("not the answer of a revoke: {other:?}"),
        }
    }

    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        let (lease, left) = self.shared.lessor.remaining(id)?;
        let keys = self.shared.reader.lease_keys(id).await?;
        Ok(LeaseStatus { id, ttl_seconds: lease.ttl_seconds, remaining_seconds: left.as_secs(), keys })
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        Ok(self.shared.reader.leases().into_iter().map(|lease| lease.id).collect())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.shared.propose(Request::Compact(revision)).map(drop)
    }

    async fn status(&self) -> Result<Status, Error> {
        let status = self.shared.reader.status();
        let db_bytes = status.disk_bytes + status.memory_bytes;
        Ok(Status { revision: status.revision, compacted: status.compacted, db_bytes, engine: "state" })
    }
}
