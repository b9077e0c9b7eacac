//! What a log keeps, over restarts too.

use std::time::Duration;

use chainfire::log::{Disk, LAZY, Log, Options};
use futures::TryStreamExt;
use openraft::storage::{RaftLogReader, RaftLogStorage};

use crate::log_support::{Contents, append, append_synced, contents, id, open, put, small, vote};

#[tokio::test]
async fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let entries: Vec<_> = (0..50).map(|index| put(1, index, vec![index as u8; 300])).collect();
    let log = Log::open(dir.path(), small()).unwrap();
    log.clone().save_vote(&vote(1)).await.unwrap();
    for entry in &entries {
        append_synced(&log, vec![entry.clone()]).await;
    }
    log.clone().save_committed(Some(id(1, 40))).await.unwrap();
    let expected = Contents { vote: Some(vote(1)), purged: None, last: Some(id(1, 49)), entries };
    // Most of them have left the memory.
    assert!(log.facts().tail_bytes < 3000);
    assert_eq!(contents(&log).await.unwrap(), expected);
    log.close().await.unwrap();
    for _ in 0..3 {
        let mut log = Log::open(dir.path(), small()).unwrap();
        assert_eq!(contents(&log).await.unwrap(), expected);
        assert_eq!(log.read_committed().await.unwrap(), Some(id(1, 40)));
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn entries_can_be_read_before_they_are_durable() {
    let disk = Disk::new();
    disk.set_lag(Duration::from_secs(5));
    let log = open(&disk).unwrap();
    let entries = vec![put(1, 0, "a"), put(1, 1, "b")];
    let mut flushed = append(&log, entries.clone()).await.unwrap();
    assert_eq!(contents(&log).await.unwrap().entries, entries);
    assert!(flushed.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn one_sync_carries_all_that_wait_and_an_idle_log_does_nothing() {
    let disk = Disk::new();
    disk.set_lag(Duration::from_millis(3));
    let log = open(&disk).unwrap();
    append_synced(&log, vec![put(1, 0, "")]).await;
    let syncs = disk.counts().syncs;
    let mut flushed = Vec::new();
    for index in 1..=100 {
        flushed.push(append(&log, vec![put(1, index, "x")]).await.unwrap());
    }
    for receiver in flushed {
        receiver.await.unwrap().unwrap();
    }
    let syncs = disk.counts().syncs - syncs;
    assert!(syncs <= 20, "{syncs} syncs for 100 appends that waited together");
    let mut log = log;
    let syncs = disk.counts().syncs;
    log.save_committed(Some(id(1, 50))).await.unwrap();
    tokio::time::sleep(LAZY * 2).await;
    assert_eq!(disk.counts().syncs, syncs, "what is committed costs no sync");
    let before = disk.counts();
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(disk.counts(), before, "an idle log does nothing");
    assert_eq!(log.measures().entries, 101);
}

#[tokio::test]
async fn a_new_leader_takes_entries_back_and_puts_its_own() {
    let disk = Disk::new();
    let mut log = open(&disk).unwrap();
    append_synced(&log, (0..30).map(|index| put(1, index, vec![1; 300])).collect()).await;
    log.truncate_after(Some(id(1, 9))).await.unwrap();
    assert_eq!(contents(&log).await.unwrap().last, Some(id(1, 9)));
    append_synced(&log, (10..20).map(|index| put(2, index, vec![2; 300])).collect()).await;
    log.truncate_after(Some(id(2, 14))).await.unwrap();
    append_synced(&log, vec![put(3, 15, "three")]).await;
    let expected = contents(&log).await.unwrap();
    let terms: Vec<_> = expected.entries.iter().map(|entry| entry.log_id.leader_id.term).collect();
    assert_eq!(terms, [vec![1; 10], vec![2; 5], vec![3]].concat());
    log.close().await.unwrap();
    let mut log = open(&disk).unwrap();
    assert_eq!(contents(&log).await.unwrap(), expected);
    log.truncate_after(None).await.unwrap();
    append_synced(&log, vec![put(4, 0, "four")]).await;
    log.close().await.unwrap();
    assert_eq!(contents(&open(&disk).unwrap()).await.unwrap().entries, [put(4, 0, "four")]);
}

/// The entries that are taken back are written after that was asked, and then lie where the new ones will be looked for.
#[tokio::test(start_paused = true)]
async fn entries_that_were_taken_back_are_not_read_while_they_are_still_being_written() {
    let disk = Disk::new();
    let mut log = open(&disk).unwrap();
    disk.set_lag(Duration::from_secs(1));
    let _first = append(&log, (0..12).map(|index| put(1, index, vec![1; 400])).collect()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    log.truncate_after(Some(id(1, 4))).await.unwrap();
    let mut second = append(&log, (5..12).map(|index| put(2, index, vec![2; 400])).collect()).await.unwrap();
    let expected = contents(&log).await.unwrap();
    assert_eq!(expected.entries[5..], (5..12).map(|index| put(2, index, vec![2; 400])).collect::<Vec<_>>());
    while second.try_recv().is_err() {
        assert_eq!(contents(&log).await.unwrap(), expected);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(contents(&log).await.unwrap(), expected);
}

#[tokio::test]
async fn purged_entries_give_their_room_back() {
    let disk = Disk::new();
    let mut log = open(&disk).unwrap();
    for index in 0..200 {
        append_synced(&log, vec![put(1, index, vec![1; 300])]).await;
    }
    let full = log.facts();
    log.purge(id(1, 149)).await.unwrap();
    append_synced(&log, vec![put(1, 200, "")]).await;
    let purged = log.facts();
    assert!(purged.segments * 3 < full.segments, "{purged:?} after {full:?}");
    assert!(disk.used_bytes() * 2 < full.disk_bytes);
    assert_eq!((purged.first, purged.next), (150, 201));
    assert_eq!(log.try_get_log_entries(0..=150).await.unwrap(), [put(1, 150, vec![1; 300])]);
    log.close().await.unwrap();
    let mut log = open(&disk).unwrap();
    assert_eq!(contents(&log).await.unwrap().entries.len(), 51);
    // A snapshot from the leader: further than the log reaches.
    log.purge(id(2, 1000)).await.unwrap();
    append(&log, vec![put(2, 201, "")]).await.expect_err("that would be a hole");
    append_synced(&log, vec![put(2, 1001, "")]).await;
    log.close().await.unwrap();
    let log = open(&disk).unwrap();
    let contents = contents(&log).await.unwrap();
    assert_eq!((contents.purged, contents.last), (Some(id(2, 1000)), Some(id(2, 1001))));
    assert_eq!(contents.entries, [put(2, 1001, "")]);
}

#[tokio::test]
async fn what_is_purged_in_the_newest_segment_stays_purged() {
    let disk = Disk::new();
    let mut log = open(&disk).unwrap();
    append_synced(&log, (0..5).map(|index| put(1, index, "x")).collect()).await;
    for purged in [id(1, 2), id(1, 4), id(2, 9)] {
        log.purge(purged).await.unwrap();
        let expected = contents(&log).await.unwrap();
        assert_eq!(expected.purged, Some(purged));
        log.close().await.unwrap();
        log = open(&disk).unwrap();
        assert_eq!(contents(&log).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn restarts_do_not_pile_up_segments() {
    let disk = Disk::new();
    for _ in 0..10 {
        let log = open(&disk).unwrap();
        assert_eq!(log.facts().segments, 1);
        log.close().await.unwrap();
    }
    let log = open(&disk).unwrap();
    log.clone().save_vote(&vote(3)).await.unwrap();
    log.close().await.unwrap();
    for _ in 0..10 {
        let log = open(&disk).unwrap();
        // The vote was taken over into the new one.
        assert!(log.facts().segments <= 2);
        assert_eq!(contents(&log).await.unwrap().vote, Some(vote(3)));
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let disk = Disk::new();
    let log = open(&disk).unwrap();
    let entries = vec![put(1, 0, "small"), put(1, 1, vec![7; 50_000]), put(1, 2, vec![8; 3000]), put(1, 3, "small")];
    append_synced(&log, entries.clone()).await;
    log.close().await.unwrap();
    let log = open(&disk).unwrap();
    assert_eq!(contents(&log).await.unwrap().entries, entries);
}

#[tokio::test]
async fn a_long_read_comes_in_stretches() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(dir.path(), small()).unwrap();
    let entries: Vec<_> = (0..40).map(|index| put(1, index, vec![1; 100_000])).collect();
    for entry in &entries {
        append_synced(&log, vec![entry.clone()]).await;
    }
    let some = log.limited_get_log_entries(3, 40).await.unwrap();
    assert!(some.len() > 5 && some.len() < 15, "{} entries of 100 kB", some.len());
    assert_eq!(some, entries[3..3 + some.len()]);
    assert_eq!(log.limited_get_log_entries(39, 40).await.unwrap().len(), 1);
    let streamed: Vec<_> = log.entries_stream(5..40).await.try_collect().await.unwrap();
    assert_eq!(streamed, entries[5..]);
}

#[tokio::test]
async fn a_log_is_for_one_process_and_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let options = |cluster| Options { cluster, ..small() };
    let log = Log::open(dir.path(), options(7)).unwrap();
    assert!(matches!(Log::open(dir.path(), options(7)), Err(store::Error::Locked { .. })));
    log.close().await.unwrap();
    let error = Log::open(dir.path(), options(8)).err().expect("another cluster's");
    assert!(error.to_string().contains("belongs to cluster 7"), "{error}");
    Log::open(dir.path(), options(7)).unwrap().close().await.unwrap();
    // A log that is closed refuses.
    log.clone().save_vote(&vote(1)).await.unwrap_err();
    append(&log, vec![put(1, 0, "")]).await.unwrap_err();
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_log_that_is_dropped_writes_what_waits() {
    let disk = Disk::new();
    let log = open(&disk).unwrap();
    let flushed = append(&log, vec![put(1, 0, "last words")]).await.unwrap();
    drop(log);
    flushed.await.unwrap().unwrap();
    assert_eq!(contents(&open(&disk).unwrap()).await.unwrap().entries, [put(1, 0, "last words")]);
}
