//! One number for what a state holds, equal on every member.
//!
//! It goes over keys in order, and over what each was: the row that it had at the compacted revision, and everything that
//! it became since, up to the revision asked for. What was compacted and still lies there has no part in it.

use store::{Error, Revision};

use super::keys;
use super::look::{Version, Versions};

/// Of everything, read with what is compacted up to `compacted`; `to` is not below it. Blocks.
pub fn hash(mut walk: Versions, compacted: Revision, to: Revision) -> Result<u32, Error> {
    let mut crc = flate2::Crc::new();
    let mut versions = Vec::new();
    while let Some(key) = walk.next(&mut versions)? {
        let mut counted: Vec<&Version> = versions.iter().filter(|version| version.revision <= to).collect();
        counted.sort_by_key(|version| version.place());
        // Of what came up to the compacted revision the last counts, when it is a row.
        let old = counted.partition_point(|version| version.revision <= compacted);
        let first = match counted[..old].last() {
            Some(last) if last.kind == keys::ROW => old - 1,
            _ => old,
        };
        for version in &counted[first..] {
            crc.update(&(key.len() as u32).to_le_bytes());
            crc.update(&key);
            crc.update(&version.revision.0.to_le_bytes());
            crc.update(&[version.kind]);
            if version.kind == keys::ROW {
                let row = version.row(&key)?;
                crc.update(&row.create_revision.0.to_le_bytes());
                crc.update(&row.version.to_le_bytes());
                crc.update(&row.lease.map_or(0, |id| id.0).to_le_bytes());
                crc.update(&(row.value.len() as u32).to_le_bytes());
                crc.update(row.value);
            }
        }
    }
    Ok(crc.sum())
}
