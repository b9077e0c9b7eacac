//! The same entries lead to the same state, however they come.

use chainfire::state::{Image, Options, Place, State};
use store::Range;
use store::conformance::history::numbers;

use super::driver::{Entry, tiny};
use super::load::{entries, seen, truth};

const ENTRIES: u64 = 600;

fn take(state: &mut State, entries: &[Entry], sizes: &mut impl Iterator<Item = u64>) -> Vec<String> {
    let mut rest = entries;
    let mut answers = Vec::new();
    while !rest.is_empty() {
        let size = sizes.next().unwrap().clamp(1, rest.len() as u64) as usize;
        let (now, later) = rest.split_at(size);
        answers.extend(state.take(now).unwrap().into_iter().map(|outcome| format!("{:?}", outcome.answers)));
        rest = later;
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_disks_and_restarts_make_no_difference() {
    for seed in 1..=6 {
        let entries = entries(seed, ENTRIES);
        let (expected, answers) = truth(&entries).await;
        let answers: Vec<String> = answers.iter().map(|answers| format!("{answers:?}")).collect();
        assert!(expected.rows.len() > 5 && expected.compacted.0 > 10, "the load does too little: {expected:?}");

        // One by one, in memory.
        let mut state = State::open(&Place::Memory(Image::default()), Options::default()).unwrap();
        assert_eq!(take(&mut state, &entries, &mut std::iter::repeat(1)), answers);
        assert_eq!(seen(&state.reader()).await, expected);

        // In odd batches, on disk, opened again in between.
        let dir = tempfile::tempdir().unwrap();
        let place = Place::Folder(dir.path().to_path_buf());
        let mut sizes = numbers(seed, 10_000).into_iter().map(|number| number % 40);
        let mut told = Vec::new();
        for part in entries.chunks(150) {
            let mut state = State::open(&place, tiny()).unwrap();
            told.extend(take(&mut state, part, &mut sizes));
            let reader = state.reader();
            reader.flush().await.unwrap();
            assert_eq!(Some(reader.durable_index()), part.last().map(|entry| entry.log_id.index));
        }
        assert_eq!(told, answers);
        let state = State::open(&place, tiny()).unwrap();
        assert_eq!(seen(&state.reader()).await, expected);
        state.reader().check().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_compacted_makes_no_difference_to_the_hash_before_and_after_it_is_given_back() {
    let entries = entries(9, 300);
    let image = Image::default();
    let mut state = State::open(&Place::Memory(image), Options::default()).unwrap();
    state.take(&entries).unwrap();
    let reader = state.reader();
    let (first, items) = (reader.hash(None).await.unwrap(), reader.status().memory_bytes);
    // In memory each batch takes one step of giving back.
    for index in 300..330 {
        state.take([&super::driver::entry(index, vec![])]).unwrap();
    }
    reader.flush().await.unwrap();
    assert!(reader.status().memory_bytes < items, "something was given back");
    assert_eq!(reader.hash(None).await.unwrap(), first);
}

#[tokio::test]
async fn a_moment_stays_as_it_was_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::open(&Place::Folder(dir.path().to_path_buf()), tiny()).unwrap();
    let entries = entries(4, 400);
    state.take(&entries[..200]).unwrap();
    let reader = state.reader();
    let before = reader.range(Range::all()).await.unwrap();
    let dump = reader.dump();
    state.take(&entries[200..]).unwrap();
    reader.flush().await.unwrap();
    assert_ne!(reader.range(Range::all()).await.unwrap().items, before.items);
    let mut incoming = reader.receive().unwrap();
    let mut pieces = dump.pieces();
    while let Some(piece) = pieces.recv().await {
        incoming.write(piece.unwrap()).unwrap();
    }
    let mut other = State::open(&Place::Memory(Image::default()), Options::default()).unwrap();
    other.replace(&incoming.finish().unwrap()).unwrap();
    assert_eq!(other.reader().range(Range::all()).await.unwrap(), before);
}
