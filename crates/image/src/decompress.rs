//! Layers are gzip, zstd or plain; the first bytes tell, since media types do not always.

use std::io::{self, BufReader, Read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

/// The largest window a zstd frame may ask for: 128 MiB, the format's own recommendation for decoders.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const INPUT_BUFFER_BYTES: usize = 256 << 10;

impl Compression {
    /// What the first four bytes of a file say. `None`: it is not compressed.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            // The second is a skippable frame, which some writers begin with.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// The plain bytes of `input`, whatever it is.
pub fn reader<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::with_capacity(4);
    (&mut input).take(4).read_to_end(&mut head)?;
    let compression = Compression::of(&head);
    let whole = BufReader::with_capacity(INPUT_BUFFER_BYTES, io::Cursor::new(head).chain(input));
    Ok(match compression {
        None => Box::new(whole),
        // Several gzip members in a row are one stream: parallel compressors write them.
        Some(Compression::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Some(Compression::Zstd) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn each_compression_is_known_by_its_head() {
        let plain = b"photon".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut twice = gzip.finish().unwrap();
        twice.extend(twice.clone());
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        for (packed, times) in [(plain.clone(), 1), (twice, 2), (zstd, 1)] {
            let mut unpacked = Vec::new();
            reader(&packed[..]).unwrap().read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, plain.repeat(times));
        }
    }
}
