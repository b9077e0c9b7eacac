//! Layers from bytes: the first byte says where the input is cut into two layers, so that whiteouts and links across
//! layers are reached. Headers get a right checksum, else almost every change would end there.
//!
//! `cargo +nightly fuzz run unpack corpus/unpack seeds/unpack`
#![no_main]

use image::Limits;
use image::unpack::Unpacker;
use libfuzzer_sys::fuzz_target;

/// Small enough that a run does not write for long, large enough for every path.
const ROOT_BYTES_MAX: u64 = 1 << 20;
const ENTRIES_MAX: u64 = 500;
const BLOCK_BYTES: usize = 512;

fuzz_target!(|data: &[u8]| {
    let Some((cut, archive)) = data.split_first() else { return };
    let limits = Limits { root_bytes_max: ROOT_BYTES_MAX, entries_max: ENTRIES_MAX, ..Limits::default() };
    let mut archive = archive.to_vec();
    mend(&mut archive);
    let (lower, upper) = archive.split_at(archive.len().min(usize::from(*cut) * BLOCK_BYTES));
    let Ok(file) = tempfile::tempfile() else { return };
    let mut unpacker = Unpacker::new(file, "root.erofs".as_ref(), &limits);
    if unpacker.apply(lower).and_then(|()| unpacker.apply(upper)).is_ok()
        && let Ok(built) = unpacker.finish([0; 16])
    {
        assert!(built.bytes <= ROOT_BYTES_MAX);
    }
});

fn mend(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(BLOCK_BYTES) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
