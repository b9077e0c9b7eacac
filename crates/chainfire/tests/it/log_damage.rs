//! Torn ends are cut off, damage is refused, and nothing false is ever served.

use std::collections::BTreeMap;

use chainfire::log::{Disk, Log, Options, format};
use openraft::storage::RaftLogStorage;
use store::Error;

use crate::log_support::{Contents, append_synced, contents, id, open, put, small, vote};

type Files = BTreeMap<String, Vec<u8>>;

fn disk(files: &Files) -> Disk {
    let disk = Disk::new();
    for (name, content) in files {
        disk.put(name, content.clone());
    }
    disk
}

/// Opens and reads all; both may refuse.
async fn look(files: &Files) -> Result<Contents, Error> {
    let log = open(&disk(files))?;
    contents(&log).await.map_err(|error| {
        match error.into_inner().map(<dyn std::error::Error + Send + Sync>::downcast::<Error>) {
            Some(Ok(error)) => *error,
            other => panic!("{other:?}"),
        }
    })
}

/// Some of everything, over several segments.
async fn filled(disk: &Disk, segment_bytes: u64) -> Log {
    let mut log = Log::open_on(disk.attach(), Options { segment_bytes, ..small() }).unwrap();
    log.save_vote(&vote(1)).await.unwrap();
    for index in 0..12 {
        append_synced(&log, vec![put(1, index, vec![index as u8 | 1; 400]), put(1, index + 1, "again")]).await;
        log.truncate_after(Some(id(1, index))).await.unwrap();
    }
    log.purge(id(1, 3)).await.unwrap();
    log.save_vote(&vote(2)).await.unwrap();
    append_synced(&log, vec![put(2, 12, "the last")]).await;
    log
}

fn refused(error: &Error) -> bool {
    match error {
        Error::Corrupt { reason, .. } => reason.contains("at byte") && reason.contains("add it anew"),
        _ => false,
    }
}

/// Where what was written to a segment ends.
fn end(content: &[u8]) -> usize {
    content.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(format::ALIGN))
}

#[tokio::test]
async fn any_flipped_bit_of_a_closed_log_is_refused() {
    let disk = Disk::new();
    filled(&disk, 4096).await.close().await.unwrap();
    let mut files = disk.files();
    files.remove("spare");
    let truth = look(&files).await.unwrap();
    assert_eq!(truth.entries.len(), 9);
    let (mut tried, names) = (0, files.keys().cloned().collect::<Vec<_>>());
    assert!(names.len() > 1);
    for name in names {
        for at in 0..end(&files[&name]) {
            let bit = 1 << ((at * 5) % 8);
            files.get_mut(&name).unwrap()[at] ^= bit;
            let error = look(&files).await.expect_err(&format!("a bit at {at} of {name}"));
            assert!(refused(&error), "a bit at {at} of {name}: {error}");
            files.get_mut(&name).unwrap()[at] ^= bit;
            tried += 1;
        }
        // Where nothing was written there is nothing to lose.
        for at in end(&files[&name])..files[&name].len() {
            files.get_mut(&name).unwrap()[at] ^= 4;
            if let Ok(seen) = look(&files).await {
                assert_eq!(seen, truth, "a bit at {at} of {name}");
            }
            files.get_mut(&name).unwrap()[at] ^= 4;
        }
    }
    assert!(tried > 3000, "{tried}");
}

/// The power went right after the last sync, before it could be noted anywhere. One bit is no missing sector.
#[tokio::test]
async fn any_flipped_bit_of_the_last_flush_is_refused() {
    let disk = Disk::new();
    let log = filled(&disk, 4096).await;
    let truth = contents(&log).await.unwrap();
    let mut files = disk.files();
    files.remove("spare");
    let name = files.keys().last().unwrap().clone();
    for at in 0..end(&files[&name]) {
        for bit in 0..8 {
            files.get_mut(&name).unwrap()[at] ^= 1 << bit;
            match look(&files).await {
                Err(error) => assert!(refused(&error), "bit {bit} at {at} of {name}: {error}"),
                Ok(seen) => assert_eq!(seen, truth, "bit {bit} at {at} of {name}"),
            }
            files.get_mut(&name).unwrap()[at] ^= 1 << bit;
        }
    }
}

