//! Archives changed at random, from seeds, for a bounded time. A panic, an endless loop or memory without end fails;
//! what the unpacker takes has to be an image that `fsck.erofs` takes too.

use std::process::Command;

use image::{Limits, unpack::Unpacker};

use crate::support::{Tar, has, raw_member};

/// Mutated archives per run. A few seconds of an unoptimised build.
const ROUNDS: u64 = 6000;
/// Of the archives that were taken, every so manieth is checked by the other implementation.
const CHECK_EVERY: u64 = 40;

/// SplitMix64: small, and the same everywhere for a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = crate::hostile::corpus();
    seeds.retain(|seed| seed.len() < 100_000 && !seed.starts_with(&[0x1f, 0x8b]));
    seeds.push(
        Tar::new()
            .folder("etc", 0o755)
            .file("etc/name", "photon")
            .symlink("lib", "usr/lib")
            .file("lib/one", vec![1; 6000])
            .hard_link("lib/two", "lib/one")
            .file("etc/.wh.name", "")
            .file("usr/.wh..wh..opq", "")
            .file(&"long/".repeat(60), "x")
            .pax(&[("SCHILY.xattr.user.a", b"b"), ("mtime", b"1.5"), ("path", b"renamed")])
            .file("x", "y")
            .pax(&[("GNU.sparse.map", b"0,1,9,1"), ("GNU.sparse.size", b"10")])
            .file("holes", "ab")
            .done(),
    );
    seeds.push(raw_member(b'S', b"sparse", b"", 100, &[1; 100]));
    seeds
}

/// Bytes and fields changed, blocks cut, doubled and swapped; checksums mended mostly, so that the inside is reached.
fn mutate(random: &mut Random, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(6) {
        let blocks = bytes.len() / 512;
        let block = random.below(blocks.max(1)) * 512;
        match random.below(8) {
            0 if !bytes.is_empty() => {
                let at = random.below(bytes.len());
                bytes[at] = random.next() as u8;
            }
            1 if bytes.len() >= block + 512 => {
                // A field of a header: name, mode, size, type, link, prefix.
                let at = [0, 100, 108, 124, 135, 156, 157, 345, 386, 482][random.below(10)];
                bytes[block + at] = *[0, b'/', b'.', b'7', b'x', b'L', b'S', b'1', b'2', b'5', 0x80, 0xff]
                    .get(random.below(12))
                    .unwrap_or(&0);
            }
            2 => bytes.truncate(random.below(bytes.len() + 1)),
            3 if bytes.len() >= block + 512 => {
                let copy = bytes[block..block + 512].to_vec();
                let at = random.below(blocks) * 512;
                bytes.splice(at..at, copy);
            }
            4 if bytes.len() >= block + 512 => drop(bytes.drain(block..block + 512)),
            5 => bytes.extend_from_slice(&other[..random.below(other.len() / 512 + 1) * 512]),
            6 if bytes.len() >= block + 512 => {
                let name: &[u8] = [&b"../x"[..], b"/x", b"a/b", b".wh.a", b"lib/x", b".wh..wh..opq"][random.below(6)];
                bytes[block..block + name.len()].copy_from_slice(name);
                bytes[block + name.len()] = 0;
            }
            _ if bytes.len() >= block + 512 => {
                let size = [0, 1, 511, 512, 513, 70_000, u32::MAX as usize][random.below(7)];
                bytes[block + 124..block + 135].copy_from_slice(format!("{size:011o}").as_bytes());
            }
            _ => {}
        }
        for header in bytes.chunks_exact_mut(512) {
            let is_header = &header[257..262] == b"ustar";
            if is_header && random.below(20) != 0 {
                crate::support::sum(header);
            }
        }
    }
    bytes
}

#[test]
fn changed_archives_never_upset_the_unpacker() {
    let limits = Limits { root_bytes_max: 1 << 20, entries_max: 200, ..Limits::default() };
    let can_check = has(&["fsck.erofs"]);
    let seeds = seeds();
    let mut random = Random(20_240_607);
    let (mut taken, mut refused) = (0_u64, 0_u64);
    for round in 0..ROUNDS {
        let layers: Vec<Vec<u8>> = (0..=random.below(2))
            .map(|_| {
                let (seed, other) = (random.below(seeds.len()), random.below(seeds.len()));
                mutate(&mut random, &seeds[seed], &seeds[other])
            })
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut unpacker = Unpacker::new(file.reopen().unwrap(), file.path(), &limits);
        let result = layers.iter().try_for_each(|layer| unpacker.apply(&layer[..]));
        match result.and_then(|()| unpacker.finish([0; 16])) {
            Ok(built) => {
                taken += 1;
                assert!(built.bytes <= limits.root_bytes_max, "round {round}");
                if can_check && taken.is_multiple_of(CHECK_EVERY) {
                    let checked = Command::new("fsck.erofs").arg("--extract").arg(file.path()).output().unwrap();
                    let said = String::from_utf8_lossy(&checked.stderr);
                    assert!(checked.status.success(), "round {round}: {said}");
                }
            }
            Err(error) => {
                refused += 1;
                assert!(["image_layer_invalid", "image_too_large"].contains(&error.code()), "round {round}: {error}");
            }
        }
    }
    // Both ends have to be reached, else the changes are too tame or too wild.
    assert!(taken > ROUNDS / 50 && refused > ROUNDS / 10, "{taken} taken, {refused} refused");
}
