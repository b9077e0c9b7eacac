//! Disks that are full or broken.

use std::io::ErrorKind;
use std::time::Duration;

use chainfire::log::{Disk, Folder, Log, Medium, Options, ROOM_RETRY, Room};
use openraft::storage::RaftLogStorage;
use store::Error;

use crate::log_support::{append, append_synced, contents, id, open, put, small, vote};
use crate::tmpfs::Tmpfs;

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_before_it_hurts_and_the_log_goes_on_when_there_is_room() {
    let disk = Disk::new();
    let mut log = Log::open_on(disk.attach(), Options { tight_bytes: 0, ..small() }).unwrap();
    append_synced(&log, vec![put(1, 0, "")]).await;
    assert_eq!(log.room(), Room::Enough);
    disk.set_capacity(Some(disk.used_bytes()));
    // What is reserved is used up: the rest of one segment, and another one.
    let mut waiting = Vec::new();
    let mut seen = vec![Room::Enough];
    for index in 1..30 {
        waiting.push(append(&log, vec![put(1, index, vec![1; 400])]).await.unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
        let room = log.room();
        if seen.last() != Some(&room) {
            seen.push(room);
        }
        if room == Room::Tight {
            // Votes still fit, before anything waits.
            log.save_vote(&vote(index)).await.unwrap();
        }
    }
    assert_eq!(seen, [Room::Enough, Room::Tight, Room::Full]);
    let durable = waiting.iter_mut().map_while(|flushed| flushed.try_recv().ok()).count();
    assert!((10..25).contains(&durable), "{durable} fitted");
    // What waits can be read, and more can be asked.
    assert_eq!(contents(&log).await.unwrap().entries.len(), 30);
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(waiting[durable].try_recv().is_err());
    disk.set_capacity(None);
    for flushed in waiting.drain(durable..) {
        flushed.await.unwrap().unwrap();
    }
    tokio::time::sleep(ROOM_RETRY * 2).await;
    assert_eq!(log.room(), Room::Enough);
    assert_eq!(log.facts().failed, None);
    log.close().await.unwrap();
    assert_eq!(contents(&open(&disk).unwrap()).await.unwrap().entries.len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_purge_makes_room_by_itself() {
    let disk = Disk::new();
    let mut log = Log::open_on(disk.attach(), Options { tight_bytes: 0, ..small() }).unwrap();
    append_synced(&log, (0..40).map(|index| put(1, index, vec![1; 400])).collect()).await;
    disk.set_capacity(Some(disk.used_bytes()));
    let mut index = 40;
    while log.room() == Room::Enough {
        append_synced(&log, vec![put(1, index, vec![1; 400])]).await;
        index += 1;
    }
    log.purge(id(1, 30)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(log.room(), Room::Enough);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stays_full_ends_the_log_in_the_end_and_loses_nothing() {
    let disk = Disk::new();
    let options = || Options { full_patience: Duration::from_mins(1), ..small() };
    let log = Log::open_on(disk.attach(), options()).unwrap();
    append_synced(&log, vec![put(1, 0, "there")]).await;
    disk.set_capacity(Some(disk.used_bytes()));
    let fits = append(&log, vec![put(1, 1, vec![1; 100])]).await.unwrap();
    let waits = append(&log, (2..30).map(|index| put(1, index, vec![1; 400])).collect()).await.unwrap();
    fits.await.unwrap().unwrap_err();
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(log.facts().failed.unwrap().contains("wait for room"));
    assert_eq!(append(&log, vec![put(1, 30, "")]).await.unwrap_err().kind(), ErrorKind::StorageFull);
    assert!(matches!(log.close().await, Err(Error::DiskFull)));
    // It can be opened as soon as there is room for a segment, and not before.
    disk.set_capacity(Some(disk.used_bytes() - 1));
    assert!(matches!(Log::open_on(disk.attach(), options()), Err(Error::DiskFull)));
    disk.set_capacity(None);
    let log = open(&disk).unwrap();
    let entries = contents(&log).await.unwrap().entries;
    assert_eq!(entries[0], put(1, 0, "there"));
    append_synced(&log, vec![put(2, entries.len() as u64, "on it goes")]).await;
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_room() {
    let disk = Disk::new();
    let log = open(&disk).unwrap();
    disk.set_capacity(Some(0));
    let waits = append(&log, (0..30).map(|index| put(1, index, vec![1; 400])).collect()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let start = tokio::time::Instant::now();
    assert!(matches!(log.close().await, Err(Error::DiskFull)));
    assert!(start.elapsed() < Duration::from_secs(5));
    waits.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_broken_disk_ends_the_log_and_no_later_write_is_tried() {
    let disk = Disk::new();
    let log = open(&disk).unwrap();
    append_synced(&log, vec![put(1, 0, "before")]).await;
    disk.set_broken(Some(ErrorKind::Other));
    let lost = append(&log, vec![put(1, 1, "lost")]).await.unwrap();
    assert!(lost.await.unwrap().unwrap_err().to_string().contains("the disk is broken"));
    disk.set_broken(None);
    let before = disk.counts();
    append(&log, vec![put(1, 2, "after a hole")]).await.unwrap_err();
    log.clone().save_vote(&vote(1)).await.unwrap_err();
    assert!(matches!(log.close().await, Err(Error::Storage { .. })));
    assert_eq!(disk.counts(), before);
    let log = open(&disk).unwrap();
    assert_eq!(contents(&log).await.unwrap().entries, [put(1, 0, "before")]);
    append_synced(&log, vec![put(1, 1, "again")]).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_waits_in_memory_than_the_queue_takes() {
    let disk = Disk::new();
    disk.set_lag(Duration::from_secs(10));
    let log = Log::open_on(disk.attach(), Options { queue_bytes: 10_000, ..small() }).unwrap();
    let start = tokio::time::Instant::now();
    for index in 0..100 {
        append(&log, vec![put(1, index, vec![1; 1000])]).await.unwrap();
    }
    // Ten at a time, and each time takes a sync of ten seconds or more.
    assert!(start.elapsed() > Duration::from_mins(1), "{:?}", start.elapsed());
}

const DISK_BYTES: usize = 8 * 1024 * 1024;

#[tokio::test]
async fn a_real_disk_that_is_full_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = match Tmpfs::mount(dir.path(), DISK_BYTES) {
        Ok(mounted) => mounted,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let options = Options { segment_bytes: 1024 * 1024, tight_bytes: 0, ..Options::default() };
    let log = Log::open(&dir.path().join("log"), options.clone()).unwrap();
    let free = Folder::open(&dir.path().join("other")).unwrap().free_bytes().unwrap();
    mounted.ballast(free as usize - 100_000);
    let mut waiting = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while log.room() != Room::Full {
        let index = waiting.len() as u64;
        waiting.push(append(&log, vec![put(1, index, vec![1; 100_000])]).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(tokio::time::Instant::now() < deadline, "{:?}", log.facts());
    }
    assert!(waiting.len() > 15);
    mounted.make_room();
    let count = waiting.len();
    for flushed in waiting {
        flushed.await.unwrap().unwrap();
    }
    log.close().await.unwrap();
    let log = Log::open(&dir.path().join("log"), options).unwrap();
    assert_eq!(contents(&log).await.unwrap().entries.len(), count);
    log.close().await.unwrap();
    drop(mounted);
}