/// A flush of several sectors, of which any may be missing.
#[tokio::test]
async fn whatever_sectors_are_missing_a_torn_flush_is_cut_off() {
    let disk = Disk::new();
    let log = filled(&disk, 16_384).await;
    let before = contents(&log).await.unwrap();
    let files_before = disk.files();
    let entries: Vec<_> = (13..18).map(|index| put(2, index, vec![index as u8; 600])).collect();
    let flushed = crate::log_support::append(&log, entries.clone()).await.unwrap();
    flushed.await.unwrap().unwrap();
    let files = disk.files();
    let name = files.keys().rfind(|name| *name != "spare").unwrap();
    assert_eq!(files.len(), files_before.len(), "the flush went into the same segment");
    let (old, new) = (&files_before[name], &files[name]);
    let sectors: Vec<_> =
        (0..new.len() / 512).filter(|nth| old[nth * 512..][..512] != new[nth * 512..][..512]).collect();
    assert!((6..12).contains(&sectors.len()), "{sectors:?}");
    let mut found = [0; 6];
    for survivors in 0..1_u32 << sectors.len() {
        let mut torn = files.clone();
        for (nth, sector) in sectors.iter().enumerate() {
            if survivors >> nth & 1 == 0 {
                torn.get_mut(name).unwrap()[sector * 512..][..512].copy_from_slice(&old[sector * 512..][..512]);
            }
        }
        let seen = look(&torn).await.unwrap();
        let more = seen.entries.len() - before.entries.len();
        assert_eq!(seen.entries[before.entries.len()..], entries[..more], "{survivors:b}");
        assert_eq!((&seen.vote, &seen.purged), (&before.vote, &before.purged));
        found[more] += 1;
    }
    assert!(found.iter().all(|count| *count > 0), "{found:?}");
}

/// A tear shows by whole sectors. Where zeros begin in the middle of one, the log is refused or what is whole is there.
#[tokio::test]
async fn zeros_from_any_byte_of_the_last_flush_on_never_make_up_anything() {
    let disk = Disk::new();
    let log = filled(&disk, 16_384).await;
    let before = contents(&log).await.unwrap();
    let mut files = disk.files();
    files.remove("spare");
    let name = files.keys().last().unwrap().clone();
    let start = end(&files[&name]);
    append_synced(&log, (13..16).map(|index| put(2, index, vec![index as u8; 1500])).collect()).await;
    let truth = contents(&log).await.unwrap();
    let whole = disk.files()[&name].clone();
    let (mut cut, mut refusals) = (0, 0);
    for from in start..end(&whole) {
        let mut torn = whole.clone();
        torn[from..].fill(0);
        files.insert(name.clone(), torn);
        match look(&files).await {
            Ok(seen) => {
                let whole = (13..16).take_while(|index| {
                    let last = seen.last.expect("it is there").index;
                    *index <= last
                });
                assert_eq!(seen.entries, truth.entries[..before.entries.len() + whole.count()], "from {from}");
                assert_eq!((seen.vote, seen.purged), (truth.vote, truth.purged));
                cut += 1;
            }
            Err(error) => {
                assert!(refused(&error), "from {from}: {error}");
                refusals += 1;
            }
        }
    }
    assert!(cut > 1000 && refusals > 50, "{cut} cut, {refusals} refused");
}

