//! Leases.

use std::sync::Arc;

use super::{does, get, keys, next, put, watching};
use crate::limits::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN};
use crate::{Error, EventKind, LeaseId, Op, Range, Store, Txn, WatchRequest};

pub async fn ids_are_chosen_or_given(store: Arc<dyn Store>) {
    let given = store.lease_grant(600, Some(LeaseId(7))).await.unwrap();
    assert_eq!((given.id, given.ttl_seconds), (LeaseId(7), 600));
    assert!(matches!(store.lease_grant(600, Some(LeaseId(7))).await, Err(Error::LeaseExists { id: LeaseId(7) })));
    let mut ids = std::collections::HashSet::from([given.id]);
    for _ in 0..10 {
        let chosen = store.lease_grant(600, None).await.unwrap();
        assert!(chosen.id.0 > 0 && ids.insert(chosen.id));
    }
    for bad in [LeaseId(0), LeaseId(-1)] {
        assert!(matches!(store.lease_grant(600, Some(bad)).await, Err(Error::LeaseIdInvalid { .. })));
    }
    let long = store.lease_grant(LEASE_TTL_SECONDS_MAX + 1, None).await;
    assert!(matches!(long, Err(Error::LeaseTtl { .. })));
    store.lease_grant(LEASE_TTL_SECONDS_MAX, Some(LeaseId(i64::MAX))).await.unwrap();
    let short = store.lease_grant(0, None).await.unwrap();
    // A replicated engine needs longer to be sure that nobody renewed it.
    assert!(short.ttl_seconds >= LEASE_TTL_SECONDS_MIN);
    let status = store.status().await.unwrap();
    assert_eq!(status.revision, crate::Revision::FIRST, "a lease is not a change");
}

pub async fn revoking_deletes_the_keys_in_one_revision(store: Arc<dyn Store>) {
    let lease = store.lease_grant(600, None).await.unwrap().id;
    does(&store, [Op::put_leased("b", "", lease), Op::put_leased("a", "", lease), Op::put("free", "")]).await;
    let before = does(&store, [Op::put_leased("c", "", lease)]).await.revision;
    assert_eq!(get(&store, "c").await.unwrap().lease, Some(lease));
    let status = store.lease_time_to_live(lease).await.unwrap();
    assert_eq!((status.id, status.ttl_seconds), (lease, 600));
    assert!(status.remaining_seconds <= 600);
    assert_eq!(status.keys, ["a", "b", "c"]);
    let mut watcher = watching(&store, WatchRequest::prefix("").previous()).await;
    assert_eq!(store.lease_revoke(lease).await.unwrap(), before.next());
    let batch = next(&mut watcher).await;
    assert_eq!(batch.revision, before.next());
    let gone: Vec<_> = batch.events.iter().map(|event| super::text(&event.kv.key)).collect();
    assert_eq!(gone, ["a", "b", "c"]);
    assert!(batch.events.iter().all(|event| event.kind == EventKind::Delete && event.previous.is_some()));
    assert_eq!(keys(&store, Range::all()).await, ["free"]);
    assert!(matches!(store.lease_revoke(lease).await, Err(Error::LeaseNotFound { .. })));
    assert!(matches!(store.lease_keep_alive(lease).await, Err(Error::LeaseNotFound { .. })));
    assert!(matches!(store.lease_time_to_live(lease).await, Err(Error::LeaseNotFound { .. })));
    let unused = store.lease_grant(600, None).await.unwrap().id;
    assert_eq!(store.lease_revoke(unused).await.unwrap(), before.next(), "no keys, no revision");
}

pub async fn the_last_put_decides_the_lease(store: Arc<dyn Store>) {
    let one = store.lease_grant(600, None).await.unwrap().id;
    let two = store.lease_grant(600, None).await.unwrap().id;
    for key in ["detached", "moved", "stays", "deleted"] {
        does(&store, [Op::put_leased(key, "", one)]).await;
    }
    put(&store, "detached", "").await;
    does(&store, [Op::put_leased("moved", "", two)]).await;
    does(&store, [Op::put_leased("stays", "again", one)]).await;
    super::delete(&store, "deleted").await;
    put(&store, "deleted", "again").await;
    assert_eq!(store.lease_time_to_live(one).await.unwrap().keys, ["stays"]);
    assert_eq!(store.lease_time_to_live(two).await.unwrap().keys, ["moved"]);
    store.lease_revoke(one).await.unwrap();
    assert_eq!(keys(&store, Range::all()).await, ["deleted", "detached", "moved"]);
    store.lease_revoke(two).await.unwrap();
    assert_eq!(keys(&store, Range::all()).await, ["deleted", "detached"]);
}

pub async fn an_unknown_lease_is_refused(store: Arc<dyn Store>) {
    let put = Txn::of([Op::put_leased("a", "", LeaseId(5))]);
    assert!(matches!(store.txn(put).await, Err(Error::LeaseNotFound { id: LeaseId(5) })));
    assert!(matches!(store.lease_revoke(LeaseId(5)).await, Err(Error::LeaseNotFound { .. })));
    assert!(matches!(store.lease_keep_alive(LeaseId(5)).await, Err(Error::LeaseNotFound { .. })));
    assert_eq!(get(&store, "a").await, None);
}

pub async fn a_lease_that_runs_out_takes_its_keys(store: Arc<dyn Store>) {
    let lasting = store.lease_grant(600, None).await.unwrap().id;
    does(&store, [Op::put_leased("lasting", "", lasting)]).await;
    let lease = store.lease_grant(1, None).await.unwrap().id;
    let before = does(&store, [Op::put_leased("b", "", lease), Op::put_leased("a", "", lease)]).await.revision;
    let mut watcher = watching(&store, WatchRequest::prefix("").from(before.next())).await;
    let batch = next(&mut watcher).await;
    assert_eq!(batch.revision, before.next());
    assert_eq!(batch.events.len(), 2);
    assert!(batch.events.iter().all(|event| event.kind == EventKind::Delete));
    assert_eq!(keys(&store, Range::all()).await, ["lasting"]);
    assert!(matches!(store.lease_keep_alive(lease).await, Err(Error::LeaseNotFound { .. })));
    let put = Txn::of([Op::put_leased("a", "", lease)]);
    assert!(matches!(store.txn(put).await, Err(Error::LeaseNotFound { .. })));
    store.lease_keep_alive(lasting).await.unwrap();
}

pub async fn a_life_sign_gives_the_full_time(store: Arc<dyn Store>) {
    let lease = store.lease_grant(600, None).await.unwrap().id;
    let alive = store.lease_keep_alive(lease).await.unwrap();
    assert_eq!((alive.id, alive.ttl_seconds), (lease, 600));
    let left = store.lease_time_to_live(lease).await.unwrap();
    assert!(left.remaining_seconds > 500 && left.keys.is_empty());
    let revision = store.status().await.unwrap().revision;
    assert_eq!(revision, crate::Revision::FIRST);
}

pub async fn leases_are_listed(store: Arc<dyn Store>) {
    assert!(store.leases().await.unwrap().is_empty());
    for id in [9, 3, 70] {
        store.lease_grant(600, Some(LeaseId(id))).await.unwrap();
    }
    store.lease_revoke(LeaseId(9)).await.unwrap();
    assert_eq!(store.leases().await.unwrap(), [LeaseId(3), LeaseId(70)]);
}
