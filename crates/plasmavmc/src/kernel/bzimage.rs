//! A packed Linux kernel (bzImage) and the ELF inside of it.
//!
//! Unpacked once here, so that no boot pays for it: 0.3 s less under software emulation.
//! Source: Documentation/arch/x86/boot.rst of the kernel, "The Real-Mode Kernel Header".

use super::lz4;

const SECTORS_AT: usize = 0x1f1;
const MAGIC_AT: usize = 0x202;
const VERSION_AT: usize = 0x206;
const PAYLOAD_OFFSET_AT: usize = 0x248;
const PAYLOAD_LENGTH_AT: usize = 0x24c;
/// The first boot protocol whose header names the payload.
const VERSION_MIN: u16 = 0x0208;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// No kernel is larger than this when unpacked, in bytes.
const UNPACKED_BYTES_MAX: u64 = 512 << 20;

/// The ELF image packed in `image`. LZ4 (Debian's), gzip and zstd are understood; an ELF is returned as it is.
pub fn unpack(image: &[u8]) -> Result<Vec<u8>, String> {
    if image.starts_with(&ELF_MAGIC) {
        return Ok(image.to_vec());
    }
    let elf = unpack_payload(payload(image)?)?;
    if !elf.starts_with(&ELF_MAGIC) {
        return Err("its payload is not an ELF image".to_owned());
    }
    Ok(elf)
}

fn payload(image: &[u8]) -> Result<&[u8], String> {
    let short = || "it is too short for a kernel".to_owned();
    if image.get(MAGIC_AT..MAGIC_AT + 4) != Some(b"HdrS".as_slice()) {
        return Err("it has no boot header".to_owned());
    }
    let version = image.get(VERSION_AT..VERSION_AT + 2).ok_or_else(short)?;
    let version = u16::from_le_bytes([version[0], version[1]]);
    if version < VERSION_MIN {
        return Err(format!("its boot protocol {version:#06x} is older than {VERSION_MIN:#06x}"));
    }
    let number = |at: usize| -> Result<usize, String> {
        let bytes = image.get(at..at + 4).and_then(|slice| slice.try_into().ok()).ok_or_else(short)?;
        Ok(u32::from_le_bytes(bytes) as usize)
    };
    // Zero setup sectors mean four, for the oldest kernels' sake.
    let sectors = match usize::from(*image.get(SECTORS_AT).ok_or_else(short)?) {
        0 => 4,
        sectors => sectors,
    };
    let start = (sectors + 1) * 512 + number(PAYLOAD_OFFSET_AT)?;
    image.get(start..start + number(PAYLOAD_LENGTH_AT)?).ok_or_else(|| "its payload is cut short".to_owned())
}

fn unpack_payload(payload: &[u8]) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut out = Vec::new();
    let read = |reader: &mut dyn Read, out: &mut Vec<u8>| match reader.take(UNPACKED_BYTES_MAX).read_to_end(out) {
        // The build appends the unpacked length to the stream; a decoder that trips over it has already given everything.
        Err(error) if out.is_empty() => Err(format!("its payload does not unpack: {error}")),
        _ => Ok(()),
    };
    if payload.starts_with(&lz4::MAGIC) {
        let packed = payload.get(..payload.len() - 4).unwrap_or_default();
        return lz4::unpack(packed).map_err(|why| format!("its payload does not unpack: {why}"));
    } else if payload.starts_with(&GZIP_MAGIC) {
        read(&mut flate2::read::GzDecoder::new(payload), &mut out)?;
    } else if payload.starts_with(&ZSTD_MAGIC) {
        let mut decoder = zstd::stream::read::Decoder::new(payload).map_err(|error| error.to_string())?.single_frame();
        read(&mut decoder, &mut out)?;
    } else {
        let head = super::hex(&payload[..payload.len().min(6)]);
        return Err(format!("its payload is packed in a way that is not known here (it begins with {head})"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[SECTORS_AT] = 1;
        image[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(b"HdrS");
        image[VERSION_AT..VERSION_AT + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD_OFFSET_AT..PAYLOAD_OFFSET_AT + 4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD_LENGTH_AT..PAYLOAD_LENGTH_AT + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(&[0; 16]);
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn each_packing_gives_the_elf_back() {
        use std::io::Write;
        let elf = [ELF_MAGIC.as_slice(), &[7; 5000]].concat();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&elf).unwrap();
        let mut gzip = gzip.finish().unwrap();
        gzip.extend_from_slice(&(elf.len() as u32).to_le_bytes());
        let mut zstd = zstd::encode_all(elf.as_slice(), 1).unwrap();
        zstd.extend_from_slice(&(elf.len() as u32).to_le_bytes());
        // One block: the four magic bytes and one 7 as literals, then a long run of it.
        let mut block = vec![0x5f];
        block.extend_from_slice(&elf[..5]);
        block.extend_from_slice(&[1, 0]);
        let mut left = 4999 - 5 - 4 - 15;
        while left >= 255 {
            block.push(255);
            left -= 255;
        }
        block.extend_from_slice(&[left as u8, 0x50, 7, 7, 7, 7, 7]);
        let mut lz4 = lz4::MAGIC.to_vec();
        lz4.extend_from_slice(&(block.len() as u32).to_le_bytes());
        lz4.extend_from_slice(&block);
        lz4.extend_from_slice(&(elf.len() as u32).to_le_bytes());
        for packed in [gzip, zstd, lz4] {
            assert_eq!(unpack(&image(&packed)).unwrap(), elf);
        }
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        assert!(unpack(b"").is_err());
        assert!(unpack(&vec![0; 4096]).unwrap_err().contains("no boot header"));
        assert!(unpack(&image(b"\xfd7zXZ\0more")).unwrap_err().contains("fd377a585a00"));
        let mut cut = image(&lz4::MAGIC);
        cut.truncate(1030);
        assert!(unpack(&cut).unwrap_err().contains("cut short"));
    }
}
