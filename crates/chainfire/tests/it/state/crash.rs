//! A process that applies, killed at any moment, many times on one folder. What it loses the log gives back.

use std::process::{Command, Stdio};
use std::time::Duration;

use chainfire::state::{Place, State};
use store::conformance::history::numbers;

use super::driver::tiny;
use super::load::{entries, seen, truth};

/// Tells the test binary that it is the child, and where to apply.
const CHILD: &str = "CHAINFIRE_STATE_CHILD";
const SEED: u64 = 5;
const ENTRIES: u64 = 6_000;
const ROUNDS: usize = 12;
const LIFE_MS_MAX: u64 = 500;

/// The body of the child: goes on where the state is, until it is killed. Started as a test of its own it has nothing
/// to do.
#[test]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let entries = entries(SEED, ENTRIES);
    let mut state = State::open(&Place::Folder(dir.into()), tiny()).unwrap();
    println!("\nopen");
    let applied = state.reader().status().applied.map_or(0, |id| id.index as usize + 1);
    let mut rest = &entries[applied..];
    for size in numbers(u64::from(std::process::id()), 100_000) {
        let (now, later) = rest.split_at((1 + size as usize % 8).min(rest.len()));
        state.take(now).unwrap();
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    // There is more life than entries: keep writing the same bytes to the disk.
    loop {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(state.reader().flush()).unwrap();
    }
}

#[test]
fn a_killed_state_is_whole_and_goes_on_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Folder(dir.path().to_path_buf());
    let entries = entries(SEED, ENTRIES);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut reached = Vec::new();
    for life in numbers(u64::from(std::process::id()), ROUNDS) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "state::crash::child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line != "open\n" {
            line.clear();
            assert!(
                std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0,
                "the child could not open the state"
            );
        }
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(life % LIFE_MS_MAX)).await });
        child.kill().unwrap();
        child.wait().unwrap();
        runtime.block_on(async {
            let mut state = State::open(&place, tiny()).unwrap();
            let reader = state.reader();
            let applied = reader.status().applied.map_or(0, |id| id.index + 1);
            assert!(reached.last().is_none_or(|last| applied >= *last), "what was durable stays");
            reached.push(applied);
            let (expected, _) = truth(&entries[..applied as usize]).await;
            assert_eq!(seen(&reader).await, expected, "after {applied} entries");
            reader.check().await.unwrap();
            // The rest of the log leads to the same in any case. What this applies is not kept.
            let further = (applied as usize + 100).min(entries.len());
            state.take(&entries[applied as usize..further]).unwrap();
            let (expected, _) = truth(&entries[..further]).await;
            assert_eq!(seen(&reader).await, expected, "after {further} entries");
        });
    }
    reached.dedup();
    assert!(reached.len() > 2, "the kills came too early or too late: {reached:?}");
}

#[tokio::test]
async fn leftovers_of_a_crash_are_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Folder(dir.path().to_path_buf());
    let entries = entries(3, 200);
    let mut state = State::open(&place, tiny()).unwrap();
    state.take(&entries).unwrap();
    state.reader().flush().await.unwrap();
    let expected = seen(&state.reader()).await;
    drop(state);
    let folder = dir.path().join("state");
    std::fs::create_dir_all(folder.join("7/tables")).unwrap();
    std::fs::write(folder.join("7/tables/0"), b"half a table of a copy").unwrap();
    std::fs::write(folder.join("current.new"), b"7 half a na").unwrap();
    std::fs::write(folder.join("1/tables/9999"), b"half a table").unwrap();
    std::fs::write(folder.join("1/v9999"), b"half a manifest").unwrap();
    std::fs::write(dir.path().join("snapshots/3.part"), b"half a copy").unwrap();
    let state = State::open(&place, tiny()).unwrap();
    assert_eq!(seen(&state.reader()).await, expected);
    assert!(!folder.join("7").exists() && !folder.join("1/tables/9999").exists() && !folder.join("1/v9999").exists());
    assert!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().next().is_none());
    let again = State::open(&place, tiny());
    assert!(matches!(again.err(), Some(store::Error::Locked { .. })));
}
