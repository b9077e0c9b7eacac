//! The state as Raft calls it.

use chainfire::command::Request;
use chainfire::state::{Image, Options, Place, State};
use futures::stream;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use store::{Op, Range, Revision, Txn};

use super::driver::{entry, tiny};
use super::load::{entries, seen, truth};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_come_as_a_stream_and_a_snapshot_makes_them_durable() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Folder(dir.path().to_path_buf());
    let mut state = State::open(&place, Options::default()).unwrap();
    assert_eq!(state.applied_state().await.unwrap().0, None);
    assert!(state.get_current_snapshot().await.unwrap().is_none(), "there is nothing to send");
    let all = entries(21, 900);
    let reader = state.reader();
    let waiting = tokio::spawn({
        let reader = reader.clone();
        async move { reader.wait_applied(700).await.unwrap() }
    });
    state.apply(stream::iter(all.iter().cloned().map(|entry| Ok((entry, None))))).await.unwrap();
    assert!(waiting.await.unwrap().index() >= 700);
    let (expected, _) = truth(&all).await;
    assert_eq!(seen(&reader).await, expected);
    let (applied, membership) = state.applied_state().await.unwrap();
    assert_eq!((applied, membership.log_id().unwrap().index), (expected.applied, 0));
    assert_eq!(reader.durable_index(), 0, "nothing was large enough to be written down by itself");
    let built = state.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!((built.meta.last_log_id, reader.durable_index()), (applied, 899));
    drop((built, state, reader));

    let mut state = State::open(&place, Options::default()).unwrap();
    assert_eq!(state.applied_state().await.unwrap(), (applied, membership));
    let sent = state.get_current_snapshot().await.unwrap().unwrap();
    let mut other = State::open(&Place::Memory(Image::default()), Options::default()).unwrap();
    let mut incoming = other.reader().receive().unwrap();
    let mut pieces = sent.snapshot.pieces();
    while let Some(piece) = pieces.recv().await {
        incoming.write(piece.unwrap()).unwrap();
    }
    let received = incoming.finish().unwrap();
    let mut wrong = sent.meta.clone();
    wrong.last_log_id = None;
    assert!(other.install_snapshot(&wrong, received.clone()).await.is_err(), "it is of another moment");
    other.install_snapshot(&sent.meta, received).await.unwrap();
    assert_eq!(seen(&other.reader()).await, expected);
}

#[tokio::test]
async fn what_is_answered_can_be_read() {
    let mut state = State::open(&Place::Memory(Image::default()), tiny()).unwrap();
    let reader = state.reader();
    let mut applied = reader.applied();
    for n in 1..50 {
        let txn = Txn::of([Op::put("k", n.to_string())]);
        state.take([&entry(n, vec![Request::Txn { txn, guard: None }])]).unwrap();
        applied.changed().await.unwrap();
        assert_eq!((applied.borrow().index(), applied.borrow().revision), (n, Revision(n + 1)));
        let row = reader.range(Range::key("k")).await.unwrap().items.remove(0);
        assert_eq!(row.value, n.to_string());
    }
}
