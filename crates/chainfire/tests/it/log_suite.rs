//! openraft's own suite for storage, on the log and on a state machine that keeps no data.

use std::io;
use std::sync::Arc;

use chainfire::log::Log;
use chainfire::member::types::{Outcome, Types};
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::{EntryPayload, OptionalSend, StorageError};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::log_support::{Id, small};

/// What was applied and the membership, nothing else.
#[derive(Clone, Default)]
struct Applied {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    now: SnapshotMetaOf<Types>,
    snapshot: Option<SnapshotMetaOf<Types>>,
}

impl RaftSnapshotBuilder<Types> for Applied {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, ()>> {
        let mut inner = self.inner.lock();
        inner.snapshot = Some(inner.now.clone());
        Ok(Snapshot { meta: inner.now.clone(), snapshot: () })
    }
}

impl RaftStateMachine<Types> for Applied {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<Id>, StoredMembershipOf<Types>)> {
        let now = self.inner.lock().now.clone();
        Ok((now.last_log_id, now.last_membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut inner = self.inner.lock();
            inner.now.last_log_id = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                inner.now.last_membership = StoredMembershipOf::<Types>::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(Outcome::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, (): ()) -> io::Result<()> {
        *self.inner.lock() = Inner { now: meta.clone(), snapshot: Some(meta.clone()) };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, ()>>> {
        Ok(self.inner.lock().snapshot.clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

struct Builder;

impl StoreBuilder<Types, Log, Applied, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Applied), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), small()).unwrap();
        Ok((dir, log, Applied::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_passes_openrafts_suite() {
    Suite::test_all(Builder).await.unwrap();
}
