//! Copies: made while entries are applied, sent, installed, restored.

use std::sync::Arc;

use bytes::Bytes;
use chainfire::command::Request;
use chainfire::state::{Dump, Image, LogId, Membership, Options, Place, Reader, State, import, inspect};
use store::{Error, Op, Range, Revision, Txn, WatchRequest};

use super::driver::{entry, tiny};
use super::load::{entries, seen, truth};

async fn pieces(dump: &Dump) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut coming = dump.pieces();
    while let Some(piece) = coming.recv().await {
        let piece = piece.unwrap();
        assert!(piece.len() <= 1 << 20);
        pieces.push(piece);
    }
    pieces
}

fn receive(reader: &Reader, pieces: impl IntoIterator<Item = Bytes>) -> Result<Dump, Error> {
    let mut incoming = reader.receive()?;
    for piece in pieces {
        incoming.write(piece)?;
    }
    incoming.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_entries_are_applied_is_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::open(&Place::Folder(dir.path().to_path_buf()), tiny()).unwrap();
    let all = Arc::new(entries(2, 2_000));
    let reader = state.reader();
    let applying = tokio::task::spawn_blocking({
        let all = all.clone();
        move || {
            for part in all.chunks(7) {
                state.take(part).unwrap();
            }
            state
        }
    });
    let mut copies = 0;
    while !applying.is_finished() {
        let dump = reader.dump();
        let Some(applied) = dump.marks().applied else { continue };
        let copy = pieces(&dump).await;
        for place in [Place::Memory(Image::default()), Place::Folder(tempfile::tempdir().unwrap().keep())] {
            let mut other = State::open(&place, tiny()).unwrap();
            let received = receive(&other.reader(), copy.clone()).unwrap();
            assert_eq!(received.marks(), dump.marks());
            other.replace(&received).unwrap();
            let (expected, _) = truth(&all[..=applied.index as usize]).await;
            assert_eq!(seen(&other.reader()).await, expected);
            assert_eq!(other.reader().durable_index(), applied.index, "an installed state is durable");
            drop(received);
            // And it goes on.
            other.take(&all[applied.index as usize + 1..]).unwrap();
            assert_eq!(seen(&other.reader()).await, truth(&all).await.0);
            drop(other);
            if let Place::Folder(dir) = place {
                let state = State::open(&Place::Folder(dir.clone()), tiny()).unwrap();
                assert!(state.reader().status().applied >= Some(applied), "after a restart too");
                assert!(std::fs::read_dir(dir.join("snapshots")).unwrap().next().is_none(), "the copy is gone");
                drop(state);
                std::fs::remove_dir_all(dir).unwrap();
            }
        }
        copies += 1;
    }
    applying.await.unwrap();
    assert!(copies > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_miss_nothing_when_a_copy_is_installed() {
    let put = |n: u64| vec![Request::Txn { txn: Txn::of([Op::put("k", n.to_string())]), guard: None }];
    let log: Vec<_> = (0..40).map(|n| entry(n, put(n))).collect();
    for place in [Place::Memory(Image::default()), Place::Folder(tempfile::tempdir().unwrap().keep())] {
        let mut leader = State::open(&Place::Memory(Image::default()), Options::default()).unwrap();
        let mut follower = State::open(&place, tiny()).unwrap();
        let reader = follower.reader();
        follower.take(&log[..10]).unwrap();
        let mut live = reader.watch(WatchRequest::key("k")).unwrap();
        let mut slow = reader.watch(WatchRequest::key("k").from(Revision(2)).previous()).unwrap();
        let mut future = reader.watch(WatchRequest::key("k").from(Revision(35))).unwrap();
        leader.take(&log[..30]).unwrap();
        let copy = pieces(&leader.reader().dump()).await;
        follower.replace(&receive(&reader, copy).unwrap()).unwrap();
        follower.take(&log[30..]).unwrap();
        for revision in 2..=41 {
            let batch = slow.next().await.unwrap().unwrap();
            assert_eq!(batch.revision, Revision(revision));
            let previous = batch.events[0].previous.as_ref().map(|kv| kv.value.clone());
            assert_eq!(previous, (revision > 2).then(|| Bytes::from((revision - 3).to_string())));
            if revision >= 12 {
                assert_eq!(live.next().await.unwrap().unwrap().revision, Revision(revision));
            }
            if revision >= 35 {
                assert_eq!(future.next().await.unwrap().unwrap().revision, Revision(revision));
            }
        }

        // A copy without the history that a watcher needs ends it, and says so.
        let mut behind = reader.watch(WatchRequest::key("k")).unwrap();
        leader.take(&log[30..]).unwrap();
        let more: Vec<_> = (40..60).map(|n| entry(n, put(n))).collect();
        leader.take(&more).unwrap();
        leader.take([&entry(60, vec![Request::Compact(Revision(55))])]).unwrap();
        let copy = pieces(&leader.reader().dump()).await;
        follower.replace(&receive(&reader, copy).unwrap()).unwrap();
        assert!(matches!(behind.next().await, Err(Error::Compacted { compacted: Revision(55) })));
        let from_there = WatchRequest::key("k").from(Revision(55));
        assert_eq!(reader.watch(from_there).unwrap().next().await.unwrap().unwrap().revision, Revision(55));
        drop((follower, reader, live, slow, future, behind));
        if let Place::Folder(dir) = place {
            let states = std::fs::read_dir(dir.join("state")).unwrap();
            let folders = states.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
            assert_eq!(folders, 1, "old states are removed");
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_damaged_copy_is_taken() {
    let mut leader = State::open(&Place::Memory(Image::default()), Options::default()).unwrap();
    leader.take(&entries(8, 300)).unwrap();
    let large = Op::put("large", vec![7; 1_400_000]);
    leader.take([&entry(300, vec![Request::Txn { txn: Txn::of([large]), guard: None }])]).unwrap();
    let copy = pieces(&leader.reader().dump()).await;
    assert!(copy.len() >= 4, "a header, two pieces of items, an end: {}", copy.len());
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Folder(dir.path().to_path_buf());
    let mut follower = State::open(&place, tiny()).unwrap();
    follower.take(&entries(7, 50)).unwrap();
    let reader = follower.reader();
    let before = seen(&reader).await;
    let refused = |pieces: Vec<Bytes>, what: &str| {
        let error = receive(&reader, pieces).expect_err(what);
        assert!(matches!(error, Error::Corrupt { .. } | Error::FormatUnknown { .. }), "{what}: {error}");
    };
    for at in 0..copy.len() {
        let mut missing = copy.clone();
        missing.remove(at);
        refused(missing, "a missing piece");
        let mut doubled = copy.clone();
        doubled.insert(at, copy[at].clone());
        refused(doubled, "a doubled piece");
        if at + 1 < copy.len() {
            let mut swapped = copy.clone();
            swapped.swap(at, at + 1);
            refused(swapped, "swapped pieces");
        }
        let length = copy[at].len();
        for bit in [0, 7, 8 * 3, 8 * 6 + 1, 8 * (length / 2), 8 * (length - 1) + 7, 8 * (length - 4)] {
            let mut flipped = copy[at].to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut damaged = copy.clone();
            damaged[at] = Bytes::from(flipped);
            refused(damaged, "a flipped bit");
        }
        for cut in [0, 1, length / 2, length - 1] {
            let mut short = copy[..=at].to_vec();
            short[at].truncate(cut);
            refused(short, "a cut copy");
        }
    }
    let mut long = copy.clone();
    long.push(Bytes::from_static(b"x"));
    refused(long, "a copy that goes on");
    refused(vec![], "nothing");
    assert_eq!(seen(&reader).await, before, "nothing was changed");
    assert!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().next().is_none(), "nothing is left behind");

    // However it is cut on its way, the sound one is taken.
    let whole: Vec<u8> = copy.concat();
    let dump = receive(&reader, whole.chunks(1_000).map(Bytes::copy_from_slice)).unwrap();
    follower.replace(&dump).unwrap();
    assert_eq!(seen(&reader).await, seen(&leader.reader()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_a_file_becomes_the_state_of_a_new_member() {
    let mut old = State::open(&Place::Memory(Image::default()), Options::default()).unwrap();
    old.take(&entries(6, 500)).unwrap();
    let before = seen(&old.reader()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("copy");
    let copy: Vec<u8> = pieces(&old.reader().dump()).await.concat();
    std::fs::write(&file, &copy).unwrap();
    assert_eq!(inspect(&file).unwrap().revision, before.revision);

    let place = Place::Folder(dir.path().join("member"));
    let mut damaged = copy.clone();
    damaged[copy.len() / 2] ^= 1;
    for (bad, what) in [(&damaged[..], "damaged"), (&copy[..copy.len() - 1], "cut")] {
        let other = dir.path().join(what);
        std::fs::write(&other, bad).unwrap();
        assert!(inspect(&other).is_err());
        let refused = import(&place, &other, tiny().tree, None, Membership::default());
        assert!(matches!(refused, Err(Error::Corrupt { path, .. }) if path == other), "{what}");
    }

    let membership = Membership::default();
    let applied = Some(LogId::new_term_index(3, 9));
    import(&place, &file, tiny().tree, applied, membership).unwrap();
    let again = import(&place, &file, tiny().tree, applied, Membership::default());
    assert!(again.is_err(), "a state that is there is not overwritten");
    let mut new = State::open(&place, tiny()).unwrap();
    let after = seen(&new.reader()).await;
    assert_eq!((after.applied, after.hash, after.hash_before), (applied, before.hash, before.hash_before));
    assert_eq!((after.rows, after.leases, after.system), (before.rows, before.leases, before.system));
    assert_ne!(after.membership, before.membership);
    new.take([&entry(10, vec![Request::Txn { txn: Txn::of([Op::put("after", "")]), guard: None }])]).unwrap();
    let kv = new.reader().range(Range::key("after")).await.unwrap().items.remove(0);
    assert_eq!(kv.mod_revision, before.revision.next(), "revisions go on");
}
