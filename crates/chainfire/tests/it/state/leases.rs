//! What the state says of leases and of system rows.

use std::sync::Arc;

use bytes::Bytes;
use chainfire::command::{Answer, Refusal, Request};
use chainfire::state::{Image, LeaseChange, LeaseHook, Options, Place, State};
use parking_lot::Mutex;
use store::{Error, Lease, LeaseId, Op, Range, Txn};

use super::driver::{entry, tiny};

fn one(state: &mut State, index: u64, request: Request) -> Result<Answer, Refusal> {
    state.take([&entry(index, vec![request])]).unwrap().remove(0).answers.remove(0)
}

#[tokio::test]
async fn the_member_hears_of_leases_before_anybody_is_answered() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = LeaseHook({
        let told = told.clone();
        Arc::new(move |changes| told.lock().extend(changes.to_vec()))
    });
    let options = Options { on_leases: Some(hook), ..Options::default() };
    let mut state = State::open(&Place::Memory(Image::default()), options).unwrap();
    let grant = |id| Request::Grant { ttl_seconds: 7, id };
    let lease = |id| Lease { id: LeaseId(id), ttl_seconds: 7 };
    one(&mut state, 1, grant(Some(LeaseId(2)))).unwrap();
    assert_eq!(one(&mut state, 2, grant(None)).unwrap(), Answer::Grant(lease(1)));
    assert_eq!(one(&mut state, 3, grant(None)).unwrap(), Answer::Grant(lease(3)), "2 is taken");
    let again = one(&mut state, 4, grant(Some(LeaseId(3))));
    assert!(matches!(again, Err(Refusal::Store(Error::LeaseExists { id: LeaseId(3) }))));
    one(&mut state, 5, Request::Revoke(LeaseId(2))).unwrap();
    assert!(matches!(
        one(&mut state, 6, Request::Revoke(LeaseId(2))),
        Err(Refusal::Store(Error::LeaseNotFound { .. }))
    ));
    let granted = |id| LeaseChange::Granted(lease(id));
    assert_eq!(*told.lock(), [granted(2), granted(1), granted(3), LeaseChange::Revoked(LeaseId(2))]);
    assert_eq!(state.reader().leases(), [lease(1), lease(3)]);

    told.lock().clear();
    let mut other = State::open(&Place::Memory(Image::default()), Options::default()).unwrap();
    one(&mut other, 9, Request::Grant { ttl_seconds: 7, id: Some(LeaseId(77)) }).unwrap();
    state.replace(&other.reader().dump()).unwrap();
    assert_eq!(*told.lock(), [LeaseChange::Replaced(vec![lease(77)])]);
}

#[tokio::test]
async fn a_lease_that_was_chosen_is_not_chosen_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Folder(dir.path().to_path_buf());
    let grant = || Request::Grant { ttl_seconds: 7, id: None };
    let mut state = State::open(&place, tiny()).unwrap();
    one(&mut state, 1, grant()).unwrap();
    one(&mut state, 2, Request::Txn { txn: Txn::of([Op::put_leased("k", "", LeaseId(1))]), guard: None }).unwrap();
    one(&mut state, 3, Request::Revoke(LeaseId(1))).unwrap();
    state.reader().flush().await.unwrap();
    drop(state);
    let mut state = State::open(&place, tiny()).unwrap();
    assert!(state.reader().range(Range::key("k")).await.unwrap().items.is_empty());
    assert!(matches!(one(&mut state, 4, grant()).unwrap(), Answer::Grant(Lease { id: LeaseId(2), .. })));
}

#[tokio::test]
async fn system_rows_change_by_comparison_and_guard_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Folder(dir.path().to_path_buf());
    let mut state = State::open(&place, tiny()).unwrap();
    let rows = |value: &'static str| vec![(Bytes::from_static(b"user"), Some(Bytes::from_static(value.as_bytes())))];
    let system = |expected, rows| Request::System { expected, rows };
    let guarded = |guard| Request::Txn { txn: Txn::of([Op::put("k", "")]), guard: Some(guard) };
    assert_eq!(one(&mut state, 1, system(0, rows("a"))).unwrap(), Answer::System(1));
    let moved = one(&mut state, 2, system(0, rows("b")));
    assert!(matches!(moved, Err(Refusal::SystemMoved { version: 1 })));
    assert!(matches!(one(&mut state, 3, guarded(0)), Err(Refusal::SystemMoved { version: 1 })));
    assert!(state.reader().range(Range::key("k")).await.unwrap().items.is_empty(), "nothing was changed");
    one(&mut state, 4, guarded(1)).unwrap();

    // Within one entry each request sees what those before it did.
    let both = entry(5, vec![system(1, rows("c")), system(2, vec![(Bytes::from_static(b"user"), None)]), guarded(2)]);
    let answers = state.take([&both]).unwrap().remove(0).answers;
    assert!(matches!(
        answers[..],
        [Ok(Answer::System(2)), Ok(Answer::System(3)), Err(Refusal::SystemMoved { version: 3 })]
    ));
    assert!(state.reader().system().rows.is_empty());
    one(&mut state, 6, system(3, rows("d"))).unwrap();
    let revision = state.reader().status().revision;
    assert_eq!(revision.0, 2, "system rows take no revision");
    state.reader().flush().await.unwrap();
    drop(state);
    let state = State::open(&place, tiny()).unwrap();
    let system = state.reader().system();
    assert_eq!((system.version, &system.rows[&b"user"[..]][..]), (4, &b"d"[..]));
}
