//! A shared member as a store of its own, for suites that want to own it.

use std::sync::Arc;

use async_trait::async_trait;
use chainfire::member::Member;
use store::{
    Error, Lease, LeaseId, LeaseStatus, Range, RangeAnswer, Revision, Status, Store, Txn, TxnAnswer, WatchRequest,
    Watcher,
};

pub struct StandIn(pub Arc<Member>);

#[async_trait]
impl Store for StandIn {
    async fn range(&self, range: Range) -> Result<RangeAnswer, Error> {
        self.0.range(range).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        self.0.txn(txn).await
    }

    async fn watch(&self, watch: WatchRequest) -> Result<Watcher, Error> {
        self.0.watch(watch).await
    }

    async fn lease_grant(&self, ttl_seconds: u64, id: Option<LeaseId>) -> Result<Lease, Error> {
        self.0.lease_grant(ttl_seconds, id).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Lease, Error> {
        self.0.lease_keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, Error> {
        self.0.lease_revoke(id).await
    }

    async fn lease_time_to_live(&self, id: LeaseId) -> Result<LeaseStatus, Error> {
        self.0.lease_time_to_live(id).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.0.leases().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.0.compact(revision).await
    }

    async fn status(&self) -> Result<Status, Error> {
        Store::status(&*self.0).await
    }
}
