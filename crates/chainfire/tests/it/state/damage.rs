//! Damaged files: the answer is the truth or an error that names the state, never anything else.

use std::path::{Path, PathBuf};

use chainfire::state::{Place, State};
use store::conformance::history::numbers;
use store::{Batch, Error, KeyValue, Range, WatchRequest};

use super::driver::tiny;
use super::load::entries;

const ROUNDS: usize = 200;

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().is_some_and(|name| name != "lock") && path.metadata().unwrap().len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[derive(PartialEq, Debug)]
struct Contents {
    rows: Vec<KeyValue>,
    past: Vec<KeyValue>,
    batches: Vec<Batch>,
    hash: u32,
}

async fn contents(place: &Place) -> Result<Contents, Error> {
    let state = State::open(place, tiny())?;
    let reader = state.reader();
    let (revision, compacted) = reader.revisions();
    let rows = reader.range(Range::all()).await?.items;
    let past = reader.range(Range::all().at(compacted)).await?.items;
    let mut watcher = reader.watch(WatchRequest::prefix("").from(compacted.next()).previous())?;
    let mut batches = Vec::new();
    for _ in compacted.0..revision.0 {
        batches.extend(watcher.next().await?);
    }
    let hash = reader.hash(None).await?.hash;
    reader.check().await?;
    Ok(Contents { rows, past, batches, hash })
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_never_served() {
    let sound = tempfile::tempdir().unwrap();
    let place = Place::Folder(sound.path().to_path_buf());
    let mut state = State::open(&place, tiny()).unwrap();
    for part in entries(11, 400).chunks(50) {
        state.take(part).unwrap();
        state.reader().flush().await.unwrap();
    }
    drop(state);
    let truth = contents(&place).await.unwrap();
    assert!(!truth.rows.is_empty() && truth.batches.len() > 20);
    let (mut refused, mut survived) = (0, 0);
    for number in numbers(13, ROUNDS) {
        let dir = tempfile::tempdir().unwrap();
        copy(sound.path(), dir.path());
        let files = files(dir.path());
        let path = &files[number as usize % files.len()];
        let mut bytes = std::fs::read(path).unwrap();
        let at = (number >> 16) as usize % bytes.len();
        bytes[at] ^= 1 << ((number >> 8) % 8);
        std::fs::write(path, bytes).unwrap();
        match contents(&Place::Folder(dir.path().to_path_buf())).await {
            Ok(seen) => {
                assert_eq!(seen, truth, "bit of byte {at} in {}", path.display());
                survived += 1;
            }
            Err(Error::Corrupt { path: named, .. } | Error::FormatUnknown { path: named, .. }) => {
                assert!(named.starts_with(dir.path()), "{}", named.display());
                refused += 1;
            }
            Err(other) => panic!("bit of byte {at} in {}: {other}", path.display()),
        }
    }
    assert!(refused > survived, "{refused} refused, {survived} where it does not matter");
}

#[tokio::test]
async fn a_missing_file_is_told() {
    let sound = tempfile::tempdir().unwrap();
    let place = Place::Folder(sound.path().to_path_buf());
    let mut state = State::open(&place, tiny()).unwrap();
    state.take(&entries(11, 200)).unwrap();
    state.reader().flush().await.unwrap();
    drop(state);
    let truth = contents(&place).await.unwrap();
    for missing in files(sound.path()) {
        let dir = tempfile::tempdir().unwrap();
        copy(sound.path(), dir.path());
        let path = dir.path().join(missing.strip_prefix(sound.path()).unwrap());
        std::fs::remove_file(&path).unwrap();
        match contents(&Place::Folder(dir.path().to_path_buf())).await {
            // An old version of the manifest is of no use any more.
            Ok(seen) => assert!(seen == truth && path.file_name().unwrap().to_str().unwrap().starts_with('v')),
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "without {}: {error}", path.display()),
        }
    }
}