#[tokio::test]
async fn a_file_that_is_too_short_or_missing_or_in_a_wrong_place_is_refused() {
    let disk = Disk::new();
    filled(&disk, 4096).await.close().await.unwrap();
    let mut files = disk.files();
    files.remove("spare");
    let truth = look(&files).await.unwrap();
    let names: Vec<_> = files.keys().cloned().collect();
    for name in &names {
        for length in (0..files[name].len()).step_by(7) {
            let mut short = files.clone();
            short.get_mut(name).unwrap().truncate(length);
            assert!(refused(&look(&short).await.unwrap_err()), "{name} of {length} bytes");
        }
        let mut longer = files.clone();
        longer.get_mut(name).unwrap().extend_from_slice(b"more");
        assert_eq!(look(&longer).await.unwrap(), truth);
    }
    for name in &names[..names.len() - 1] {
        let mut gap = files.clone();
        gap.remove(name);
        assert!(refused(&look(&gap).await.unwrap_err()), "without {name}");
    }
    let mut swapped = files.clone();
    swapped.insert(names[0].clone(), files[&names[1]].clone());
    assert!(refused(&look(&swapped).await.unwrap_err()));
    // Another log's, whole in itself.
    let other = Disk::new();
    open(&other).unwrap().save_vote(&vote(9)).await.unwrap();
    filled(&other, 4096).await.close().await.unwrap();
    let mut mixed = files.clone();
    mixed.insert(names[1].clone(), other.files()[&names[1]].clone());
    assert!(refused(&look(&mixed).await.unwrap_err()));
}

/// A whole record that was never written after the one before it.
#[tokio::test]
async fn a_record_that_is_not_the_next_link_of_the_chain_is_refused() {
    let disk = Disk::new();
    filled(&disk, 16_384).await.close().await.unwrap();
    let mut files = disk.files();
    files.remove("spare");
    let (name, content) = files.pop_last().unwrap();
    let (header, _) = format::Header::decode(&content).unwrap();
    let end = end(&content);
    let mut out = content[..end].to_vec();
    format::put(&mut out, 0, header.sequence, 12345, format::Kind::Entry, &put(2, 13, "stale")).unwrap();
    out.extend_from_slice(&content[out.len()..]);
    files.insert(name, out);
    let error = look(&files).await.unwrap_err();
    assert!(refused(&error) && error.to_string().contains("does not follow"), "{error}");
}

/// A tear cannot have taken what was noted.
#[tokio::test]
async fn a_sector_that_vanishes_below_a_note_is_refused() {
    let disk = Disk::new();
    let log = filled(&disk, 16_384).await;
    append_synced(&log, (13..16).map(|index| put(2, index, vec![index as u8; 600])).collect()).await;
    log.close().await.unwrap();
    let mut files = disk.files();
    files.remove("spare");
    let (name, content) = files.pop_last().unwrap();
    let sectors = end(&content) / 512;
    assert!(sectors > 4);
    // The last whole sector is the note's own.
    for sector in 0..sectors - 1 {
        let mut damaged = content.clone();
        damaged[sector * 512..][..512].fill(0);
        files.insert(name.clone(), damaged);
        let error = look(&files).await.unwrap_err();
        assert!(refused(&error), "sector {sector}: {error}");
    }
}

#[tokio::test]
async fn a_later_format_is_named() {
    let disk = Disk::new();
    open(&disk).unwrap().close().await.unwrap();
    let mut files = disk.files();
    let (name, content) = files.iter_mut().find(|(name, _)| *name != "spare").unwrap();
    assert_eq!(content[8], format::FORMAT as u8);
    let (header, _) = format::Header::decode(content).unwrap();
    content[..format::HEADER_BYTES].copy_from_slice(&header.encode_as(9).0);
    let name = name.clone();
    match open(&self::disk(&files)).err() {
        Some(Error::FormatUnknown { path, found: 9, known: 1 }) => assert!(path.ends_with(name)),
        other => panic!("{other:?}"),
    }
}

/// Damage that comes while the log is open is met by the reader.
#[tokio::test]
async fn a_bit_that_flips_under_an_open_log_is_not_served() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 4096, tail_bytes: 0, ..Options::default() };
    let log = Log::open(dir.path(), options).unwrap();
    append_synced(&log, (0..5).map(|index| put(1, index, vec![3; 500])).collect()).await;
    assert_eq!(contents(&log).await.unwrap().entries.len(), 5);
    let path = dir.path().join("0000000000000000.log");
    let at = std::fs::read(&path).unwrap().windows(8).position(|bytes| bytes == [3; 8]).unwrap() as u64;
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[2], at).unwrap();
    let error = contents(&log).await.unwrap_err();
    assert!(error.to_string().contains("0000000000000000.log is corrupt: at byte"), "{error}");
    log.close().await.unwrap();
}
